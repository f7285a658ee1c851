"""Memory of batches is used again, and never while anybody holds it."""

import gc

import torch

from densecli.train.dataloader import Loader
from densecli.train.slots import Slots
from densecli.train.trainer_config import LoaderConfig


def test_take__memory_that_nobody_holds() -> None:
    slots = Slots((2, 4, 4, 3))
    first = slots.take()
    place = first.data_ptr()
    view = first.permute(0, 3, 1, 2)[:1]
    del first
    assert slots.take().data_ptr() != place, "a view is still there"
    del view
    gc.collect()
    assert place in {each.data_ptr() for each in [slots.take(), slots.take()]}


def test_batches__kept_ones_stay_as_they_are(full_store) -> None:
    store, labels = full_store.store, full_store.labels
    for workers in (0, 2):
        loader = Loader(
            store, full_store.regions, {"labels": labels}, LoaderConfig(batch_size=3, workers=workers)
        )
        kept = list(loader.batches(0))
        copies = [batch.images.clone() for batch in kept]
        again = [batch.images.clone() for batch in loader.batches(0)]
        for batch, copy, other in zip(kept, copies, again, strict=True):
            assert torch.equal(batch.images, copy) and torch.equal(copy, other)


def test_batches__use_few_slots(full_store) -> None:
    loader = Loader(
        full_store.store,
        full_store.regions,
        {"labels": full_store.labels},
        LoaderConfig(batch_size=2, workers=2),
    )
    places = {batch.images.data_ptr() for epoch in range(4) for batch in loader.batches(epoch)}
    # Of 24 batches: two that are being decoded, one more that has begun, the one at hand and its successor.
    assert len(places) <= 5
