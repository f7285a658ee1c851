"""Files of proposed boxes: what is malformed is named, and what matches no photo is refused with a remedy."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from building import build_here
from tars import jpg

from densecli.core.errors import DenseCLIError
from densecli.pipeline.build_request import prepare
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.proposals import check_stored
from densecli.shards.joined import read_joined
from densecli.shards.proposals import read_proposals
from densecli.shards.regions import ProposalPlan

BOX = [5, 5, 40, 30]


@pytest.fixture
def config(tiny, tmp_path: Path) -> BuildConfig:
    """A build of 0.jpg to 3.jpg of COCO's layout with the boxes in boxes.json; val2017 has 9.jpg."""
    for name in ("train2017/0.jpg", "train2017/1.jpg", "train2017/2.jpg", "train2017/3.jpg", "val2017/9.jpg"):
        (tmp_path / "coco" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "coco" / name).write_bytes(jpg())
    return replace(
        tiny,
        dataset="coco",
        data=str(tmp_path / "coco"),
        split=None,
        teachers=(),
        weights={},
        regions="proposals",
        proposals=str(tmp_path / "boxes.json"),
    )


def write(config: BuildConfig, names=None, boxes=None, **first) -> str:
    """Writes a file of a box for each of four photos; the second has other values."""
    names = names or [f"{i}.jpg" for i in range(4)]
    annotations = [{"id": 10 + i, "image_id": i, "bbox": BOX} for i in range(len(names))]
    for annotation, box in zip(annotations, boxes or [], strict=False):
        annotation["bbox"] = box
    annotations[min(1, len(names) - 1)] |= first
    document = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "annotations": annotations,
    }
    Path(config.proposals).write_text(json.dumps(document))
    return config.proposals


def test_read_proposals__boxes_by_photo(config):
    found = read_proposals(write(config, score=0.5))
    assert found.boxes == {f"{i}.jpg": [[*map(float, BOX), 0.5 if i == 1 else 0.0]] for i in range(4)}
    assert (found.count, found.duplicates, found.left_out((64, 1024**2))) == (4, 0, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bbox": [1, 2, 3]},
        {"bbox": None},
        {"bbox": [1, 2, "3", 4]},
        {"bbox": [1, 2, True, 4]},
        {"bbox": [1, 2, -3, 4]},
        {"bbox": [1, 2, 1e300, 4]},
        {"bbox": [1, 2, 10**30, 4]},
        {"bbox": {"x": 1}},
        {"bbox": "1234"},
        {"score": None},
        {"score": "0.5"},
        {"image_id": 99},
        {"image_id": None},
        {"image_id": [1]},
    ],
)
def test_read_proposals__a_malformed_annotation_is_named(config, wrong):
    with pytest.raises(DenseCLIError, match=r"boxes\.json .*: annotations\[1\] \(id 11\)") as caught:
        read_proposals(write(config, **wrong))
    assert "image_id" in wrong or "1.jpg" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "[" * 100_000, "NaN", '{"images": [], "annotations": {}}',
     '{"images": [1], "annotations": []}',
     '{"images": [{"id": 1, "file_name": "a"}], "annotations": [null]}',
     '{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "annotations": []}',
     '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "bbox": [0, 0, 9, NaN]}]}',
     '{"images": [{"id": [1], "file_name": "a"}], "annotations": []}',
     '[{"image_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}]'],
)  # fmt: skip
def test_read_proposals__another_file_is_one_sentence(config, text):
    Path(config.proposals).write_text(text)
    with pytest.raises(DenseCLIError, match=r"boxes\.json") as caught:
        read_proposals(config.proposals)
    assert len(str(caught.value)) < 400


def test_read_proposals__a_folder_is_one_sentence(tmp_path):
    with pytest.raises(DenseCLIError, match="cannot be read: Is a directory") as caught:
        read_proposals(str(tmp_path))
    assert "--proposals" in caught.value.hint


def test_read_proposals__relative_boxes_are_detected(config):
    with pytest.raises(DenseCLIError, match=r"relative: all 4 have numbers from 0 to 1") as caught:
        read_proposals(write(config, boxes=[[0.1, 0.2, 0.5, 0.25]] * 4))
    assert "width" in caught.value.hint


def test_prepare__counts_what_matches_and_what_is_left_out(config):
    write(config, names=["0.jpg", "0.jpg", "2.jpg", "7.jpg"], boxes=[BOX, BOX, [0, 0, 2, 2]])
    request, _ = prepare(config)
    assert request.proposals == {
        "photos": 4,
        "matched": 2,
        "unmatched": 1,
        "boxes": 4,
        "duplicates": 1,
        "left_out": 1,
    }
    assert prepare(replace(config, regions="grid-paper", proposals=None))[0].proposals == {}


