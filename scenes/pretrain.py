"""Trains the generated world's own models: two CLIPs on captions, a VFM on scenes alone, and CLIPs that
CLIPSelf tunes."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from densecli.core import fs
from densecli.core.progress import Progress
from densecli.models.checkpoints import load_model
from densecli.models.state_dict import read_state_dict
from densecli.models.vfm_checkpoints import load_vfm
from densecli.scenes.contrastive import ContrastiveConfig, retrieval_accuracy, train_contrastive
from densecli.scenes.selfsup import SelfSupConfig, train_vfm
from densecli.scenes.world import Scene, render

CLIPS = ("scenes-s", "scenes-l")
VFM = "scenes-vfm"
EIGHT_BITS = frozenset({"scenes-l", "scenes-pvlm", "scenes-pvlm-unbiased", "scenes-s-clipself"})
"""Models whose blocks are stored in 8 bits, so that all weights that ship have less than 8 MB."""


@dataclass(frozen=True, kw_only=True)
class ClipselfConfig:
    """Settings of CLIPSelf on generated scenes.

    Attributes:
        start: The CLIP whose crops are the targets, and whose dense map learns from them.
        scenes: Number of scenes.
        regions: The region plan, a family of grids.
        views: Number of each scene's grids whose cells are cropped.
        max_steps: Number of training steps of 24 scenes.
        lr: Peak learning rate.
    """

    start: str
    scenes: int
    regions: str
    views: int = 4
    max_steps: int
    lr: float


def _clipself() -> dict[str, ClipselfConfig]:
    # Cells that are not square become crops with black bars, which these CLIPs have never seen and call
    # things: that is where the bias of a P-VLM is from.
    return {
        "scenes-pvlm": ClipselfConfig(
            start="scenes-l", scenes=700, regions="grid-clipself", max_steps=500, lr=6e-4
        ),
        "scenes-pvlm-unbiased": ClipselfConfig(
            start="scenes-l", scenes=2000, regions="grid-square", views=5, max_steps=1000, lr=6e-4
        ),
        "scenes-s-clipself": ClipselfConfig(
            start="scenes-s", scenes=700, regions="grid-clipself", max_steps=200, lr=3e-4
        ),
    }


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Settings of the pre-training.

    Attributes:
        scenes: Number of scenes to render. The CLIPs see `contrastive.pairs` of them, with repetitions.
        held_out: Number of other pairs on which retrieval is measured.
        seed: Seed of the world and of the weights.
        contrastive: Settings for the CLIPs.
        selfsup: Settings for the VFM.
        clipself: Settings for the CLIPs that CLIPSelf tunes, by their names.
    """

    scenes: int = 64_000
    held_out: int = 500
    seed: int = 0
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    selfsup: SelfSupConfig = field(default_factory=SelfSupConfig)
    clipself: Mapping[str, ClipselfConfig] = field(default_factory=_clipself)


def pretrain_models(config: PretrainConfig, folder: Path) -> None:
    """Trains scenes-s, scenes-l and scenes-vfm, and writes them as safetensors.

    Models that are already in the folder are kept. The file scenes.json there records how each was trained.

    Args:
        config: Settings.
        folder: Folder to write to.
    """
    missing = [name for name in (*CLIPS, VFM) if not _file(folder, name).exists()]
    if not missing:
        return
    count = config.selfsup.scenes if missing == [VFM] else config.scenes
    images, captions = render_pairs(config.seed, "pretrain", count)
    weights = f"random:{config.seed}"
    for name in missing:
        if name in CLIPS:
            model, _ = load_model(name, weights)
            fit = partial(train_contrastive, model, images, captions, config=config.contrastive)
            row = _fitted(name, fit, config.contrastive.steps)
            save_weights(model.clip.state_dict(), _file(folder, name))
            saved, _ = load_model(name, str(_file(folder, name)))
            held_out = render_pairs(config.seed, "val", config.held_out)
            row["retrieval_accuracy"] = retrieval_accuracy(saved, *held_out)
            how = "contrastively on image-caption pairs alone"
        else:
            vfm = load_vfm(VFM, weights)
            row = _fitted(name, partial(train_vfm, vfm, images, config.selfsup), config.selfsup.steps)
            save_weights(vfm.net.state_dict(), _file(folder, name))
            how = "self-supervised on scenes alone"
        record(folder, name, {"trained": how, **row}, asdict(config))


