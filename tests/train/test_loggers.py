"""Every logger through short runs; those of services against a fake of their client's API."""

import importlib.util
import inspect
import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training import rows, run_settings

from densecli.core.errors import DenseCLIError
from densecli.train.distillation import TrainConfig, train
from densecli.train.loggers import LOGGERS
from densecli.train.loggers.jsonl import JsonlLogger

STEPS = 4


def config(tiny_store, run: Path, **settings: Any) -> TrainConfig:
    defaults = {"max_steps": STEPS, "checkpoint_every": 2}
    return TrainConfig(**run_settings(tiny_store.store.root, run, **{**defaults, **settings}))


def forget_the_end(run: Path) -> None:
    (run / "checkpoints" / f"step-{STEPS:08d}.pt").unlink()


def test_jsonl__drops_rows_after_the_checkpoint(tmp_path: Path) -> None:
    log = JsonlLogger(tmp_path)
    log.start({}, 0)
    for step in (1, 2, 3):
        log.log({"step": step, "loss": 0.5})
    log.close()
    file = tmp_path / "metrics.jsonl"
    with file.open("a") as half:
        half.write('{"step": 4, "lo')  # what a kill in the middle of a write leaves
    resumed = JsonlLogger(tmp_path)
    resumed.start({}, 2)
    resumed.log({"step": 3, "loss": float("nan")})
    resumed.close()
    assert [json.loads(line) for line in file.read_text().splitlines()] == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": 0.5},
        {"step": 3, "loss": None},
    ]


def test_tensorboard__holds_metrics_configuration_and_pictures(tiny_store, tmp_path: Path) -> None:
    train(config(tiny_store, tmp_path))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4]
    assert len(events.Scalars("seconds_to_first_step")) == 1
    [text] = events.Tensors("config/text_summary")
    assert b'"schedule": "cosine"' in text.tensor_proto.string_val[0]
    pictures = events.Images("photos")
    assert [picture.step for picture in pictures] == [2, 4]
    assert pictures[0].encoded_image_string != pictures[1].encoded_image_string
    assert pictures[0].width > 3 * 260


