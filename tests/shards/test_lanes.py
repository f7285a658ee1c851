"""Lanes: every sample once an epoch, the same batches for any number of processes, each shard opened once."""

import math
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from densecli.core import fs
from densecli.shards.cache import Cache
from densecli.shards.lanes import Lanes, number_of_lanes

sizes_of_stores = st.lists(st.integers(0, 6), max_size=14)


def pairs(
    lanes: Lanes, epoch: int = 0, start: int = 0, *, batch: int = 1, **share: int
) -> list[list[tuple[int, int]]]:
    """(shard, row) of the samples of each batch."""
    shares = lanes.shares(epoch, start, batch=batch, **share)
    return [list(zip(*taken[2:].tolist(), strict=True)) for taken in shares]


def opened(lanes: Lanes, **share: int) -> int:
    """How many shards a process opens in an epoch: anew for each block of a lane that has samples of it."""
    blocks: dict[int, tuple[int, set[int]]] = {}
    count = 0
    for taken in lanes.shares(0, **share):
        for lane, block, shard in np.unique(taken[:3], axis=1).T.tolist():
            if blocks.get(lane, (-1,))[0] != block:
                blocks[lane] = block, set()
            count += shard not in blocks[lane][1]
            blocks[lane][1].add(shard)
    return count


@given(sizes_of_stores, st.integers(1, 9), st.integers(1, 5), st.integers(1, 12), st.integers(0, 99))
def test_shares__have_every_sample_of_an_epoch_once(sizes, count, window, batch, epoch):
    lanes = Lanes(sizes, count, seed=3, window=window)
    batches = pairs(lanes, epoch, batch=batch)
    assert sorted(chain(*batches)) == [(shard, row) for shard, n in enumerate(sizes) for row in range(n)]
    assert all(len(samples) == batch for samples in batches[:-1])


@given(sizes_of_stores, st.integers(1, 9), st.integers(1, 12), st.integers(1, 6))
def test_shares__of_all_processes_are_the_batches_of_one(sizes, count, size, world_size):
    lanes = Lanes(sizes, count, seed=3, window=2)
    share = {"batch": size * world_size, "world_size": world_size}
    parts = [pairs(lanes, rank=rank, **share) for rank in range(world_size)]
    assert [list(chain(*step)) for step in zip(*parts, strict=True)] == pairs(lanes, batch=size * world_size)
    for part in parts:
        assert all(len(samples) == size for samples in part[:-1])


@given(sizes_of_stores, st.integers(1, 9), st.integers(1, 6), st.data())
def test_shares__continue_at_any_batch(sizes, count, batch, data):
    lanes = Lanes(sizes, count, seed=3, window=2)
    whole = pairs(lanes, batch=batch)
    k = data.draw(st.integers(0, len(whole)))
    assert pairs(lanes, start=k * batch, batch=batch) == whole[k:]


@given(sizes_of_stores, st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.data())
def test_shares__steps_of_smaller_batches_have_the_same_samples(sizes, count, size, parts, data):
    lanes = Lanes(sizes, count, seed=3, window=2)
    large = [sorted(samples) for samples in pairs(lanes, batch=size * parts)]
    small = pairs(lanes, batch=size)
    assert [sorted(chain(*small[k : k + parts])) for k in range(0, len(small), parts)] == large


def test_shares__without_a_shuffle_are_the_order_of_the_store():
    lanes = Lanes([2, 3, 1], 1, seed=0, window=2, shuffle=False)
    assert pairs(lanes, epoch=4, batch=6) == [[(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0)]]


def test_shares__known_values():
    # A run must resume under a later release in the very order it began with.
    assert pairs(Lanes([2, 3, 1], 2, seed=0, window=2), batch=4) == [
        [(0, 0), (1, 0), (1, 1), (2, 0)],
        [(0, 1), (1, 2)],
    ]


