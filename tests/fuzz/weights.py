"""Weights of strangers in every format, and the checkpoints of a run."""

import argparse
import io
import random
import re
import warnings
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from densecli.models.refiner_checkpoints import METADATA, read_card
from densecli.models.state_dict import read_state_dict
from densecli.train.checkpoints import load_checkpoint

from .frame import Target
from .inputs import mutated

REFINER = '{"clip": "0", "depth": 1, "layers": [0], "hidden": 8, "version": 2}'


def weights() -> dict[str, torch.Tensor]:
    """Tensors that share values, are turned, empty, of other formats."""
    values = torch.arange(24.0)
    return {
        "a": values.view(4, 6),
        "tied": values[6:12],
        "turned": values.view(4, 6).T,
        "empty": torch.zeros(0, 3),
        "half": torch.tensor([1.5, -2.0]).half(),
    }


def written(data: object, **options: object) -> bytes:
    """What torch.save writes."""
    file = io.BytesIO()
    torch.save(data, file, **options)
    return file.getvalue()


@cache
def formats() -> dict[str, bytes]:
    """A file of each format."""
    rate = {"param_groups": [{"lr": np.float64(1e-5), "params": [0]}]}
    trained = {"epoch": 6, "args": argparse.Namespace(lr=1), "state_dict": weights(), "optimizer": rate}
    script = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Layers with several constants are written in an order that differs from process to process.
        torch.jit.save(torch.jit.script(nn.Sequential(nn.PReLU(2), nn.PReLU(3))), script)
    whole = written(trained)
    return {
        "zip": whole,
        "legacy": _without_addresses(
            written({**trained, "state_dict": {"a": torch.ones(4, 6)}}, _use_new_zipfile_serialization=False)
        ),
        "pickle": zipfile.ZipFile(io.BytesIO(whole)).read("archive/data.pkl"),
        "safetensors": save({"a": torch.zeros(4, 6)}, metadata={METADATA: REFINER}),
        "torchscript": script.getvalue(),
    }


def _without_addresses(legacy: bytes) -> bytes:
    """A legacy file in which the storage has another name than its place in memory."""
    return re.sub(rb"X....[0-9]{8,}", lambda _: b"X\x0f\0\0\0" + b"123456789012345", legacy, flags=re.DOTALL)


def zipped(data: bytes) -> bytes:
    """A file of torch.save with this pickle, its checksum right."""
    whole = zipfile.ZipFile(io.BytesIO(formats()["zip"]))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in whole.namelist():
            archive.writestr(zipfile.ZipInfo(name), data if name.endswith("data.pkl") else whole.read(name))
    return file.getvalue()


def try_weights(rng: random.Random, folder: Path) -> None:
    """A mutated file of weights."""
    kind = rng.choice(list(formats()))
    data = mutated(rng, formats()[kind])
    path = folder / "w.pt"
    path.write_bytes(zipped(data) if kind == "pickle" else data)
    if kind == "safetensors" and rng.random() < 0.5:
        assert read_card(str(path))["clip"]
    else:
        assert all(isinstance(name, str) for name in read_state_dict(path))


@cache
def checkpoint() -> bytes:
    """A checkpoint of a run."""
    state = {"step": 3, "nonfinite_steps": 0, "model": weights(), "optimizer": {"state": {}}, "config": {}}
    return written(state)


def try_checkpoint(rng: random.Random, folder: Path) -> None:
    """A mutated checkpoint of a run."""
    path = folder / "step-00000003.pt"
    path.write_bytes(mutated(rng, checkpoint()))
    assert isinstance(load_checkpoint(str(path))["step"], int)


TARGETS = (
    Target(name="weights", try_one=try_weights, quick=300),
    Target(name="run checkpoints", try_one=try_checkpoint, quick=100),
)
