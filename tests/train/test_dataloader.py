"""Batches: what a sample holds, which view it shows, and an order that no thread changes."""

from itertools import islice

import numpy as np
import pytest
import torch

from densecli.core.errors import DenseCLIError
from densecli.shards.joined import Record
from densecli.shards.regions import stored_views, view_of
from densecli.train.batch import Batch, make_batch
from densecli.train.dataloader import Loader
from densecli.train.targets import choose_view
from densecli.train.trainer_config import LoaderConfig


def loader(tiny, **settings) -> Loader:
    return Loader(
        tiny.store, tiny.regions, {"labels": tiny.labels}, LoaderConfig(**{"batch_size": 3, **settings})
    )


def same(a: Batch, b: Batch) -> bool:
    return (
        a.keys == b.keys
        and all(
            torch.equal(getattr(a, name), getattr(b, name)) for name in ("images", "boxes", "batch_index")
        )
        and torch.equal(a.targets["labels"], b.targets["labels"])
    )


def test_batches__shapes_and_counts(tiny_store) -> None:
    batches = list(loader(tiny_store).batches(epoch=0))
    assert [len(batch.keys) for batch in batches] == [3, 3, 3, 2]
    assert sorted(key for batch in batches for key in batch.keys) == sorted(tiny_store.boxes)
    for batch in batches:
        assert batch.images.shape == (len(batch.keys), 3, 96, 96) and batch.images.dtype == torch.uint8
        assert len(batch.boxes) == len(batch.batch_index) == len(batch.targets["labels"])


def test_batches__rows_are_the_view_of_key_and_epoch(tiny_store) -> None:
    offsets = tiny_store.offsets
    for epoch in (0, 3):
        for batch in loader(tiny_store).batches(epoch):
            for i, key in enumerate(batch.keys):
                view = view_of(key, epoch, len(offsets) - 1)
                rows, mine = slice(offsets[view], offsets[view + 1]), batch.batch_index == i
                np.testing.assert_array_equal(batch.boxes[mine], tiny_store.boxes[key][rows])
                np.testing.assert_allclose(
                    batch.targets["labels"][mine, :-2], tiny_store.labels_of[key][rows], atol=1e-6
                )


def test_batches__padding_is_black(tiny_store) -> None:
    batch = next(loader(tiny_store).batches(epoch=0))
    for image in batch.images:
        columns = image.float().mean(dim=(0, 1))
        assert columns[0] > 50 and (columns[-1] == 0 or columns[-1] > 50)
    assert any((image[:, :, -1] == 0).all() for image in batch.images)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches__same_for_any_workers_and_start(tiny_store, workers: int) -> None:
    whole = list(loader(tiny_store, workers=0, seed=5).batches(epoch=1))
    for start in range(len(whole) + 1):
        rest = list(loader(tiny_store, workers=workers, seed=5).batches(epoch=1, start=3 * start))
        assert len(rest) == len(whole) - start
        assert all(same(a, b) for a, b in zip(rest, whole[start:], strict=True))


def test_batches__order_depends_on_seed_and_epoch(tiny_store) -> None:
    def keys(seed: int, epoch: int) -> list[str]:
        return [key for batch in loader(tiny_store, seed=seed).batches(epoch) for key in batch.keys]

    assert keys(0, 0) == keys(0, 0)
    assert keys(0, 0) != keys(1, 0) and keys(0, 0) != keys(0, 1)


def test_batches__drop_last(tiny_store) -> None:
    dropping = loader(tiny_store, drop_last=True)
    assert dropping.steps_per_epoch == 3 and loader(tiny_store).steps_per_epoch == 4
    assert [len(batch.keys) for batch in dropping.batches(epoch=0)] == [3, 3, 3]


KINDS = {
    "labels": "tiny",
    "crops": "crops-scenes-s",
    "refined": "refiner-scenes-s",
    "gram": "dinov2-vitb14",
    "self": "self-scenes-s",
}