def test_shares__differ_by_seed_and_epoch():
    orders = {
        str(pairs(Lanes([9] * 9, 3, seed=seed, window=2), epoch)) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(orders) == 4


def store_sizes(shards: int) -> list[int]:
    """Shards of 32, of which photos were skipped; the last one is short."""
    skipped = np.random.default_rng(0).integers(0, 3, shards)
    return [*(32 - skipped[:-1]).tolist(), 5]


@pytest.mark.parametrize(("processes", "shards"), [(1, 100), (2, 200), (8, 800), (64, 2000)])
def test_opens__each_shard_once_where_the_processes_divide_the_lanes(processes, shards):
    count = number_of_lanes(shards, 48, processes)
    lanes = Lanes(store_sizes(shards), count, seed=1, window=4)
    share = {"batch": 48 * processes, "world_size": processes}
    opens = sum(opened(lanes, rank=rank, **share) for rank in range(processes))
    assert opens <= 1.1 * shards


def test_opens__of_a_thousand_processes():
    """Every 64th of 1,024 processes; they open a shard a little more often than they have shards."""
    shards, processes = 11_000, 1024
    lanes = Lanes(store_sizes(shards), number_of_lanes(shards, 48, processes), seed=1, window=4)
    share = {"batch": 48 * processes, "world_size": processes}
    ranks = range(0, processes, 64)
    assert sum(opened(lanes, rank=rank, **share) for rank in ranks) <= 1.1 * shards * len(ranks) / processes


@pytest.mark.parametrize(("count", "processes"), [(4, 3), (8, 3), (8, 5), (32, 6), (32, 12)])
def test_opens__each_shard_at_most_twice_where_there_are_fewer_processes_than_lanes(count, processes):
    shards = 20 * count
    lanes = Lanes(store_sizes(shards), count, seed=1, window=4)
    share = {"batch": math.lcm(count, processes) * 4, "world_size": processes}
    assert sum(opened(lanes, rank=rank, **share) for rank in range(processes)) <= 2 * shards


def test_shards__of_a_node_are_in_its_cache_from_the_second_epoch_on(tmp_path, monkeypatch):
    """8 nodes of 8 processes, each with a cache of an eighth of the store: at most 5 % are fetched again."""
    monkeypatch.setattr(fs, "write_atomic", lambda path, data: Path(path).write_bytes(data))
    shards, nodes, local = 1300, 8, 8
    processes = nodes * local
    lanes = Lanes(store_sizes(shards), number_of_lanes(shards, 48, processes), seed=1, window=4)
    share = {"batch": 48 * processes, "world_size": processes}
    fetched = np.zeros(3, int)
    for node in range(nodes):
        cache = Cache(tmp_path / f"{node}", 10 * shards // nodes)
        for epoch in range(3):
            blocks: dict[int, tuple[int, set[int]]] = {}
            of_ranks = [
                lanes.shares(epoch, rank=rank, **share) for rank in range(node * local, (node + 1) * local)
            ]
            for taken in chain(*zip(*of_ranks, strict=True)):
                for lane, block, shard in np.unique(taken[:3], axis=1).T.tolist():
                    if blocks.get(lane, (-1,))[0] != block:
                        blocks[lane] = block, set()
                    name = Cache.name("0" * 12, f"{shard:06d}", f"{shard:016x}")
                    if shard not in blocks[lane][1] and cache.get(name) is None:
                        fetched[epoch] += 1
                        cache.put(name, bytes(10))
                    blocks[lane][1].add(shard)
    assert fetched[0] >= shards
    assert max(fetched[1:]) <= 0.05 * shards


def test_number_of_lanes__is_a_multiple_of_the_processes_that_divides_the_batch():
    for shards in (1, 30, 2000, 43_696):
        for size in (1, 2, 3, 48, 50):
            for processes in (1, 2, 3, 8, 64):
                count = number_of_lanes(shards, size, processes)
                assert count % processes == 0 and size * processes % count == 0
                assert count == processes or 10 * count <= shards
