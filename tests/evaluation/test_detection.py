"""Detection on given boxes: a perfect classifier, the ranking, and the command."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import passed, refused
from PIL import Image
from torch import nn

from densecli.core.distributed import Distributed
from densecli.core.errors import DenseCLIError
from densecli.evaluation.config import DetectionConfig
from densecli.evaluation.detection import best_of, measure_ranking, rank_boxes
from densecli.evaluation.detection_tables import NOT_A_DETECTOR, ap_table
from densecli.evaluation.given_boxes import given_boxes
from densecli.evaluation.instances import read_instances
from densecli.scenes.coco import write_coco

NAMES = ("cat", "boat", "bus")
PATCH, STEP = 4, 60
ALONE = Distributed(device=torch.device("cpu"))
CONFIG = DetectionConfig(canvas=64, batch_size=2)


class Oracle(nn.Module):
    """One-hot tokens of the class that the red channel codes."""

    def prepare(self, canvases):
        return canvases.float()

    def dense(self, images, mode):
        classes = (images[:, 0, PATCH // 2 :: PATCH, PATCH // 2 :: PATCH] / STEP).round().long() - 1
        hot = nn.functional.one_hot(classes.clamp(min=0), len(NAMES)).permute(0, 3, 1, 2)
        return hot.float() * (classes >= 0)[:, None]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Three photos with two objects each, in plain colours."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val").mkdir()
    document: dict = {"images": [], "annotations": []}
    document["categories"] = [{"id": 7 * (c + 1), "name": name} for c, name in enumerate(NAMES)]
    for i in range(3):
        photo = np.zeros((48, 64, 3), np.uint8)
        for c, x in ((i, 4), ((i + 1) % 3, 36)):
            photo[8:40, x : x + 24, 0] = STEP * (c + 1)
            about = {"image_id": i, "category_id": 7 * (c + 1), "bbox": [x, 8, 24, 32]}
            document["annotations"].append({"id": len(document["annotations"]), **about})
        Image.fromarray(photo).save(tmp_path / "val" / f"{i}.png")
        document["images"].append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 48})
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(document))
    return tmp_path


@pytest.fixture
def measure(world: Path) -> Callable:
    """measure(text, file of proposals) -> the result."""

    def run(text=None, proposals=None, config=CONFIG, novel=("bus",)):
        instances = read_instances(world, "val", novel=novel)
        given = given_boxes(instances, proposals)
        text = torch.eye(len(NAMES)) if text is None else text
        found = measure_ranking(instances, given, rank_boxes(Oracle(), instances, given, text, config, ALONE))
        return found, instances, given

    return run


def test_detection__a_perfect_classifier_has_ap_1_on_annotated_boxes(measure):
    found, instances, given = measure()
    assert found.ap50 == pytest.approx({"": 100, "base": 100, "novel": 100})
    assert found.ap == pytest.approx(found.ap50)
    assert (found.photos, found.boxes, found.annotated) == (3, 6, 6)
    table = ap_table([("m", found)], instances, given, "t")
    assert table.columns == ["model", "AP50 novel", "AP50 base", "AP50", "AP"]
    assert table.rows == [["m", *["100.0"] * 4]] and NOT_A_DETECTOR in table.note


def test_detection__only_mistaken_categories_suffer(measure):
    found, *_ = measure(torch.eye(len(NAMES))[[1, 0, 2]])  # cat and boat
    assert found.ap50["novel"] == pytest.approx(100) and found.ap50["base"] < 60
    assert [row.ap50 for row in found.categories][2] == pytest.approx(100)
    assert found.ap50[""] == pytest.approx(np.mean([row.ap50 for row in found.categories]))
    assert found.to_dict()["ap50_novel"] == found.ap50["novel"] and "ap_base" in found.to_dict()


def test_detection__without_groups_there_is_one_figure(measure):
    found, instances, given = measure(novel=())
    assert set(found.ap50) == {""} and ap_table([("m", found)], instances, given, "t").columns == [
        *("model", "AP50", "AP")
    ]


def test_detection__proposals_that_are_moved_lose_the_strict_ious(measure, world, tmp_path):
    document = json.loads((world / "annotations" / "instances_val.json").read_text())
    for annotation in document["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation |= {"bbox": [x + 3, y, w, h], "score": -5.0}  # IoU 21 / 27
    # The same box twice: one of them is dropped.
    document["annotations"] += document["annotations"]
    file = tmp_path / "proposals.json"
    file.write_text(json.dumps(document))
    found, *_ = measure(proposals=str(file))
    assert found.boxes == 12
    assert found.ap50[""] == pytest.approx(100) and found.ap[""] == pytest.approx(60)
    twice, *_ = measure(proposals=str(file), config=replace(CONFIG, nms=1.0))
    assert twice.ap50[""] < found.ap50[""]


def test_detection__features_that_are_not_finite_are_refused(measure):
    with pytest.raises(DenseCLIError, match="not finite"):
        measure(torch.full((3, 3), torch.nan))


def test_best_of__the_highest_pairs_without_overlapping_ones():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10]], float)
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    everything = best_of(boxes, scores, 10, None)
    assert everything.scores.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.3, 0.2, 0.1])
    assert everything.categories.tolist() == [0, 0, 1, 0, 1, 1]
    few = best_of(boxes, scores, 3, 0.5)
    assert few.scores.tolist() == pytest.approx([0.9, 0.7, 0.3])
    assert few.boxes.tolist() == boxes[[0, 2, 2]].tolist()
    assert len(best_of(np.zeros((0, 4)), torch.zeros(0, 2), 3, 0.5).boxes) == 0


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> list:
    root = tmp_path_factory.mktemp("scenes")
    write_coco(root, split="val", count=4)
    return ["evaluate", "--task", "detection", "--student", "scenes-s", "--data", root, "--split", "val"]


def test_evaluate__ranks_the_boxes_of_panoptic_things(scenes, tmp_path):
    said = passed(*scenes, "--novel", "bus", "--novel", "car", "--classes", "--json", tmp_path / "r.json")
    columns = next(line for line in said.splitlines() if "AP50 novel" in line).split()
    assert columns == ["model", "AP50", "novel", "AP50", "base", "AP50", "AP"] and "no detector's AP" in said
    assert "canvas 96 px; mode value; weights" in said
    (found,) = json.loads((tmp_path / "r.json").read_text()).values()
    assert found["measured"]["categories"] == "base and novel as given (10 base, 2 novel)"
    assert found["ap50"] >= found["ap"] > 0 and found["photos"] == 4


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--categories", "133"], 2, "--categories is for --task regions"),
        (["--nms", "0.3"], 2, "--nms needs --proposals"),
        (["--novel", "unicorn"], 1, "has no category 'unicorn'"),
        (["--instances", "nowhere.json"], 1, "Check --instances"),
        (["--proposals", "nowhere.json"], 1, "There is no file nowhere.json"),
    ],
)
def test_evaluate__what_detection_refuses(scenes, words, code, told):
    assert told in refused(*scenes, *words, code=code)
