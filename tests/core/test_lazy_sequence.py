from hypothesis import given
from hypothesis import strategies as st

from densecli.core.lazy_sequence import LazySequence


class Squares(LazySequence[int]):
    def __init__(self, count: int) -> None:
        self.count = count
        self.made: list[int] = []

    def __len__(self) -> int:
        return self.count

    def at(self, i: int) -> int:
        self.made.append(i)
        return i * i


@given(st.integers(0, 9), st.integers(-12, 12) | st.slices(12))
def test_lazy_sequence__is_indexed_as_a_list(count: int, index: int | slice) -> None:
    lazy, whole = Squares(count), [i * i for i in range(count)]
    try:
        expected = whole[index]
    except IndexError:
        expected = "IndexError"
    try:
        assert lazy[index] == expected
    except IndexError:
        assert expected == "IndexError"
    assert list(lazy) == whole


def test_lazy_sequence__makes_only_what_is_asked_for() -> None:
    lazy = Squares(9)
    assert lazy[-1] == 64 and lazy[2:4] == [4, 9] and lazy.made == [8, 2, 3]
