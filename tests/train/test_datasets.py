"""A store as torch data sets: the trainer's samples, by number and as a stream, with and without workers."""

import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import densecli
from densecli.core.errors import DenseCLIError
from densecli.shards.joined import read_joined
from densecli.shards.webdataset import JoinedSamples
from densecli.train.dataloader import Loader
from densecli.train.trainer_config import LoaderConfig

EXAMPLE = Path(__file__).parents[2] / "examples" / "training_loop.py"


def of_trainer(tiny, epoch: int) -> dict[str, tuple]:
    config = LoaderConfig(batch_size=1, workers=0)
    loader = Loader(tiny.store, tiny.regions, {"labels": tiny.labels}, config)
    return {batch.keys[0]: (batch.images[0], batch.boxes, batch.targets["labels"])
            for batch in loader.batches(epoch)}  # fmt: skip


def same(a: tuple, b: tuple) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_dataset__batches_hold_the_trainers_samples(tiny_store, workers: int) -> None:
    dataset = densecli.SampleDataset(tiny_store.store.root, ["tiny"])
    dataset.set_epoch(2)
    expected, seen = of_trainer(tiny_store, 2), []
    loader = DataLoader(dataset, batch_size=3, shuffle=True, num_workers=workers, collate_fn=densecli.collate)
    for batch in loader:
        for row, key in enumerate(batch.keys):
            mine = batch.batch_index == row
            assert same(expected[key], (batch.images[row], batch.boxes[mine], batch.targets["labels"][mine]))
        seen += batch.keys
    assert sorted(seen) == sorted(tiny_store.boxes) and len(seen) == len(dataset)


def test_dataset__numbers_run_through_the_shards_in_order(tiny_store) -> None:
    dataset = densecli.SampleDataset(tiny_store.store)
    keys = [record.key for shard in tiny_store.store.shard_names
            for record in read_joined([tiny_store.store.images], shard)]  # fmt: skip
    assert [dataset[i].key for i in range(len(dataset))] == keys
    assert dataset[-1].key == keys[-1] and dataset[0].targets == {}
    assert dataset[0].image.shape == (96, 96, 3)
    with pytest.raises(IndexError, match="no sample"):
        dataset[len(dataset)]
    # A worker that is spawned gets a copy, which opens shards of its own.
    assert pickle.loads(pickle.dumps(dataset))[3].key == keys[3]


def test_stream__processes_and_workers_share_an_epoch(tiny_store, monkeypatch) -> None:
    stream = densecli.SampleStream(tiny_store.store.root, ["tiny"], seed=1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    seen: list[str] = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        for batch in DataLoader(stream, batch_size=2, num_workers=2, collate_fn=densecli.collate):
            seen += batch.keys
    assert sorted(seen) == sorted(tiny_store.boxes)


def test_stream__epochs_have_orders_and_views_of_their_own(tiny_store) -> None:
    stream = densecli.SampleStream(tiny_store.store, ["tiny"])
    first = list(stream)
    stream.set_epoch(1)
    second = list(stream)
    assert [each.key for each in first] != [each.key for each in second]
    expected = of_trainer(tiny_store, 1)
    for each in second:
        assert np.array_equal(each.boxes, expected[each.key][1].numpy())


def test_datasets__what_cannot_be_read_is_refused(tiny_store) -> None:
    with pytest.raises(DenseCLIError, match="are both columns of labels"):
        densecli.SampleDataset(tiny_store.store, ["tiny", "tiny"])
    with pytest.raises(DenseCLIError):
        densecli.SampleStream(tiny_store.store, ["other"])


def test_joined_samples__decode_on_request(tiny_store) -> None:
    columns = [tiny_store.store.images, tiny_store.regions, tiny_store.labels]
    decoded = list(JoinedSamples(columns, decode=True)())
    raw = list(JoinedSamples(columns)())
    assert [each["__key__"] for each in decoded] == [each["__key__"] for each in raw]
    assert [each.keys() for each in decoded] == [each.keys() for each in raw]
    for each in decoded:
        assert each["images.jpg"].dtype == np.uint8 and each["images.json"]["height"] == 96
        boxes = tiny_store.boxes[each["__key__"]]
        assert np.array_equal(each["regions.npz"]["boxes"], boxes)


def test_example__a_plain_loop_learns_from_the_store(tiny_store) -> None:
    spec = importlib.util.spec_from_file_location("training_loop", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    losses = module.train(str(tiny_store.store.root), "tiny", "scenes-s", steps=8, workers=1)
    assert len(losses) == 8 and np.mean(losses[-2:]) < np.mean(losses[:2])
