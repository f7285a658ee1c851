"""Units as they travel to a worker: the same photos come out as went in."""

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from densecli.core.passed_over import PassedOver
from densecli.pipeline.sources.base import Item, Span
from densecli.pipeline.sources.cut import ShuffledCut
from densecli.pipeline.sources.packed import PackedItems, part
from densecli.pipeline.sources.tars import table
from densecli.pipeline.sources.volumes import Listing, Volume

# With halves of characters, as Python reads names that are not in UTF-8.
names = st.text(st.characters() | st.characters(categories=["Cs"]), max_size=8)
numbers = st.integers(0, 2**40)
spans = st.none() | st.builds(Span, names, numbers, st.none() | numbers)


@given(st.lists(st.builds(Item, names, names, spans, spans), max_size=5))
def test_packed_items__come_out_as_they_went_in(items):
    packed = PackedItems.of(items)
    assert len(packed) == len(items)
    for travelled in (packed, pickle.loads(pickle.dumps(packed))):
        assert list(travelled) == items
        assert [travelled[i] for i in range(len(items))] == items
    # What was unpacked here does not travel.
    assert pickle.dumps(packed) == pickle.dumps(PackedItems.of(items))


def test_listing__a_part_is_what_its_items_are_and_takes_less_to_send():
    def volume(name: str, first: int, count: int) -> Volume:
        rows = [
            (b"sa_%d.jpg" % i, i * 1000, 900, i * 1000 + 950, 40 * (i % 2))
            for i in range(first, first + count)
        ]
        return Volume(name, table(rows), PassedOver())

    listing = Listing([volume("a.tar", 0, 300), volume("", 300, 3), volume("b", 303, 400)], prefixed=True)
    items = [listing[i] for i in range(len(listing))]
    assert listing[:] == items and listing[-1] == items[-1] and len(items) == 703
    shuffled = np.random.default_rng(0).permutation(703)
    for order in (np.arange(703), shuffled):
        cut = listing if order is not shuffled else ShuffledCut(listing, order)
        for start in (0, 100, 290, 299, 302, 600):
            expected = [items[place] for place in order[start : start + 256]]
            taken = part(cut, np.arange(start, min(start + 256, 703)))
            sent = pickle.dumps(taken)
            assert list(taken) == list(pickle.loads(sent)) == expected
            assert len(taken) == len(expected) and taken[-1] == expected[-1]
            assert pickle.dumps(taken) == sent
            assert len(sent) < len(pickle.dumps(tuple(expected)))
