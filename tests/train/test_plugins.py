"""A plug-in adds a loss term, a method, a schedule, a logger and an export format; one training uses them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from densecli.core.errors import DenseCLIError
from densecli.train.terms.base import term_options
from densecli.train.terms.context import Context

PLUGIN = """
from dataclasses import dataclass
import torch.nn.functional as F
from densecli.train.exports import EXPORTS, ExportFormat
from densecli.train.loggers import LOGGERS, Logger
from densecli.train.losses import mean
from densecli.train.methods import METHODS, Method
from densecli.train.schedules import SCHEDULES
from densecli.train.terms import TERMS, Term
from densecli.train.terms.base import rows

@TERMS.register("hinge", help="Cosines with crops, up to a margin.")
class Hinge(Term):
    reads = ("crops",)

    @dataclass(frozen=True, kw_only=True)
    class Options:
        margin: float = 0.5

    def __init__(self, margin):
        self.margin = margin

    @classmethod
    def build(cls, setup):
        return cls(setup.options.margin)

    def counts(self, batch):
        return rows(batch.boxes)

    def __call__(self, student, batch, counts):
        cosine = F.cosine_similarity(student.regions, batch.targets["crops"])
        loss = mean((self.margin - cosine).clamp(min=0), counts[0])
        return loss, {"margin": loss.new_tensor(self.margin)}

METHODS.add("margin", Method(losses={"hinge": 2.0}), help="Crops, up to a margin.")

@SCHEDULES.register("half", help="Half the peak.")
def half(step, *, peak, warmup_steps, total_steps):
    return peak / 2

@LOGGERS.register("steps", help="The steps, in a file.")
class StepsLogger(Logger):
    def log(self, row):
        with open(self.folder / "steps.txt", "a") as file:
            print(int(row["step"]), file=file)

def weights(model):
    return {f"mine.{name}": tensor for name, tensor in model.network.state_dict().items()}

EXPORTS.add(
    "mine",
    ExportFormat(
        reader="my own",
        file_format="safetensors",
        fits=lambda model: True,
        weights=weights,
        load=lambda model, file: f"mine.load({file!r})",
    ),
    help="Mine.",
)
"""

TRAINING = """
import json, sys
from densecli.core.plugins import use_plugins
use_plugins(["my_plugin"])
from densecli.train.distillation import TrainConfig, train
from densecli.train.export import ExportConfig, export
settings = json.loads(sys.argv[1])
result = train(TrainConfig(**settings))
card = export(ExportConfig(run=settings["run"], layout="mine"))
print(json.dumps({"loss": result["loss"], "lr": result["lr"], "margin": result["margin"], **card}))
"""


def test_plugin__all_that_it_registers_works_in_one_training(full_store, tmp_path: Path) -> None:
    (tmp_path / "my_plugin.py").write_text(PLUGIN)
    settings = {
        "store": full_store.store.root,
        "run": str(tmp_path / "run"),
        "student": "scenes-s",
        "weights": "random:0",
        "method": "margin",
        "loss_options": {"hinge.margin": "0.75"},
        "schedule": "half",
        "loggers": ["steps"],
        "teachers": ["crops-scenes-s"],
        "batch_size": 3,
        "max_steps": 3,
        "lr": 1e-3,
        "device": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, json.dumps(settings)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["loss"] > 0 and result["lr"] == 5e-4 and result["margin"] == pytest.approx(0.75)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    for row in map(json.loads, lines):
        assert row["loss"] == pytest.approx(2 * row["hinge"])
    assert (tmp_path / "run" / "steps.txt").read_text() == "1\n2\n3\n"
    resolved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert resolved["losses"] == {"hinge": 2.0} and resolved["loss_options"] == {"hinge.margin": "0.75"}
    assert result["path"].endswith("mine.safetensors") and result["load"].startswith("mine.load(")
    assert all(name.startswith("mine.") for name in load_file(result["path"]))


def test_term_options__are_converted_and_checked() -> None:
    namespace: dict = {}
    exec(
        "from dataclasses import dataclass\n@dataclass\nclass Options:\n"
        "    count: int\n    margin: float = 0.5\n    hard: bool = False\n",
        namespace,
    )

    class Mine(Context):
        Options = namespace["Options"]

    found = term_options("mine", Mine, {"count": "3", "hard": "true"})
    assert (found.count, found.margin, found.hard) == (3, 0.5, True)
    for values, message in (
        ({}, "needs the option count"),
        ({"count": "x"}, "mine.count cannot be 'x'"),
        ({"count": "1", "hard": "perhaps"}, "mine.hard cannot be"),
        ({"count": "1", "margins": "1"}, "no option of the loss term mine called 'margins'"),
    ):
        with pytest.raises(DenseCLIError, match=message) as caught:
            term_options("mine", Mine, values)
        assert caught.value.hint
    with pytest.raises(DenseCLIError, match="context has no options of its own"):
        term_options("context", Context, {"margin": "1"})
