import threading
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from densecli.core.prefetch import Pending, Stopped, prefetch


@pytest.fixture
def pool():
    with ThreadPoolExecutor(3) as pool:
        yield pool


@pytest.mark.parametrize("window", [1, 2, 5, 50])
@pytest.mark.parametrize("threads", [1, 3])
def test_prefetch__gives_every_result_in_order(threads, window):
    def slow_first(n):
        time.sleep(0.01 if n % 3 == 0 else 0)
        return n * n

    results = prefetch(slow_first, range(20), threads=threads, window=window)
    assert list(results) == [n * n for n in range(20)]


def test_prefetch__takes_no_item_before_the_first_result_is_wanted_and_none_beyond_its_window(pool):
    taken = []
    items = (taken.append(n) or n for n in range(20))
    results = prefetch(lambda n: n, items, threads=pool, window=4)
    assert taken == []
    for n in range(10):
        assert next(results) == n
        assert len(taken) == n + 4


def test_prefetch__an_exception_comes_where_its_result_would(pool):
    results = prefetch(lambda n: 6 // n, [3, 2, 0, 1], threads=pool, window=4)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_prefetch__an_exception_of_the_items_comes_after_the_results_before_it(pool):
    def items():
        yield from range(3)
        raise OSError("no more")

    results = prefetch(lambda n: n, items(), threads=pool, window=1)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="no more"):
        next(results)


def test_prefetch__stops_when_told_to(pool):
    stop = Event()
    results = prefetch(lambda n: n, range(20), threads=pool, window=4, stop=stop)
    assert next(results) == 0
    stop.set()
    with pytest.raises(Stopped):
        next(results)


def test_prefetch__one_thread_never_makes_two_calls_at_once():
    running, most = [], []

    def work(n):
        running.append(n)
        most.append(len(running))
        time.sleep(0.001)
        running.remove(n)

    list(prefetch(work, range(20), threads=1, window=8))
    assert set(most) == {1}


def test_prefetch__works_while_the_caller_does():
    """With a window of 2, the next result is made while the caller has the current one."""
    made = [Event() for _ in range(3)]
    results = prefetch(lambda n: made[n].set() or n, range(3), threads=1, window=2)
    assert next(results) == 0
    assert made[1].wait(10)
    assert not made[2].is_set()


def test_prefetch__closed_early_it_drops_what_has_not_started_and_ends_its_threads():
    started, go_on = [], Event()

    def work(n):
        started.append(n)
        if n:
            go_on.wait(10)
        return n

    results = prefetch(work, range(20), threads=1, window=10)
    assert next(results) == 0
    while started != [0, 1]:
        time.sleep(0.001)
    threading.Timer(0.05, go_on.set).start()
    results.close()
    assert started == [0, 1]
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]


def test_prefetch__a_pool_of_the_callers_stays_open(pool):
    results = prefetch(lambda n: n, range(5), threads=pool, window=2)
    next(results)
    results.close()
    assert pool.submit(lambda: 7).result() == 7


def test_pending__results_are_taken_until_as_many_are_left_as_asked(pool):
    pending = Pending(pool)
    for n in range(5):
        pending.submit(pow, n, 2)
    assert list(pending.results(keep=2)) == [0, 1, 4]
    assert list(pending.results(keep=2)) == []
    assert list(pending.results()) == [9, 16]
