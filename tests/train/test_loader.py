"""Position is state: every resume, with any workers and any number of processes, gives the very batches."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from densecli.core.key_share import share_of_key
from densecli.shards.reader import StoreReader
from densecli.train.batch import Batch
from densecli.train.crops import CropLoader
from densecli.train.dataloader import Loader
from densecli.train.stream import Stream
from densecli.train.trainer_config import LoaderConfig

ROOT = Path(__file__).parents[2]


def stream(tiny, *, columns: int = 3, rank: int = 0, world_size: int = 1, **settings) -> Stream:
    config = LoaderConfig(**{"batch_size": 3, "workers": 0, "seed": 5, "lanes": 2, **settings})
    share = {"rank": rank, "world_size": world_size}
    if columns == 1:
        return CropLoader(tiny.store, config, crops=2, side=16, **share)
    return Loader(tiny.store, tiny.regions, {"labels": tiny.labels}, config, **share)


def processes(tiny, world_size: int, **settings) -> list[Stream]:
    return [stream(tiny, rank=rank, world_size=world_size, **settings) for rank in range(world_size)]


def same(a: Batch, b: Batch) -> bool:
    tensors = [[x.images, x.boxes, x.batch_index, *x.targets.values()] for x in (a, b)]
    return (a.keys, a.epoch, [*a.targets]) == (b.keys, b.epoch, [*b.targets]) and all(
        torch.equal(x, y) for x, y in zip(*tensors, strict=True)
    )


def all_same(a: Sequence[Batch], b: Sequence[Batch]) -> bool:
    return len(a) == len(b) and all(map(same, a, b))


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_resume__at_every_step_gives_the_batches_of_an_undisturbed_run(
    tiny_store, columns, world_size, workers
):
    calm = processes(tiny_store, world_size, columns=columns, batch_size=2)
    resumed = processes(tiny_store, world_size, columns=columns, batch_size=2, workers=workers)
    for before, after in zip(calm, resumed, strict=True):
        whole = list(before.batches(1))
        assert len(whole) == before.steps_per_epoch == -(-11 // (2 * world_size))
        for k in range(len(whole) + 1):
            assert all_same(list(after.batches(1, k * after.whole)), whole[k:])


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize(("world_size", "size"), [(2, 1), (2, 3), (3, 2), (4, 4)])
def test_processes__together_have_the_batches_of_one_process(tiny_store, columns, world_size, size):
    (one,) = processes(tiny_store, 1, columns=columns, batch_size=world_size * size)
    for drop_last in (False, True):
        parts = processes(tiny_store, world_size, columns=columns, batch_size=size, drop_last=drop_last)
        steps = list(zip(*(part.batches(2) for part in parts), strict=True))
        assert (
            len(steps) == parts[0].steps_per_epoch == (11 // one.whole if drop_last else -(-11 // one.whole))
        )
        for whole, step in zip(one.batches(2), steps, strict=False):
            mine = [batch for batch in step if batch.keys]
            assert whole.keys == tuple(key for batch in mine for key in batch.keys)
            assert torch.equal(whole.images, torch.cat([batch.images for batch in mine]))
            assert torch.equal(whole.boxes, torch.cat([batch.boxes for batch in mine]))


def test_processes__without_a_sample_go_along_with_the_first_of_the_batch(tiny_store):
    (one,) = processes(tiny_store, 1, batch_size=10)
    first, second = (list(part.batches(0)) for part in processes(tiny_store, 2, batch_size=5))
    *_, last = one.batches(0)
    assert len(last.keys) == 1
    (without,) = [each for each in (first[-1], second[-1]) if not each.keys]
    (with_it,) = [each for each in (first[-1], second[-1]) if each.keys]
    assert same(last, with_it) and torch.equal(without.images, last.images)


def test_photos_share__is_the_same_photos_in_any_order_and_with_any_processes(tiny_store):
    def keys(share, world_size=1, **settings):
        parts = processes(tiny_store, world_size, batch_size=1, photos_share=share, **settings)
        return sorted(key for part in parts for batch in part.batches(1) for key in batch.keys)

    half, whole = keys(0.5), keys(1.0)
    assert half == [key for key in whole if share_of_key(key, "photos-5") < 0.5] and 0 < len(half) < 11
    assert half == keys(0.5, world_size=2) == keys(0.5, lanes=1) == keys(0.5, world_size=3, workers=2)
    assert half != keys(0.5, seed=0)
    nested = [set(keys(share)) for share in (0.25, 0.5, 0.75, 1.0)]
    assert all(small <= large for small, large in pairwise(nested))


# (processes, samples that each takes at once, workers), before and after.
SHARES = [(1, 4, 0), (2, 2, 1), (2, 1, 4), (1, 3, 2), (3, 1, 2)]


@pytest.mark.parametrize("before", SHARES)
@pytest.mark.parametrize("after", SHARES)
def test_resume__with_other_processes_and_workers_loses_and_repeats_nothing(tiny_store, before, after):
    expected = [key for batch in stream(tiny_store).batches(1) for key in batch.keys]

    def streams(world_size, size, workers):
        return processes(tiny_store, world_size, batch_size=size, workers=workers)

    def keys_of(streams, start, steps=None):
        steps_of = [list(part.batches(1, start))[:steps] for part in streams]
        return [key for step in zip(*steps_of, strict=True) for batch in step for key in batch.keys]

    first, second = streams(*before), streams(*after)
    for k in range(first[0].steps_per_epoch + 1):
        seen = keys_of(first, 0, k)
        assert len(seen) == min(k * first[0].whole, 11)
        # Resumed twice: by other processes for one step, then by the first again.
        once = keys_of(second, len(seen), 1)
        left = keys_of(first, len(seen) + len(once))
        assert sorted(seen + once + left) == sorted(expected)


def test_resume__at_the_border_of_an_epoch_goes_on_with_the_next(tiny_store):
    loader = stream(tiny_store)
    assert list(loader.batches(0, len(loader))) == []
    assert all_same(list(stream(tiny_store).batches(1)), list(loader.batches(1)))


def test_processes__read_no_shard_that_has_none_of_their_samples(tiny_store, monkeypatch):
    from densecli.shards import reader

    opened = []
    real = reader.open_tar
    monkeypatch.setattr(reader, "open_tar", lambda *what: (opened.append(what[1]), real(*what))[1])
    columns = [tiny_store.store.images, tiny_store.regions]
    keys = [r.key for r in StoreReader(columns, shuffle=False).iter(0, batch=12, rank=1, world_size=3)]
    assert keys == ["0003", "0004", "0005", "0006"]
    assert set(opened) == {"000000", "000001"}


@pytest.mark.parametrize("workers", [0, 2])
def test_loader__left_in_the_middle_or_by_an_error_leaves_no_thread(tiny_store, workers, monkeypatch):
    threads = set(threading.enumerate())
    batches = stream(tiny_store, workers=workers).batches(0)
    next(batches)
    batches.close()
    assert set(threading.enumerate()) == threads

    broken = stream(tiny_store, workers=workers)
    monkeypatch.setattr(broken, "_part", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(broken.batches(0))
    assert set(threading.enumerate()) == threads


KILLED = """
import itertools, sys, time
from densecli.shards.store import Store
from densecli.train.crops import CropLoader
from densecli.train.trainer_config import LoaderConfig
config = LoaderConfig(batch_size=2, workers=4, cache=sys.argv[2])
loader = CropLoader(Store.open(sys.argv[1]), config, crops=2, side=16)
for epoch in itertools.count():
    for batch in loader.batches(epoch):
        print(epoch, flush=True)
"""


def test_loader__killed_leaves_no_process_no_shared_memory_and_no_file(tiny_store, tmp_path):
    temporary, cache = tmp_path / "tmp", tmp_path / "cache"
    temporary.mkdir()
    shared = set(os.listdir("/dev/shm"))
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, tiny_store.store.root, str(cache)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout and process.stdout.readline() == "0\n"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    process.stdout.close()
    assert list(temporary.iterdir()) == [] and not cache.exists()
    assert not {name for name in set(os.listdir("/dev/shm")) - shared if str(process.pid) in name}