def joined(full, *kinds: str) -> Loader:
    targets = {kind: full.store.find("targets", KINDS[kind]) for kind in kinds}
    return Loader(full.store, full.regions, targets, LoaderConfig(batch_size=3))


def test_batches__columns_join_in_a_view_that_all_of_them_hold(full_store) -> None:
    full, sizes = full_store, np.diff(full_store.offsets)
    seen = set()
    for epoch in range(4):
        for batch in joined(full, *KINDS).batches(epoch):
            for i, key in enumerate(batch.keys):
                view, mine = np.sort(full.views[key])[view_of(key, epoch, 4)], batch.batch_index == i
                place = list(full.views[key]).index(view)
                seen.add(place)
                everywhere = full.offsets[view] + np.arange(sizes[view])
                stored = sizes[full.views[key][:place]].sum() + np.arange(sizes[view])
                np.testing.assert_array_equal(batch.boxes[mine], full.boxes[key][everywhere])
                np.testing.assert_allclose(
                    batch.targets["labels"][mine, :-2], full.labels_of[key][everywhere], atol=1e-6
                )
                np.testing.assert_array_equal(batch.targets["crops"][mine], full.values["crops"][key][stored])
                tokens = full.values["refined"][key].reshape(-1, 9, 8)
                np.testing.assert_array_equal(batch.targets["refined"][mine], tokens[stored])
    assert seen == {0, 1, 2, 3}


def test_batches__maps_of_other_ranks_keep_their_gram_matrix(full_store) -> None:
    for batch in joined(full_store, "gram").batches(epoch=0):
        assert batch.targets["gram"].shape[1:3] == (8, 8)
        for key, factor in zip(batch.keys, batch.targets["gram"].flatten(1, 2).numpy(), strict=True):
            stored = full_store.values["gram"][key]
            np.testing.assert_allclose(factor @ factor.T, stored @ stored.T, atol=1e-6)


def test_choose_view__the_first_of_those_that_are_stored() -> None:
    for key, epoch in [(f"{i:04d}", epoch) for i in range(8) for epoch in range(4)]:
        two, four, eight = ({"views": stored_views(key, 17, k)} for k in (2, 4, 8))
        view = choose_view(key, epoch, 17, [two])
        assert choose_view(key, epoch, 17, [{}, eight, four], 2) == view
        # As well where every view is there to choose from, so that labels and crops are compared on the same.
        assert choose_view(key, epoch, 17, [{}], 2) == view


def test_choose_view__none_in_common() -> None:
    with pytest.raises(DenseCLIError, match="no view of sample 0007 in common"):
        choose_view("0007", 0, 5, [{"views": np.array([0, 1])}, {}, {"views": np.array([2, 4])}])


def test_batches__targets_of_a_batch_are_those_of_its_samples(full_store) -> None:
    targets = {column.target_kind: column for column in full_store.store.columns("targets")}
    loaded = Loader(
        full_store.store, full_store.regions, targets, LoaderConfig(batch_size=4, workers=0, shuffle_window=1)
    )
    batch = next(loaded.batches(epoch=1))
    samples = [loaded.decode(record, 1) for record in islice(loaded.reader.iter(1), 4)]
    expected = make_batch(samples, 1)
    assert batch.keys == expected.keys
    assert {"labels", "crop-labels", "crops", "gram"} <= batch.targets.keys() == expected.targets.keys()
    assert all(torch.equal(target, expected.targets[kind]) for kind, target in batch.targets.items())


def test_batches__a_damaged_target_names_its_sample(tiny_store, monkeypatch) -> None:
    loaded, damaged = loader(tiny_store, workers=0), sorted(tiny_store.boxes)[5]
    arrays = Record.arrays

    def cut(record: Record, part: str) -> dict[str, np.ndarray]:
        found = arrays(record, part)
        return {**found, "ids": found["ids"].astype(np.float32)} if record.key == damaged else found

    monkeypatch.setattr(Record, "arrays", cut)
    with pytest.raises(DenseCLIError, match=f"sample {damaged} .* is damaged: its counts or ids"):
        list(loaded.batches(epoch=0))
