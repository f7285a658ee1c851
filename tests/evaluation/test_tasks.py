"""The tasks of `evaluate` through its command line, on scenes with the shipped student."""

import json

import pytest
from click.testing import CliRunner

from densecli.commands.evaluate import evaluate
from densecli.core.errors import DenseCLIError
from densecli.evaluation.evaluation_request import EvaluationRequest, settings_for
from densecli.evaluation.knn import KNNConfig
from densecli.evaluation.model_under_test import ModelUnderTest
from densecli.evaluation.segmentation import SegmentationConfig
from densecli.scenes.coco import write_coco


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_coco(root, seed=0, split="val", count=6)
    write_coco(root, seed=0, split="train", count=8)
    return str(root)


def run(scenes, *arguments, task, code=0):
    where = ["--data", scenes, "--split", "val", "--categories", "scenes", "--device", "cpu"]
    result = CliRunner().invoke(evaluate, [*where, "--task", task, *arguments])
    if isinstance(result.exception, DenseCLIError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize("task", ["segmentation", "zeroshot", "knn"])
def test_task__a_row_for_each_alpha(scenes, exported, tmp_path, task):
    more = ["--train-split", "train"] if task == "knn" else []
    file = tmp_path / "out.json"

    def values(alpha, *alphas):
        result = run(scenes, "--run", str(exported(alpha)), *alphas, "--json", str(file), *more, task=task)
        found = json.loads(file.read_text())
        assert all(title in result.stdout for title in found)
        return found

    rows = values(0.7, "--alphas", "0,0.5,1")
    assert list(rows) == ["alpha 0", "alpha 0.5", "alpha 1"]
    assert rows["alpha 0"]["alpha"] == 0 and rows["alpha 0"]["random_weights"] is False
    figure = {"segmentation": "miou", "knn": "pixel_accuracy", "zeroshot": "top1"}[task]
    (whole,) = values(1).values()
    assert rows["alpha 1"][figure] == pytest.approx(whole[figure], abs=0.1)
    assert abs(rows["alpha 0"][figure] - whole[figure]) > 1 and whole["alpha"] is None


def test_task__alpha_0_is_the_student_before(scenes, moved_run, tmp_path):
    found = {}
    models_under_test = {
        "run": ["--run", str(moved_run), "--alphas", "0"],
        "before": ["--student", "scenes-s"],
    }
    for name, who in models_under_test.items():
        file = tmp_path / f"{name}.json"
        run(scenes, *who, "--canvas", "96", "--json", str(file), task="segmentation")
        found[name] = next(iter(json.loads(file.read_text()).values()))
    assert found["run"]["miou"] == pytest.approx(found["before"]["miou"], abs=0.01)


def test_task__classes_the_worst_first(scenes):
    result = run(scenes, "--student", "scenes-pvlm", "--canvas", "96", "--classes", task="segmentation")
    rows = result.stdout.rpartition("IoU")[2].splitlines()[2:]
    found = [float(row.split()[1]) for row in rows]
    assert len(found) > 5 and found == sorted(found)


def test_task__random_weights_are_said(scenes, tmp_path):
    who = ["--student", "scenes-s", "--weights", "scenes-s=random:0"]
    found = run(scenes, *who, "--report", str(tmp_path), task="zeroshot")
    assert "(random weights)" in found.stdout
    page = (tmp_path / "index.html").read_text()
    assert "(random weights)" in page and "say nothing about accuracy" in page


def test_task__a_vfm_has_no_texts_but_patches(scenes):
    who = ["--student", "scenes-vfm", "--canvas", "96"]
    with pytest.raises(DenseCLIError, match="no text tower"):
        run(scenes, *who, task="segmentation")
    assert "scenes-vfm" in run(scenes, *who, "--train-split", "train", task="knn").stdout


def test_task__photos_are_not_their_own_neighbours(scenes):
    with pytest.raises(DenseCLIError, match="own neighbours"):
        run(scenes, "--student", "scenes-vfm", "--train-split", "val", task="knn")


def test_coupling__json_has_standard_output_to_itself(scenes):
    who = ["--student", "scenes-s", "--canvas", "96"]
    result = run(scenes, *who, "--coupling", "--json", "-", task="regions")
    found = json.loads(result.stdout)["scenes-s"]
    assert 0 < found["cross_segment_similarity"] < 1 and "cross-segment similarity" in result.stderr
    assert found["coupling_ratio_median"] > 0 and "coupling ratio, mean" in result.stderr


@pytest.mark.parametrize(("task", "dataset"), [("segmentation", "folder"), ("zeroshot", "voc21")])
def test_task__a_dataset_of_another_kind_is_refused(scenes, task, dataset):
    with pytest.raises(DenseCLIError, match=dataset):
        run(scenes, "--student", "scenes-s", "--dataset", dataset, task=task)


@pytest.mark.parametrize(("task", "flag"), [("zeroshot", "--stride"), ("regions", "--k"), ("knn", "--side")])
def test_task__flags_of_another_task_are_a_usage_error(scenes, task, flag):
    assert f"{flag} is for --task" in run(scenes, flag, "3", task=task, code=2).stderr


@pytest.mark.parametrize(
    ("canvas", "given", "sizes"),
    [
        (None, {}, (448, 336, 112)),
        (512, {}, (448, 336, 112)),
        (96, {}, (96, 96, 96)),
        (96, {"canvas": 384}, (384, 336, 112)),
        (96, {"side": 192, "stride": 48}, (192, 96, 48)),
    ],
)
def test_settings__papers_sizes_within_the_canvas(canvas, given, sizes):
    of_run = {"canvas": canvas, "mode": "qq"} if canvas else None
    under_test = ModelUnderTest(model="scenes-s", settings=of_run)
    question = EvaluationRequest(under_test=under_test, data="d", split="s", settings=given)
    config = settings_for(question, SegmentationConfig(), "side", "window", "stride")
    assert (config.side, config.window, config.stride) == sizes
    assert config.mode == ("qq" if canvas else "value")


def test_settings__a_given_canvas_is_taken_as_it_is():
    settings = {"canvas": 560, "k": 5}
    question = EvaluationRequest(
        under_test=ModelUnderTest(model="scenes-s"), data="d", split="s", settings=settings
    )
    assert settings_for(question, KNNConfig(), "canvas") == KNNConfig(canvas=560, k=5)
