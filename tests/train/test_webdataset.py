"""A webdataset pipeline that starts from joined columns."""

import numpy as np
import webdataset as wds

from densecli.shards.joined import decode_image
from densecli.shards.npz import decode_npz
from densecli.shards.reader import StoreReader
from densecli.shards.webdataset import JoinedSamples


def columns(tiny):
    return [tiny.store.images, tiny.regions, tiny.labels]


def test_source__stock_decoders_give_every_column_of_every_sample(tiny_store):
    source = JoinedSamples(columns(tiny_store), seed=3)
    pipeline = wds.DataPipeline(source, wds.decode("rgb8"))
    source.epoch, source.start = 1, 4
    samples = list(pipeline)
    records = list(StoreReader(columns(tiny_store), seed=3).iter(1, 4))
    assert [sample["__key__"] for sample in samples] == [record.key for record in records]
    for sample, record in zip(samples, records, strict=True):
        np.testing.assert_array_equal(sample["images.jpg"], decode_image(record.parts["images"]["jpg"]))
        for part in ("regions", "tiny"):
            expected = decode_npz(record.parts[part]["npz"])
            assert set(sample[f"{part}.npz"]) == set(expected)
            for name, array in expected.items():
                np.testing.assert_array_equal(sample[f"{part}.npz"][name], array)


def test_source__workers_and_processes_share_an_epoch(tiny_store, monkeypatch):
    source = JoinedSamples(columns(tiny_store))
    seen = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        pipeline = wds.DataPipeline(source, wds.to_tuple("__key__", "images.json"))
        loader = wds.WebLoader(pipeline, num_workers=2, batch_size=None)
        seen += [key for key, _ in loader]
    assert sorted(seen) == sorted(tiny_store.boxes)
