"""Masks as regions of a build: of annotation files and of scenes, for teachers, relabelling and pictures."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from building import build_here, relabeller_of
from tars import jpg

from densecli.core.errors import DenseCLIError
from densecli.core.signals import Stop
from densecli.evaluation.preview import contact_sheet, retrieved_view
from densecli.pipeline.build_request import prepare
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.relabel import prepare as prepare_relabelling
from densecli.pipeline.relabel_config import RelabelConfig
from densecli.pipeline.unit import Unit
from densecli.shards import info
from densecli.shards.joined import read_joined
from densecli.shards.segmentation import packed
from densecli.train.datasets import SampleDataset, collate

POLYGON = [[8, 8, 40, 8, 40, 40, 8, 40]]
TEXT = packed([np.eye(48, 64, dtype=bool)])[0].decode()


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Photos of 64 x 48 pixels in COCO's layout: two annotated in the three ways of COCO, one not at all."""
    root = tmp_path / "coco"
    (root / "train2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    for name in "abc":
        (root / "train2017" / f"{name}.jpg").write_bytes(jpg(seed=ord(name)))
    annotations = [
        {"image_id": 1, "segmentation": POLYGON, "iscrowd": 0},
        {"image_id": 1, "segmentation": {"size": [48, 64], "counts": [0, 48 * 10, 48 * 54]}, "iscrowd": 1},
        {"image_id": 2, "segmentation": {"size": [48, 64], "counts": TEXT}},
        {"image_id": 2, "segmentation": [[0, 0, 1]]},
    ]
    images = [{"id": i, "file_name": f"{name}.jpg"} for i, name in enumerate("abc", start=1)]
    write(root, {"images": images, "annotations": annotations})
    return root


def write(root: Path, document: object) -> None:
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(document))


@pytest.fixture
def config(tiny: BuildConfig, coco: Path) -> BuildConfig:
    return replace(
        tiny,
        dataset="coco",
        data=str(coco),
        split=None,
        limit=None,
        canvas=48,
        categories="scenes",
        regions="masks",
    )


def test_coco__polygons_lists_and_crowds_are_regions_and_grids_elsewhere(config, files_of) -> None:
    request, [report] = build_here(config)
    assert report.masks.document == {
        "photos": 2,
        "on_grids": 1,
        "masks": 3,
        "left_out": {"a damaged polygon": 1},
    }
    regions = [record.regions() for record in read_joined(request.columns(), "000000")]
    assert [len(each.boxes) for each in regions] == [2, 1, 400]
    np.testing.assert_allclose(regions[0].boxes, [[1 / 8, 1 / 8, 5 / 8, 5 / 8], [0, 0, 7 / 48, 36 / 48]])
    assert "1.0 masks a photo, 0.3 left out; 33.3% of the photos have none" in info.report(
        info.describe(request.store)
    )
    again, _ = build_here(replace(config, store=f"{config.store}-again"))
    tars = [Path(r.columns()[1].tar_url("000000")).read_bytes() for r in (request, again)]
    assert tars[0] == tars[1]


def test_masks__another_file_is_another_column_and_one_of_other_photos_is_refused(
    config, coco, tmp_path
) -> None:
    first = prepare(config)[0].columns()[1].id
    other = tmp_path / "other.json"
    document = json.loads((coco / "annotations" / "instances_train2017.json").read_text())
    document["annotations"].pop()
    other.write_text(json.dumps(document))
    assert prepare(replace(config, masks=str(other)))[0].columns()[1].id != first
    document["images"] = [{**image, "file_name": f"x/{image['file_name']}"} for image in document["images"]]
    (tmp_path / "strange.json").write_text(json.dumps(document))
    with pytest.raises(DenseCLIError, match=r"masks of none of the 3 photos: it names others \(3, such as x"):
        prepare(replace(config, masks=str(tmp_path / "strange.json")))
    document["images"] = json.loads(other.read_text())["images"]
    (tmp_path / "empty.json").write_text(json.dumps({**document, "annotations": []}))
    with pytest.raises(DenseCLIError, match="it names 3 of them, but annotates none"):
        prepare(replace(config, masks=str(tmp_path / "empty.json")))


