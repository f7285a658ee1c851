"""A training gets the same batches from stores of both formats."""

import pytest
import torch
from formats import format_1, format_2

from densecli.train.dataloader import Loader
from densecli.train.trainer_config import LoaderConfig


@pytest.mark.parametrize("workers", [0, 2])
def test_batches__of_both_formats_are_equal(tmp_path, workers):
    old = format_1(tmp_path / "old")
    new = format_2(old, tmp_path / "new")
    loaders = []
    for store in (old, new):
        labels = store.find("targets", "scenes-pvlm")
        config = LoaderConfig(batch_size=2, seed=1, workers=workers)
        loaders.append(Loader(store, store.regions_of(labels), {"labels": labels}, config, lanes=2))
    for epoch in range(3):
        batches = [[*loader.batches(epoch)] for loader in loaders]
        assert len(batches[0]) == len(batches[1]) == 3
        for one, other in zip(*batches, strict=True):
            assert one.keys == other.keys
            for name in ("images", "boxes", "batch_index", "photos"):
                assert torch.equal(getattr(one, name), getattr(other, name))
            assert torch.equal(one.targets["labels"], other.targets["labels"])
