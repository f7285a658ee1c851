"""Trains the generated world's own models: two CLIPs on captions, a VFM on scenes alone, and the P-VLM."""

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
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


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Settings of the pre-training.

    Attributes:
        scenes: Number of scenes to render. The CLIPs see `contrastive.pairs` of them, with repetitions.
        held_out: Number of other pairs on which retrieval is measured.
        seed: Seed of the world and of the weights.
        contrastive: Settings for the CLIPs.
        selfsup: Settings for the VFM.
    """

    scenes: int = 64_000
    held_out: int = 500
    seed: int = 0
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    selfsup: SelfSupConfig = field(default_factory=SelfSupConfig)


def pretrain_models(config: PretrainConfig, folder: Path) -> None:
    """Trains scenes-s, scenes-l and scenes-vfm, and writes them as fp16 safetensors.

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
            save_half(model.clip.state_dict(), _file(folder, name))
            saved, _ = load_model(name, str(_file(folder, name)))
            held_out = render_pairs(config.seed, "val", config.held_out)
            row["retrieval_accuracy"] = retrieval_accuracy(saved, *held_out)
            how = "contrastively on image-caption pairs alone"
        else:
            vfm = load_vfm(VFM, weights)
            row = _fitted(name, partial(train_vfm, vfm, images, config.selfsup), config.selfsup.steps)
            save_half(vfm.net.state_dict(), _file(folder, name))
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


def save_half(state: dict[str, Tensor], path: Path) -> None:
    """Writes weights as fp16 safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    halves = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    save_file({name: t.detach().cpu().clone().contiguous() for name, t in halves.items()}, path)


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


def tune_pvlm(
    weights: Path,
    train: Callable[..., dict[str, Any]],
    *,
    seed: int,
    device: str,
    scenes: int = 2000,
    max_steps: int = 1000,
) -> None:
    """Fine-tunes scenes-l by CLIPSelf to make the P-VLM scenes-pvlm: stored crops teach its dense map.

    An existing scenes-pvlm is kept.

    Args:
        weights: Folder with scenes-l, into which scenes-pvlm is written.
        train: Trains with the given settings, and returns what `densecli.train.distillation.train` returns.
        seed: Seed of the world and the training.
        device: cpu, cuda or auto.
        scenes: Number of scenes to train on.
        max_steps: Number of training steps.
    """
    from densecli.pipeline.build_shards import BuildConfig, build_shards

    tuned, clip = weights / "scenes-pvlm.safetensors", str(weights / "scenes-l.safetensors")
    if tuned.exists():
        return
    started = time.monotonic()
    build = BuildConfig(
        dataset="scenes",
        split="pretrain",
        limit=scenes,
        seed=seed,
        store=str(weights.with_name(f"crops-{seed}-{scenes}")),
        regions="grid-square",
        views=5,
        shard_size=250,
        workers=len(os.sched_getaffinity(0)),
        teachers=("crops-scenes-l",),
        weights={"scenes-l": clip},
        device=device,
    )
    crops = build_shards(build)["columns"][-1]
    result = train(
        store=str(build.store),
        run=str(weights.with_name(f"clipself-{seed}-{scenes}")),
        student="scenes-l",
        weights=clip,
        method="clipself",
        teachers=("{name}-{id}".format(**crops),),
        max_steps=max_steps,
        batch_size=24,
        lr=6e-4,
        alpha=1.0,
        seed=seed,
        device=device,
        resume="overwrite",
    )
    save_half(read_state_dict(result["export"]), tuned)
    row = {
        "trained": "CLIPSelf by build-shards and train, from scenes-l",
        "steps": result["step"],
        "loss": round(result["loss"], 4),
        "seconds": round(time.monotonic() - started),
    }
    record(weights, "scenes-pvlm", row, {"clipself": {"scenes": scenes, "max_steps": max_steps}})