@pytest.mark.parametrize("file", ["masks", "proposals"])
def test_masks__a_file_that_the_plan_does_not_read_is_refused(config, coco, file) -> None:
    given = {"masks": None, file: str(coco / "annotations" / "instances_train2017.json")}
    with pytest.raises(
        DenseCLIError, match=f"--{file} is read by --regions {file}.*not by grid-paper"
    ) as raised:
        prepare(replace(config, regions="grid-paper", **given))
    assert raised.value.hint == f"Add --regions {file}, or leave --{file} out."


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "layout of COCO"),
        ({"images": [{"id": 1}], "annotations": []}, r"images\[0\] has no id or file_name"),
        ({"images": [{"id": 1, "file_name": "a.jpg"}] * 2, "annotations": []}, "two images have the id 1"),
        ({"images": [], "annotations": [5]}, r"annotations\[0\] is of no image"),
        ({"images": [], "annotations": [{"image_id": []}]}, r"annotations\[0\] is of no image"),
        ({"images": [], "annotations": []}, "masks of none of the 3 photos"),
    ],
    ids=["list", "no name", "twice", "no object", "stray", "nothing"],
)
def test_masks__a_malformed_file_is_one_sentence(config, coco, document, said) -> None:
    write(coco, document)
    with pytest.raises(DenseCLIError, match=said):
        prepare(config)


def test_masks__of_data_without_any_name_the_plans_there_are(config, coco) -> None:
    (coco / "annotations" / "instances_train2017.json").unlink()
    with pytest.raises(DenseCLIError, match="has no masks") as error:
        prepare(config)
    assert "--masks FILE" in error.value.hint and "grid-paper" in error.value.hint


@pytest.fixture
def of_scenes(tiny: BuildConfig) -> BuildConfig:
    return replace(tiny, limit=3, regions="masks", teachers=("scenes-s", "features-scenes-s"))


def test_masks__of_scenes_are_pooled_by_teacher_and_relabelling_and_drawn(of_scenes) -> None:
    request, [report] = build_here(of_scenes)
    assert report.masks.on_grids == 0
    relabelling = prepare_relabelling(RelabelConfig(store=of_scenes.store, weights=of_scenes.weights))
    relabeller = relabeller_of(relabelling)
    relabeller.build(Unit(shard="000000", items=()), Stop())
    store = request.store
    labels = store.find("targets", "scenes-s")
    again, features = (store.find("targets", f"{name}-scenes-s") for name in ("relabel", "features"))
    records = read_joined([store.images, request.columns()[1], labels, again, features], "000000")
    for record in records:
        # Relabelling pools the stored map token by token, as far as each is covered.
        stored, regions = record.arrays(features.part), record.regions()
        factor, basis = features.codec.factors(stored)
        shares = regions.coverage(tuple(stored["grid"])).astype(np.float32).reshape(len(regions.boxes), -1)
        expected = [(share[:, None] * (factor @ basis)).sum(axis=0) / share.sum() for share in shares]
        np.testing.assert_allclose(relabeller.pool(stored, regions), expected, atol=1e-5)
        assert len(record.arrays(again.part)["count"]) == len(regions.boxes)
        # A sheet is tinted inside of the masks, not in all of their boxes.
        view = retrieved_view(record, labels, view=0)
        one = replace(
            view, boxes=view.boxes[:1], masks=view.masks[:1], labels=[""], thing=[True], confidence=[1.0]
        )
        plain = replace(one, boxes=view.boxes[:0], masks=[], labels=[], thing=[], confidence=[])
        changed = (np.asarray(contact_sheet([one])) != np.asarray(contact_sheet([plain]))).any(axis=2)
        share = changed[: contact_sheet([plain]).height - 60].mean()
        assert 0.5 * one.masks[0].mean() < share < 1.3 * one.masks[0].mean() + 0.02


def test_masks__a_training_loop_of_ones_own_gets_them_for_its_tokens(of_scenes) -> None:
    build_here(replace(of_scenes, teachers=("scenes-s",)))
    with pytest.raises(DenseCLIError, match="are masks") as error:
        SampleDataset(of_scenes.store, ["scenes-s"])
    assert "tokens=(h, w)" in error.value.hint
    dataset = SampleDataset(of_scenes.store, ["scenes-s"], tokens=(8, 8))
    batch = collate([dataset[i] for i in range(3)])
    assert batch.masks.shape == (len(batch.boxes), 8, 8) and sum(batch.counts) == len(batch.boxes)
    # Segments divide a photo: together they cover every token, but for those too small to be kept.
    covered = batch.masks[: batch.counts[0]].float().sum(dim=0)
    assert covered.max() <= 1.001 and covered.mean() > 0.95
    dense = torch.ones(3, 5, 8, 8)
    assert torch.allclose(batch.pool(dense), torch.full((len(batch.boxes), 5), 5**-0.5))


def test_relabel__masks_are_not_made_of_stored_photos(of_scenes) -> None:
    build_here(replace(of_scenes, regions="grid-square", teachers=("features-scenes-s",)))
    with pytest.raises(DenseCLIError, match="masks are not made") as error:
        prepare_relabelling(RelabelConfig(store=of_scenes.store, weights=of_scenes.weights, regions="masks"))
    assert "build-shards --regions masks" in error.value.hint
