"""How the weights that ship are made."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from densecli.models.checkpoints import load_model
from densecli.models.state_dict import read_state_dict
from densecli.models.weights import find_weights
from densecli.scenes.pretrain import ClipselfConfig, PretrainConfig, tune_clips
from densecli.shards.store import Store
from densecli.train.distillation import TrainConfig
from densecli.train.distillation import train as fit

pytestmark = pytest.mark.slow


def test_tune_clips__is_the_product_s_own_chain(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    shutil.copy(find_weights("scenes-l"), weights)
    tuning = ClipselfConfig(start="scenes-l", scenes=4, regions="grid-clipself", max_steps=2, lr=6e-4)
    config = PretrainConfig(clipself={"scenes-pvlm": tuning})

    def tune() -> None:
        tune_clips(config, weights, lambda **asked: fit(TrainConfig(**asked)), device="cpu")

    tune()
    clip, pvlm = (read_state_dict(weights / f"{name}.safetensors") for name in ("scenes-l", "scenes-pvlm"))
    assert {name for name in clip if not torch.equal(clip[name], pvlm[name])}
    load_model("scenes-pvlm", str(weights / "scenes-pvlm.safetensors"))
    (row,) = json.loads((weights / "scenes.json").read_text())["models"].values()
    assert row["steps"] == 2
    (crops,) = Store.open(str(tmp_path / "crops-scenes-l-grid-clipself-0-4")).columns("targets")
    assert crops.spec["target"]["name"] == "crops"

    made = (weights / "scenes-pvlm.safetensors").stat().st_mtime_ns
    tune()
    assert (weights / "scenes-pvlm.safetensors").stat().st_mtime_ns == made
