"""The shuffled cut: every photo once, the same by the same seed, many classes in a batch, cheap to read."""

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from building import build_here
from hypothesis import given
from hypothesis import strategies as st
from tars import jpg, write_tar

from densecli.core.errors import DenseCLIError
from densecli.pipeline.build_request import prepare, shard_sizes
from densecli.pipeline.sources import cut, open_source
from densecli.pipeline.sources.cut import ShuffledCut, shuffled_order
from densecli.shards.lanes import Lanes, number_of_lanes
from densecli.shards.store import Store
from densecli.train.columns import _build_command


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(0, 9), st.integers(1, 30))
def test_order__has_every_photo_once_and_keeps_runs_of_blocks_together(sizes, seed, window):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cut, "WINDOW", window)
        order = shuffled_order(sizes, seed)
        assert sorted(order) == list(range(sum(sizes)))
        assert np.array_equal(order, shuffled_order(sizes, seed))
    block = np.repeat(np.arange(len(sizes)), sizes)[order.astype(int)]
    for each in set(block.tolist()):
        places = np.flatnonzero(block == each)
        assert places[-1] - places[0] < window + 2 * max(sizes)


def test_order__known_values():
    # A store must be continued under a later release in the very order it began with.
    assert shuffled_order([2, 3, 1], 0).tolist() == [4, 5, 1, 2, 0, 3]
    assert shuffled_order([1] * 6, 1).tolist() == [5, 2, 0, 4, 1, 3]


@pytest.mark.parametrize("tars", [True, False], ids=["a tar for each class", "a folder for each class"])
def test_batch__of_1000_sorted_classes_sees_at_least_40(tars):
    classes, photos = 1000, 400
    sizes = shard_sizes(classes * photos, 256)
    lanes = Lanes(sizes, number_of_lanes(len(sizes), 48, 1), seed=0, window=4)
    first = np.cumsum([0, *sizes[:-1]])
    seen = {}
    for name, order in (
        ("shuffled", shuffled_order([photos] * classes if tars else [1] * (classes * photos), 0)),
        ("listed", np.arange(classes * photos)),
    ):
        of_photo = order.astype(np.int64) // photos
        batches = [
            of_photo[first[taken[2]] + taken[3]]
            for _, taken in zip(range(300), lanes.shares(0, batch=48), strict=False)
        ]
        seen[name] = np.mean([len(np.unique(batch)) for batch in batches])
    assert seen["shuffled"] >= 40
    assert seen["listed"] < 35


def test_items__are_those_of_the_listing_in_another_order():
    order = np.array([2, 0, 1])
    items = ShuffledCut("abc", order)
    assert (len(items), items[0], items[-1], items[1:]) == (3, "c", "b", ["a", "b"])


@pytest.fixture
def classes(tiny, tmp_path):
    """Four folders of five photos each."""
    for kind in range(4):
        (tmp_path / "photos" / f"{kind}").mkdir(parents=True)
        for i in range(5):
            (tmp_path / "photos" / f"{kind}" / f"{i}.jpg").write_bytes(jpg(seed=10 * kind + i))
    here = replace(tiny, dataset="folder", data=str(tmp_path / "photos"), split=None, limit=None)
    return replace(here, teachers=(), weights={}, canvas=48, shard_size=5)


def keys(store: Store) -> list[list[str]]:
    found = [record.key for record in store.samples()]
    return [found[i : i + 5] for i in range(0, len(found), 5)]


def test_store__of_a_folder_is_shuffled_and_says_so(classes):
    request, _ = build_here(classes)
    assert (request.store.dataset["cut"], request.store.dataset["seed"]) == ("shuffled", 0)
    shards = keys(request.store)
    assert sorted(chain(*shards)) == sorted(f"{kind}_{i}" for kind in range(4) for i in range(5))
    assert max(len({key[0] for key in shard}) for shard in shards) > 2
    assert "--cut shuffled" in _build_command(request.store, "scenes-s", "scenes-s", {}).lines[0]
    with pytest.raises(DenseCLIError, match="another dataset"):
        prepare(replace(classes, seed=1))


def test_store__that_was_cut_as_listed_keeps_its_cut(classes):
    request, _ = build_here(replace(classes, cut="listed"))
    assert "cut" not in request.store.dataset and "seed" not in request.store.dataset
    assert keys(request.store) == [[f"{kind}_{i}" for i in range(5)] for kind in range(4)]
    again, _ = prepare(classes)
    assert again.store == request.store
    with pytest.raises(DenseCLIError, match="another dataset"):
        prepare(replace(classes, cut="shuffled"))


@pytest.mark.parametrize("limit", [None, 13])
def test_source__of_tars_and_of_addresses_are_cut_in_the_same_way(tmp_path, limit):
    for number in range(3):
        write_tar(tmp_path / f"{number}.tar", {f"{i}.jpg": b"-" for i in range(6)})
    (tmp_path / "list.txt").write_text("\n".join(f"s3://b/{i}.jpg" for i in range(18)))
    for dataset, data in (("webdataset", tmp_path), ("urls", tmp_path / "list.txt")):
        listed = open_source(dataset, str(data), limit=limit)
        shuffled = open_source(dataset, str(data), limit=limit, cut="shuffled", seed=3)
        assert sorted(shuffled.items[:]) == sorted(listed.items[:])
        assert shuffled.items[:] != listed.items[:]
        assert sum(listed.blocks) == len(listed.items)
        assert shuffled.digest == listed.digest
        assert shuffled.identity == {**listed.identity, "cut": "shuffled", "seed": 3}