def record(folder: Path, name: str, row: dict[str, Any], config: dict[str, Any]) -> None:
    """Adds a model and the settings of its training to the folder's scenes.json."""
    file = folder / "scenes.json"
    known = json.loads(file.read_text()) if file.exists() else {"config": {}, "models": {}}
    known = {"config": known["config"] | config, "models": known["models"] | {name: row}}
    fs.write_text(file, json.dumps(known, indent=1) + "\n")


def render_pairs(seed: int, split: str, count: int) -> tuple[np.ndarray, list[str]]:
    """Renders the first `count` scenes of a split: images (count, S, S, 3) uint8 and captions."""
    scenes: list[Scene] = []
    progress = Progress(count, "scenes")
    with ProcessPoolExecutor() as pool:
        for scene in pool.map(partial(render, seed, split), range(count), chunksize=256):
            scenes.append(scene)
            progress.advance(1)
    progress.close()
    return np.stack([scene.image for scene in scenes]), [scene.caption for scene in scenes]


def save_weights(state: dict[str, Tensor], path: Path) -> None:
    """Writes weights as safetensors: fp16, or fp8 for matrices in the blocks of a model in `EIGHT_BITS`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = {name: t.to(_stored_as(path.stem, name, t)) for name, t in state.items()}
    save_file({name: t.detach().cpu().clone().contiguous() for name, t in small.items()}, path)


def _stored_as(model: str, name: str, tensor: Tensor) -> torch.dtype:
    if not tensor.is_floating_point():
        return tensor.dtype
    block = tensor.ndim == 2 and name.startswith("visual.transformer.resblocks.")
    return torch.float8_e4m3fn if block and model in EIGHT_BITS else torch.float16


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _fitted(name: str, fit: Callable[..., list[float]], steps: int) -> dict[str, Any]:
    """Runs a training and returns its record."""
    started = time.monotonic()
    with _progress(name, steps) as on_step:
        losses = fit(on_step=on_step)
    return {
        "steps": len(losses),
        "loss": round(float(np.mean(losses[-50:])), 4),
        "seconds": round(time.monotonic() - started),
    }


@contextmanager
def _progress(name: str, steps: int) -> Iterator[Callable[[float], None]]:
    """Shows progress. Yields the function to call with the loss of each step."""
    progress = Progress(steps, "steps")
    yield lambda loss: progress.advance(1, f"{name} loss {loss:.3f}")
    progress.close()


def tune_clips(
    config: PretrainConfig,
    weights: Path,
    train: Callable[..., dict[str, Any]],
    *,
    device: str,
) -> None:
    """Tunes CLIPs by CLIPSelf, with build-shards and train: stored crops teach their dense maps.

    Models that are already in the folder are kept.

    Args:
        config: Settings.
        weights: Folder with the CLIPs to start from, into which the tuned ones are written.
        train: Trains with the given settings, and returns what `densecli.train.distillation.train` returns.
        device: cpu, cuda or auto.
    """
    for name, tuning in config.clipself.items():
        if not _file(weights, name).exists():
            started = time.monotonic()
            result = _tune(tuning, weights, train, seed=config.seed, device=device)
            save_weights(read_state_dict(result["export"]), _file(weights, name))
            row = {
                "trained": f"CLIPSelf by build-shards and train, from {tuning.start}",
                "steps": result["step"],
                "loss": round(result["loss"], 4),
                "seconds": round(time.monotonic() - started),
            }
            record(weights, name, row, asdict(config))


def _tune(
    tuning: ClipselfConfig, weights: Path, train: Callable[..., dict[str, Any]], *, seed: int, device: str
) -> dict[str, Any]:
    from densecli.pipeline.build_shards import BuildConfig, build_shards

    clip = str(_file(weights, tuning.start))
    size = f"{tuning.start}-{tuning.regions}-{seed}-{tuning.scenes}"
    build = BuildConfig(
        dataset="scenes",
        split="pretrain",
        limit=tuning.scenes,
        seed=seed,
        store=str(weights.with_name(f"crops-{size}")),
        regions=tuning.regions,
        views=tuning.views,
        shard_size=100,
        workers=len(os.sched_getaffinity(0)),
        teachers=(f"crops-{tuning.start}",),
        weights={tuning.start: clip},
        device=device,
    )
    crops = build_shards(build)["columns"][-1]
    return train(
        store=str(build.store),
        run=str(weights.with_name(f"clipself-{size}")),
        student=tuning.start,
        weights=clip,
        method="clipself",
        teachers=("{name}-{id}".format(**crops),),
        max_steps=tuning.max_steps,
        batch_size=24,
        lr=tuning.lr,
        alpha=1.0,
        seed=seed,
        device=device,
        resume="overwrite",
    )