@pytest.mark.parametrize(
    "names",
    [
        [f"train2017/{i}.jpg" for i in range(4)],
        [f"http://example.org/train2017/{i}.jpg" for i in range(4)],
        [f"/data/coco/images/{i}.jpg" for i in range(4)],
    ],
)
def test_prepare__a_prefix_is_taken_off_by_the_command_in_the_hint(config, names):
    write(config, names=names)
    with pytest.raises(DenseCLIError, match=r"No photo is called as in the proposals") as caught:
        prepare(config)
    assert names[0] in str(caught.value) and "0.jpg, 1.jpg" in str(caught.value)
    subprocess.run(re.search(r"\((sed .*)\);", caught.value.hint)[1], shell=True, check=True)
    assert prepare(config)[0].proposals["matched"] == 4


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (["9.jpg"], "They are photos of val2017: give --split val2017"),
        (["0.png"], "write 0.jpg and not 0.png"),
        (["0.JPG"], "write 0.jpg and not 0.JPG"),
        (["a.jpg"], "the boxes are of other photos"),
        (["a/0.jpg", "b/1.jpg"], "Write each file_name as the photo is called, 0.jpg and not a/0.jpg"),
    ],
)
def test_prepare__other_names_and_their_remedies(config, names, hint):
    write(config, names=names)
    with pytest.raises(DenseCLIError, match=r"No photo is called") as caught:
        prepare(config)
    assert hint in caught.value.hint
    assert not Path(config.store).exists()


def test_prepare__photos_in_subfolders_are_named_with_them(config):
    write(config)
    with pytest.raises(DenseCLIError, match=r"No photo is called") as caught:
        prepare(replace(config, dataset="folder"))
    assert "Write the folder into each file_name, such as train2017/0.jpg" in caught.value.hint


@pytest.mark.parametrize("box", [[0, 0, 2, 2], [0, 0, 4000, 4000]])
def test_prepare__boxes_that_are_all_left_out_are_refused(config, box):
    write(config, boxes=[box] * 4)
    with pytest.raises(DenseCLIError, match=r"None of the 4 boxes of .* covers 64 to 1048576 square pixels"):
        prepare(config)


def test_prepare__boxes_beyond_their_photos_are_left_out(config):
    """As those of photos of another size."""
    write(config, boxes=[[5, 5, 60, 60], [5000, 5000, 60, 60], [-59, 5, 60, 60], [40, 40, 60, 60]])
    assert prepare(config)[0].proposals["left_out"] == 0
    document = json.loads(Path(config.proposals).read_text())
    for image in document["images"]:
        image |= {"width": 80, "height": 70}
    Path(config.proposals).write_text(json.dumps(document))
    # One is beyond, of one a strip of 1 x 60 is left, and of the last 40 x 30.
    assert prepare(config)[0].proposals["left_out"] == 2
    for annotation in document["annotations"]:
        annotation["bbox"] = [5000, 5000, 60, 60]
    Path(config.proposals).write_text(json.dumps(document))
    with pytest.raises(DenseCLIError, match=r"None of the 4 boxes .* of its photo"):
        prepare(config)


def test_prepare__a_file_without_boxes_is_refused(config):
    Path(config.proposals).write_text('{"images": [{"id": 0, "file_name": "0.jpg"}], "annotations": []}')
    with pytest.raises(DenseCLIError, match=r"has no box"):
        prepare(config)


def test_check_stored__names_are_compared_with_those_in_the_store(config):
    write(config, boxes=[BOX, [-5, -5, 9999, 99]])
    request, _ = build_here(config)
    stored = [record.arrays("regions")["boxes"] for record in read_joined(request.columns(), "000000")]
    assert [boxes.shape for boxes in stored] == [(1, 4)] * 4
    assert all((boxes >= 0).all() and (boxes <= 1).all() for boxes in stored)
    np.testing.assert_allclose(stored[1][0], [0, 0, 1, 48 / 64], atol=1e-6)
    check_stored(ProposalPlan(config.proposals), request.store)
    write(config, names=["train2017/0.jpg"])
    with pytest.raises(DenseCLIError, match=r"they have train2017/0.jpg, the listing 0.jpg, 1.jpg"):
        check_stored(ProposalPlan(config.proposals), request.store)
