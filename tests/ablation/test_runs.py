"""Ablations with a runner that only says what it was asked: what runs, what is left alone, what fails."""

import json
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from densecli.ablation.runs import VERSION, Runner, check, recorded, run_all
from densecli.ablation.spec import Spec
from densecli.core.errors import DenseCLIError, Interrupted, OtherRun
from densecli.evaluation.segmentation import Segmentation
from densecli.evaluation.zeroshot import ZeroShot

SPEC = Spec(title="t", train={"lr": 0.1}, grid={"theta": [0.1, 0.3], "seed": [0, 1]}, beside=("scenes-s",))


class RecordingRunner:
    """A runner, and everything that was asked of it. fails: words of runs that do, with `error`. results:
    what `evaluate` says of every model."""

    def __init__(
        self,
        fails: str = "",
        missing: str = "",
        stopped: str = "",
        results: Any = None,
        error: Exception | None = None,
    ) -> None:
        self.fails, self.missing, self.stopped, self.results = fails, missing, stopped, results
        self.error = error or MemoryError("no room")
        self.export: str | None = None
        self.trained: list[str] = []
        self.measured: list[str] = []

    def columns(self, words: Sequence[str]) -> dict[str, str]:
        if self.missing and self.missing in " ".join(words):
            command = f"densecli build {' '.join(words[2:4])}"
            raise DenseCLIError("There is no column.", hint="Make it:", commands=[command])
        return {"labels": "key"}

    def train(self, words: Sequence[str]) -> dict[str, Any]:
        text = " ".join(words)
        self.trained.append(text)
        if self.fails and self.fails in text:
            raise self.error
        if self.stopped and self.stopped in text:
            return {"export": self.export, "signal": signal.SIGTERM}
        return {"export": "file", "signal": None}

    def evaluate(self, words: Sequence[str]) -> dict[str, Any]:
        self.measured.append(" ".join(words))
        return self.results or {"student": {"boxes_top1": 50.0 + len(self.measured), "random_weights": True}}

    @property
    def runner(self) -> Runner:
        return Runner(
            flags={},
            columns=self.columns,
            train=self.train,
            evaluate=self.evaluate,
        )


def run(recorder: RecordingRunner, folder: Path, *, spec: Spec = SPEC, resume: Any = "interrupted") -> list:
    return run_all(spec, folder, recorder.runner, canvas=96, resume=resume)


def test_run__every_cell_is_trained_then_measured(tmp_path: Path) -> None:
    recorder = RecordingRunner()
    done = run(recorder, tmp_path)
    assert [each.name for each in done] == [
        "scenes-s",
        *(f"theta-{theta}-seed-{seed}" for seed in (0, 1) for theta in (0.1, 0.3)),
    ]
    first = tmp_path / "theta-0.1-seed-0"
    assert recorder.trained[0] == f"--lr 0.1 --theta 0.1 --seed 0 --run {first} --resume interrupted"
    assert recorder.measured[:2] == ["--canvas 96 --student scenes-s", f"--run {first}"]
    assert done[1].figures == {"Boxes": 52.0} and done[1].random_weights


@pytest.mark.parametrize(
    ("result", "figures"),
    [
        (
            Segmentation(miou=1.5, pixel_accuracy=2.0, mean_accuracy=0.0, photos=7, classes=()),
            {"mIoU": 1.5, "pixel accuracy": 2.0, "mean accuracy": 0.0},
        ),
        (ZeroShot(top1=3.0, top5=4.0, photos=7, classes=9), {"top-1": 3.0, "top-5": 4.0}),
    ],
)
def test_run__the_figures_are_those_of_the_task(tmp_path: Path, result: Any, figures: dict) -> None:
    about = {"alpha": 0.9, "weights": "file", "random_weights": False}
    done = run(RecordingRunner(results={"student": {**result.to_dict(), **about}}), tmp_path)
    assert all(each.figures == figures and not each.random_weights for each in done)


def test_run__figures_of_several_tasks_are_put_together(tmp_path: Path) -> None:
    recorder = RecordingRunner()
    plain = recorder.runner.evaluate
    found = {"regions": {"boxes_top1": 52.0}, "zeroshot": {"top1": 3.0}}

    def evaluate(words: Sequence[str]) -> dict[str, Any]:
        plain(words)
        return {"student": {**found[words[words.index("--task") + 1]], "random_weights": False}}

    spec = replace(SPEC, evaluate={"task": ["regions", "zeroshot"], "limit": 7})
    done = run_all(spec, tmp_path, replace(recorder.runner, evaluate=evaluate), canvas=96, resume="never")
    assert all(list(each.figures.items()) == [("Boxes", 52.0), ("top-1", 3.0)] for each in done)
    assert recorder.measured[-2:] == [
        f"--task {task} --limit 7 --run {tmp_path / done[-1].name}" for task in ("regions", "zeroshot")
    ]


def test_run__coupling_is_that_of_the_model(tmp_path: Path) -> None:
    ratios = {"coupling_ratio_mean": 2.5, "coupling_ratio_median": 1.5, "cross_segment_similarity": 0.25}
    results = {name: {**ratios, "random_weights": False} for name in ("student", "its Refiner, r")}
    for each in run(RecordingRunner(results=results), tmp_path):
        assert each.figures == {
            "coupling ratio, mean": 2.5,
            "coupling ratio, median": 1.5,
            "cross-segment similarity": 0.25,
        }


