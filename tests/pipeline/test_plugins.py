"""A teacher of a new kind in a user's own file, built by real Ray workers and read like any other."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import webdataset as wds
from command_line import passed
from registries import plugins_of_its_own

from densecli.core.errors import DenseCLIError
from densecli.core.plugins import use_plugins
from densecli.pipeline.teachers import find_teacher

pytestmark = pytest.mark.slow

PLUGIN = '''
"""Brightness of each patch of the canvas: a teacher without a network."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from densecli.core.registry import registry
from densecli.pipeline.teachers import Cost, TeacherFamily
from densecli.shards.codecs import Rows
from densecli.shards.kinds import TargetKind


@dataclass(frozen=True, kw_only=True)
class BrightnessConfig:
    patch: int
    codec: Rows

    @property
    def name(self):
        return f"brightness-p{self.patch}"

    def spec(self):
        target = {"name": "brightness", "patch": self.patch}
        return {"producer": "brightness/1", "target": target, "codec": self.codec.spec}

    def info(self):
        return {"random_weights": False}

    def cost(self, photo):
        rows = (photo.canvas.size // self.patch) ** 2
        stored = {**self.codec.blank((rows, 1)), "grid": np.zeros(2, np.int32)}
        return Cost(stored=stored, once=photo.canvas.size**2, visit=photo.canvas.size**2)

    def load(self, device):
        return BrightnessTeacher(self, device)


class BrightnessTeacher:
    def __init__(self, config, device):
        self.config, self.name, self.device = config, config.name, torch.device(device)

    def inputs(self, photo):
        return photo.padded()[None]

    def forward(self, inputs):
        return F.avg_pool2d(inputs.float().mean(1, keepdim=True) / 255, self.config.patch)

    def targets(self, photos, outputs):
        return [of_photo[0].permute(1, 2, 0) for of_photo in outputs]

    def encode(self, photo, target):
        arrays, error = self.config.codec.encode(target.reshape(-1, 1))
        return {**arrays, "grid": np.array(target.shape[:2], np.int32)}, error


def configure(model, settings):
    return BrightnessConfig(patch=int(model[1:]), codec=Rows(dtype=settings.codec))


registry("kinds").add(
    "brightness",
    TargetKind(name="brightness", prefix="brightness-", layout="map"),
    help="Brightness of each patch.",
)
registry("teachers").add(
    "brightness",
    TeacherFamily(
        kind="brightness",
        models=lambda: ["p8", "p16"],
        configure=configure,
        weights=lambda model: {},
    ),
    help="Brightness of each patch.",
)
'''

BUILD = """
import json
from densecli.core.plugins import use_plugins
from densecli.pipeline.build_shards import BuildConfig, build_shards
from densecli.pipeline.plan import PlanConfig, plan
from densecli.pipeline.verify import VerifyConfig, verify

use_plugins(["brightness_plugin.py"])
config = BuildConfig(
    dataset="scenes", split="val", limit=6, store="store", shard_size=4, canvas=96,
    teachers=("brightness-p8",), codec="fp16", device="cpu",
)
planned = plan(PlanConfig(epochs=6, build=config, samples=6))
summary = build_shards(config)
again = build_shards(config)
verified = verify(VerifyConfig(store="store", samples=3, device="cpu"))
names = [column["name"] for column in planned["columns"]]
print(json.dumps([summary["status"], again["status"], verified["verified"], names]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder with the plug-in."""
    (tmp_path / "brightness_plugin.py").write_text(PLUGIN)
    return tmp_path


def run(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Python as the console script starts it: without the working folder on its path."""
    command = [sys.executable, "-P", *words]
    found = {name: value for name, value in os.environ.items() if name != "DENSECLI_PLUGINS"}
    return subprocess.run(
        command,
        check=False,
        cwd=folder,
        env={**found, **variables},
        capture_output=True,
        text=True,
        timeout=500,
    )


def test_plugin__a_teacher_in_a_file_is_planned_built_by_ray_workers_and_verified(folder):
    done = run(folder, "-c", BUILD)
    assert done.returncode == 0, done.stderr
    status, again, verified, planned = json.loads(done.stdout.splitlines()[-1])
    assert (status, again, verified) == ("built", "up to date", True)
    assert planned[2] == "brightness-p8"
    [column] = (folder / "store" / "targets").iterdir()
    assert column.name.startswith("brightness-p8-")

    for command in ("info", "lint"):
        passed(command, "--store", folder / "store")
    tars = [str(path) for path in sorted(column.glob("*.tar"))]
    samples = list(wds.WebDataset(tars, shardshuffle=False, empty_check=False).decode())
    assert len(samples) == 6
    assert all(sample["npz"]["grid"].tolist() == [12, 12] for sample in samples)


def test_plugin__unknown_teachers_name_it_too(folder):
    with plugins_of_its_own():
        use_plugins([str(folder / "brightness_plugin.py")])
        with pytest.raises(DenseCLIError) as caught:
            find_teacher("brightnes-p8")
    assert "Did you mean brightness-p8" in caught.value.hint