@pytest.mark.parametrize(
    ("settings", "told", "hint"),
    [
        ({"loggers": ("tensorbord",)}, "logger called 'tensorbord'", "Did you mean tensorboard?"),
        ({"loggers": ("wandb",)}, "needs the package wandb", "pip install"),
        ({"schedule": "cosin"}, "schedule called 'cosin'", "Did you mean cosine?"),
        ({"mode": "valu"}, "no dense mode 'valu'", "Did you mean value?"),
        ({"mode": "qq+scal"}, "no dense mode 'qq+scal'", "+scale"),
        ({"loss_options": {"region_kl.x": "1"}}, "loss term region_kl called 'x'", "keep"),
        ({"templates": "vild6"}, "no prompt templates called 'vild6'", "Did you mean vild63?"),
        ({"losses": {"region_k": 1.0}}, "loss term called 'region_k'", "Did you mean region_kl"),
        ({"regions": "grid-pape"}, "grid-pape", ""),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_train__refuses_a_name_before_it_writes(
    tiny_store, tmp_path: Path, monkeypatch, settings, told, hint, dry_run
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(DenseCLIError, match=re.escape(told)) as caught:
        train(config(tiny_store, tmp_path / "run", dry_run=dry_run, **settings))
    assert hint in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_picture_every__and_no_logger_that_takes_them(tiny_store, tmp_path: Path) -> None:
    train(config(tiny_store, tmp_path / "often", picture_every=1))
    events = EventAccumulator(str(tmp_path / "often" / "tensorboard")).Reload()
    assert [picture.step for picture in events.Images("photos")] == [1, 2, 3, 4]
    train(config(tiny_store, tmp_path / "without", loggers=("jsonl",)))
    assert not (tmp_path / "without" / "tensorboard").exists()
    assert rows(tmp_path / "often") == rows(tmp_path / "without")


class FakeWandb(ModuleType):
    """As much of wandb's client as there is to call, with its own signatures."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.inits: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.finished = 0

    def init(
        self, entity=None, project=None, dir=None, id=None, name=None, notes=None, tags=None, config=None,
        resume=None, mode=None,
    ) -> "FakeWandb":  # fmt: skip
        assert Path(dir).is_dir() and resume == "allow" and isinstance(config, dict)
        self.inits.append({"project": project, "id": id, "name": name, "config": config})
        return self

    def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        self.logged.append((step or 0, data))

    def finish(self, exit_code: int | None = None) -> None:
        self.finished += 1

    class Image:
        def __init__(self, data_or_path, mode=None, caption=None) -> None:
            assert data_or_path.dtype == np.uint8 and data_or_path.shape[2] == 3


class FakeMlflow(ModuleType):
    """As much of mlflow's fluent API as there is to call, with its own signatures."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.experiments: list[str] = []
        self.runs: list[str] = []
        self.params: list[dict[str, Any]] = []
        self.metrics: list[tuple[int, dict[str, float]]] = []
        self.images: list[tuple[str, int]] = []
        self.active = False

    def set_experiment(self, experiment_name=None, experiment_id=None) -> None:
        self.experiments.append(experiment_name)

    def start_run(self, run_id=None, experiment_id=None, run_name=None, nested=False) -> SimpleNamespace:
        assert not self.active
        self.active = True
        self.runs.append(run_id or f"run-{run_name}")
        return SimpleNamespace(info=SimpleNamespace(run_id=self.runs[-1]))

    def log_params(self, params, synchronous=None, run_id=None) -> None:
        assert self.active
        self.params.append(params)

    def log_metrics(self, metrics, step=None, synchronous=None, run_id=None, timestamp=None) -> None:
        assert self.active and all(isinstance(value, float | int) for value in metrics.values())
        self.metrics.append((step, metrics))

    def log_image(self, image, artifact_file=None, key=None, step=None, timestamp=None) -> None:
        assert self.active and image.dtype == np.uint8 and artifact_file is None
        self.images.append((key, step))

    def end_run(self, status="FINISHED") -> None:
        self.active = False


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return fake


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMlflow:
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return fake


def test_wandb__logs_every_step_and_a_resumed_training_continues_the_run(
    tiny_store, tmp_path: Path, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    train(config(tiny_store, run, loggers=("wandb",)))
    [first] = wandb.inits
    assert (first["project"], first["name"]) == ("densecli", "run")
    assert first["config"] == json.loads((run / "config.json").read_text())
    losses = {step: data["loss"] for step, data in wandb.logged if "loss" in data}
    assert losses == {row["step"]: row["loss"] for row in rows(run)}
    assert [step for step, data in wandb.logged if isinstance(data.get("photos"), wandb.Image)] == [2, 4]
    assert wandb.finished == 1 and not (run / "tensorboard").exists()

    forget_the_end(run)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    train(config(tiny_store, run, loggers=("wandb",)))
    assert [(each["project"], each["id"]) for each in wandb.inits] == [
        ("densecli", first["id"]),
        ("mine", first["id"]),
    ]
    train(config(tiny_store, run, loggers=("wandb",), resume="overwrite"))
    assert wandb.inits[-1]["id"] != first["id"]


def test_mlflow__logs_every_step_and_a_resumed_training_continues_the_run(
    tiny_store, tmp_path: Path, mlflow: FakeMlflow
) -> None:
    run = tmp_path / "run"
    train(config(tiny_store, run, loggers=("mlflow", "tensorboard")))
    assert mlflow.experiments == ["densecli"] and mlflow.runs == ["run-run"]
    assert mlflow.params == [json.loads((run / "config.json").read_text())]
    losses = {step: metrics["loss"] for step, metrics in mlflow.metrics if "loss" in metrics}
    assert losses == {row["step"]: row["loss"] for row in rows(run)}
    assert mlflow.images == [("photos", 2), ("photos", 4)]
    assert not mlflow.active and (run / "tensorboard").is_dir()

    forget_the_end(run)
    train(config(tiny_store, run, loggers=("mlflow",)))
    assert mlflow.runs == ["run-run", "run-run"] and len(mlflow.params) == 1
    assert mlflow.metrics[-1][0] == STEPS


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("wandb", {"init": ("project", "name", "dir", "config", "resume", "id")}),
        (
            "mlflow",
            {
                "set_experiment": ("experiment_name",),
                "start_run": ("run_id", "run_name"),
                "log_params": ("params",),
                "log_metrics": ("metrics", "step"),
                "log_image": ("image", "key", "step"),
                "end_run": (),
            },
        ),
    ],
)
def test_fakes__have_the_signatures_of_the_real_clients(name: str, calls: dict[str, tuple[str, ...]]) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    client = importlib.import_module(name)
    for call, parameters in calls.items():
        assert set(parameters) <= inspect.signature(getattr(client, call)).parameters.keys()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_loggers__a_package_that_is_missing(
    tiny_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DenseCLIError, match=f"needs the package {name}, which is not installed") as caught:
        train(config(tiny_store, tmp_path, loggers=(name,)))
    assert f"densecli[{name}]" in caught.value.hint


def test_loggers__unknown(tiny_store, tmp_path: Path) -> None:
    with pytest.raises(DenseCLIError, match="no logger called 'tensorbord'") as caught:
        train(config(tiny_store, tmp_path, loggers=("tensorbord",)))
    assert "tensorboard" in caught.value.hint
    assert set(LOGGERS) == {"jsonl", "tensorboard", "wandb", "mlflow"}
