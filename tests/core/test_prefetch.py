from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from densecli.core.prefetch import Stopped, ahead


@pytest.fixture
def pool():
    with ThreadPoolExecutor(3) as pool:
        yield pool


@pytest.mark.parametrize("window", [1, 2, 5, 50])
def test_ahead__gives_every_result_in_order(pool, window):
    assert list(ahead(pool, lambda n: n * n, range(20), window=window, stop=Event())) == [
        n * n for n in range(20)
    ]


def test_ahead__is_never_further_ahead_than_its_window(pool):
    taken = []
    items = (taken.append(n) or n for n in range(20))
    results = ahead(pool, lambda n: n, items, window=4, stop=Event())
    assert taken == []
    for n in range(10):
        assert next(results) == n
        assert len(taken) == n + 4


def test_ahead__an_exception_comes_where_its_result_would(pool):
    results = ahead(pool, lambda n: 6 // n, [3, 2, 0, 1], window=4, stop=Event())
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_ahead__stops_when_told_to(pool):
    stop = Event()
    results = ahead(pool, lambda n: n, range(20), window=4, stop=stop)
    assert next(results) == 0
    stop.set()
    with pytest.raises(Stopped):
        next(results)
