"""Annotated boxes as people have them, and the groups of their categories."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from densecli.core.errors import DenseCLIError
from densecli.evaluation.category_groups import BASE, NOVEL, group_categories
from densecli.evaluation.given_boxes import given_boxes
from densecli.evaluation.instances import Instances, check_size, read_instances
from densecli.models.categories import load_categories

SKY, BUS, CAT = 3, 5, 17


def content() -> dict:
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 40, "height": 30} for i in range(3)],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": BUS, "bbox": [2, 3, 10, 8], "iscrowd": 0},
            {"id": 2, "image_id": 0, "category_id": CAT, "bbox": [1, 1, 4, 4], "iscrowd": 1},
            {"id": 3, "image_id": 1, "category_id": CAT, "bbox": [0, 0, 0, 4]},
        ],
        "categories": [{"id": CAT, "name": "cat"}, {"id": BUS, "name": "bus"}],
    }


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Instances]:
    """Reads the file after `change`; `name` is where it lies below annotations/."""

    def write(change=lambda document: None, name: str = "instances_val", **how) -> Instances:
        (tmp_path / "annotations").mkdir(exist_ok=True)
        document = content()
        change(document)
        (tmp_path / "annotations" / f"{name}.json").write_text(json.dumps(document))
        return read_instances(tmp_path, "val", **how)

    return write


def test_read__boxes_crowds_and_what_has_no_area(read):
    found = read()
    assert found.categories.names == ("bus", "cat") and found.without_area == 1
    first = found.photos[0]
    assert first.boxes.tolist() == [[2, 3, 12, 11], [1, 1, 5, 5]]
    assert first.categories.tolist() == [0, 1] and first.crowds.tolist() == [False, True]
    assert first.path.parts[-2:] == ("val", "0.jpg") and first.checked is None
    assert [len(photo.boxes) for photo in found.photos] == [2, 0, 0]
    assert [len(boxes) for boxes in given_boxes(found, None).boxes] == [1, 0, 0]
    assert len(read(limit=1).photos) == 1


def test_read__counts_boxes_without_area_of_the_photos_it_keeps(read):
    assert [read(limit=limit).without_area for limit in (1, 2)] == [0, 1]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d["annotations"][0].update(bbox=[1, 2, -3, 4]), "annotations[0] has the bbox [1, 2, -3"),
        (lambda d: d["annotations"][0].update(bbox="1234"), "annotations[0] has the bbox '1234'"),
        (lambda d: d["annotations"][0].pop("bbox"), "annotations[0] has the bbox null"),
        (lambda d: d["annotations"][1].update(category_id=99), "category_id 99, which none of its 2"),
        (lambda d: d["annotations"][1].update(category_id=[]), "annotations[1] has the category_id []"),
        (lambda d: d["annotations"][1].update(iscrowd="0"), "annotations[1] has the iscrowd '0'"),
        (lambda d: d["annotations"][1].update(image_id=9), "annotations[1] has the image_id 9"),
        (lambda d: d["images"][1].update(file_name="../1.jpg"), "leads out of its folder"),
        (lambda d: d["images"][1].pop("file_name"), "images[1] has no file_name"),
        (lambda d: d["images"][1].update(id=0), "two images have the id 0"),
        (lambda d: d["images"][1].pop("id"), "images[1] has no id"),
        (lambda d: d["categories"][0].pop("name"), "categories[0] has no id"),
        (lambda d: d["categories"][0].update(name="bus"), "the same name"),
        (lambda d: d.pop("images"), "it has no list of images"),
        (lambda d: d["annotations"].append(None), "it has no list of annotations"),
        (
            lambda d: [a.update(bbox=[0.1, 0.1, 0.2, 0.2]) for a in d["annotations"]],
            "all within 0 to 1",
        ),
        (lambda d: d["annotations"].clear(), "annotates no box"),
        (
            lambda d: d.update(annotations=[{"image_id": 0, "segments_info": [3]}]),
            "it does not say of every category",
        ),
        (
            lambda d: [c.update(frequency="r") for c in d["categories"]],
            "images[0] has no list neg_category_ids",
        ),
    ],
)
def test_read__a_malformed_part_is_one_sentence(read, change, told):
    with pytest.raises(DenseCLIError) as caught:
        read(change)
    assert told in str(caught.value) and caught.value.hint and "\n" not in str(caught.value)


def test_read__what_is_no_json_is_one_sentence(tmp_path):
    file = tmp_path / "a.json"
    for text, told in (("", "it is empty"), ("[1]", "no list of images")):
        file.write_text(text)
        with pytest.raises(DenseCLIError, match=told):
            read_instances(tmp_path, "val", file=file)


def test_read__no_file_names_the_places(tmp_path):
    with pytest.raises(DenseCLIError, match=r"instances_val\.json or lvis_v1_val\.json or panoptic_val") as e:
        read_instances(tmp_path, "val")
    assert "--instances" in e.value.hint


def test_read__panoptic_annotations_give_their_things(read):
    def panoptic(document):
        boxes = document.pop("annotations")
        infos = [{**box, "id": i} for i, box in enumerate(boxes[:2])]
        infos.append({"id": 9, "category_id": SKY, "bbox": None})
        document["annotations"] = [{"image_id": 0, "file_name": "0.png", "segments_info": infos}]
        for category in document["categories"]:
            category["isthing"] = 1
        document["categories"].append({"id": SKY, "name": "sky", "isthing": 0})

    found = read(panoptic, name="panoptic_val")
    assert found.categories.names == ("bus", "cat")
    assert found.photos[0].boxes.tolist() == read().photos[0].boxes.tolist()


def test_read__lvis_says_where_photos_are_and_what_was_looked_for(read):
    def lvis(document):
        for image in document["images"]:
            del image["file_name"]
            image["coco_url"] = f"http://images.cocodataset.org/train2017/{image['id']:012d}.jpg"
            image |= {"neg_category_ids": [], "not_exhaustive_category_ids": [CAT]}
        document["images"][1]["neg_category_ids"] = [BUS]
        names = {BUS: "bow_(decorative_ribbons)", CAT: "cat"}
        for category, frequency in zip(document["categories"], "rf", strict=True):
            category |= {"frequency": frequency, "name": names[category["id"]]}

    found = read(lvis, name="lvis_v1_val")
    assert (
        found.categories.lvis
        and found.categories.name == "LVIS"
        and found.categories.groups == ("frequent", "rare")
    )
    assert found.categories.names == ("bow (decorative ribbons)", "cat")
    assert [photo.checked for photo in found.photos] == [{0, 1}, {0}, frozenset()]
    assert all(photo.partial == {1} for photo in found.photos)
    assert found.photos[0].path.parts[-2:] == ("train2017", "000000000000.jpg")
    assert found.photos[0].name == "train2017/000000000000.jpg"
    given = read(lvis, name="lvis_v1_val", novel=["cat"])
    assert given.categories.lvis and given.categories.groups == ("base", "novel")
    assert [(p.checked, p.partial) for p in given.photos] == [(p.checked, p.partial) for p in found.photos]


def test_groups__ov_coco_is_65_of_the_80_things():
    things = load_categories("133").names[:80]
    assert (len(BASE), len(NOVEL), len({*BASE, *NOVEL})) == (48, 17, 65) and {*BASE, *NOVEL} < {*things}
    entries = [{"id": 2 * i, "name": name} for i, name in enumerate(things)]
    found = group_categories(entries)
    assert found.name == "OV-COCO" and (found.groups.count("base"), found.groups.count("novel")) == (48, 17)
    assert all(things[id // 2] == name for id, name in zip(found.ids, found.names, strict=True))
    given = group_categories(entries, ["tennis racket"])
    assert len(given.names) == 80 and given.groups.count("novel") == 1
    with pytest.raises(DenseCLIError, match="'unicorn'"):
        group_categories(entries, ["unicorn"])


def test_read__ov_coco_leaves_out_photos_without_its_objects(read):
    def coco(document):
        names = [*BASE, *NOVEL, "tennis racket"]
        document["categories"] = [{"id": 100 + i, "name": name} for i, name in enumerate(names)]
        for annotation, category in zip(document["annotations"], (100, 148, 165), strict=True):
            annotation |= {"category_id": category, "bbox": [1, 1, 9, 9]}

    found = read(coco)
    assert (len(found.photos), found.empty) == (1, 2) and len(found.categories.names) == 65
    assert [found.categories.groups[c] for c in found.photos[0].categories] == ["base", "novel"]


def test_proposals__are_matched_by_name_and_counted(read, tmp_path):
    document = content()
    document["annotations"] += [
        {"image_id": 1, "bbox": [0.5, 0, 10, 10], "score": 0.9},
        {"image_id": 1, "bbox": [1, 1, 5, 0]},
    ]
    file = tmp_path / "p.json"
    file.write_text(json.dumps(document))
    found = given_boxes(read(), str(file))
    assert [len(boxes) for boxes in found.boxes] == [2, 1, 0] and found.proposed
    assert found.boxes[1].tolist() == [[0.5, 0, 10.5, 10]]
    assert found.text == "3 boxes of p.json, which has none for 1 photos, 2 more without an area left out"
    for image in document["images"]:
        image["file_name"] = f"other/{image['file_name']}"
    file.write_text(json.dumps(document))
    with pytest.raises(DenseCLIError, match="No photo is called as in the proposals") as caught:
        given_boxes(read(), str(file))
    assert "base names match" in caught.value.hint


def test_size__a_photo_of_another_size_is_refused(read):
    photo = read().photos[0]
    check_size(photo, (40, 30))
    with pytest.raises(DenseCLIError, match=r"0\.jpg is 30x40 px, its annotation says 40x30"):
        check_size(photo, (30, 40))


def test_read__real_coco_boxes(shared_data):
    found = read_instances(shared_data / "coco128", "train2017")
    assert found.categories.name == "OV-COCO" and len(found.photos) + found.empty == 128
    boxes = np.concatenate([photo.boxes for photo in found.photos])
    assert 500 < len(boxes) < 939 and (boxes[:, 2:] > boxes[:, :2]).all()