def test_run__what_is_finished_is_not_run_again(tmp_path: Path) -> None:
    before = run(RecordingRunner(), tmp_path)
    again = RecordingRunner()
    assert run(again, tmp_path) == before
    assert not again.trained and not again.measured
    run(again, tmp_path, resume="overwrite")
    assert len(again.trained) == 4 and "--resume overwrite" in again.trained[0]


def test_run__another_measure_or_another_column_is_another_run(tmp_path: Path) -> None:
    run(RecordingRunner(), tmp_path)
    other = RecordingRunner()
    run(other, tmp_path, spec=Spec(**{**vars(SPEC), "evaluate": {"limit": 3}}))
    assert len(other.measured) == 5
    rebuilt = RecordingRunner()
    rebuilt.columns = lambda words: {"labels": "another"}  # type: ignore[method-assign]
    run(rebuilt, tmp_path)
    assert len(rebuilt.trained) == 4


def test_run__a_failure_is_told_and_the_others_go_on(tmp_path: Path, capsys) -> None:
    recorder = RecordingRunner(fails="--theta 0.1 --seed 1")
    done = run(recorder, tmp_path)
    failed = [each for each in done if each.error]
    assert [each.name for each in failed] == ["theta-0.1-seed-1"]
    assert failed[0].error == "MemoryError: no room" and not failed[0].figures
    assert "4/5 theta-0.1-seed-1: MemoryError: no room" in capsys.readouterr().err
    assert len(recorder.trained) == 4
    mended = RecordingRunner()
    assert not any(each.error for each in run(mended, tmp_path))
    assert len(mended.trained) == 1


def test_run__an_error_is_told_to_its_end(tmp_path: Path, capsys) -> None:
    recorder = RecordingRunner(fails="--theta 0.1 --seed 1", error=DenseCLIError("x" * 300, hint="Do y."))
    run(recorder, tmp_path)
    assert capsys.readouterr().err.count("Do y.\n") == 1


def test_run__a_folder_of_another_ablation_ends_it_and_stays(tmp_path: Path) -> None:
    error = OtherRun("The run was started with other settings.", hint="Another --run.")
    recorder = RecordingRunner(fails="--theta 0.1 --seed 1", error=error)
    with pytest.raises(OtherRun, match="other settings") as caught:
        run(recorder, tmp_path)
    assert "--resume overwrite" in caught.value.hint and str(tmp_path) in caught.value.hint


def test_run__a_stop_ends_all_and_the_same_goes_on(tmp_path: Path) -> None:
    with pytest.raises(Interrupted) as caught:
        run(RecordingRunner(stopped="--theta 0.3 --seed 0"), tmp_path)
    assert caught.value.exit_code == 143
    rest = RecordingRunner()
    run(rest, tmp_path)
    assert len(rest.trained) == 3


def test_check__names_all_that_is_missing_before_the_first_run(tmp_path: Path) -> None:
    recorder = RecordingRunner(missing="--theta 0.")
    with pytest.raises(DenseCLIError, match="There is no column") as caught:
        run(recorder, tmp_path)
    assert not recorder.trained and not list(tmp_path.iterdir())
    assert (str(caught.value), caught.value.hint) == ("There is no column.", "Make it:")
    assert caught.value.commands == ("densecli build --theta 0.1", "densecli build --theta 0.3")
    assert check(SPEC, RecordingRunner().runner).keys() == {
        f"theta-{theta}-seed-{seed}" for theta in (0.1, 0.3) for seed in (0, 1)
    }


def test_run__weights_of_the_spec_are_those_of_the_model_beside(tmp_path: Path) -> None:
    spec = Spec(**{**vars(SPEC), "train": {"weights": ["scenes-s=random:0", "other=x"]}})
    recorder = RecordingRunner()
    run(recorder, tmp_path, spec=spec)
    assert recorder.measured[0].endswith("--weights scenes-s=random:0")
    assert json.loads((tmp_path / "scenes-s.json").read_text())["result"]["student"]["random_weights"]


def test_run__a_record_of_an_earlier_version_is_not_reused(tmp_path: Path) -> None:
    """Its words may mean another training today, such as --decoupling 2."""
    run(RecordingRunner(), tmp_path)
    record = tmp_path / "theta-0.1-seed-0" / "ablation.json"
    found = json.loads(record.read_text())
    del found["version"]
    record.write_text(json.dumps(found))
    recorder = RecordingRunner()
    run(recorder, tmp_path)
    assert (
        len(recorder.trained) == len(recorder.measured) == 1
        and json.loads(record.read_text())["version"] == VERSION
    )


def test_run_all__a_signal_in_the_last_step_of_a_cell_is_not_lost(tmp_path: Path) -> None:
    recorder = RecordingRunner(stopped="--theta 0.1 --seed 0")
    recorder.export = "file"
    with pytest.raises(Interrupted) as caught:
        run(recorder, tmp_path)
    assert caught.value.exit_code == 143 and len(recorder.trained) == 1


def test_recorded__is_what_has_been_measured_of_this_very_spec(tmp_path: Path) -> None:
    recorder = RecordingRunner(fails="--theta 0.3 --seed 1")
    done = run(recorder, tmp_path)
    asked = len(recorder.trained), len(recorder.measured)
    found = recorded(SPEC, tmp_path)
    assert [each.figures for each in found] == [each.figures for each in done]
    assert [bool(each.error) for each in found] == [False] * 4 + [True]
    others = recorded(replace(SPEC, train={"lr": 0.2}), tmp_path)
    assert [bool(each.error) for each in others] == [False] + [True] * 4
    assert asked == (len(recorder.trained), len(recorder.measured))
