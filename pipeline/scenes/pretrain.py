"""How the generated world's CLIPs are made: pairs -> two contrastive CLIPs -> CLIPSelf on the larger."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from models.checkpoints import load_model
from models.dense import DenseCLIP
from pipeline.scenes.clipself import ClipSelfConfig, train_clipself
from pipeline.scenes.contrastive import ContrastiveConfig, retrieval_accuracy, train_contrastive
from pipeline.scenes.world import Scene, render
from shards.progress import Progress

CLIPS = ("scenes-s", "scenes-l")
PVLM = "scenes-pvlm"


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """scenes: rendered, for `contrastive.pairs` visits in all. held_out: pairs to measure retrieval on.

    seed: of the world, the weights and the order.
    """

    scenes: int = 64_000
    held_out: int = 500
    seed: int = 0
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    clipself: ClipSelfConfig = field(default_factory=ClipSelfConfig)


def pretrain(config: PretrainConfig, folder: Path) -> dict[str, Any]:
    """Write scenes-l, scenes-s, scenes-pvlm (fp16 safetensors) and their record scenes.json into `folder`."""
    images, captions = render_pairs(config.seed, "pretrain", config.scenes)
    held_out = render_pairs(config.seed, "val", config.held_out)
    record: dict[str, Any] = {"config": asdict(config), "models": {}}

    def fit(name: str, model: DenseCLIP, how: str, steps: int, train: Callable[..., list[float]]) -> None:
        started = time.monotonic()
        with _progress(name, steps) as on_step:
            losses = train(model, on_step=on_step)
        record["models"][name] = {
            "trained": how,
            "steps": len(losses),
            "loss": round(float(np.mean(losses[-50:])), 4),
            "retrieval_accuracy": retrieval_accuracy(model, *held_out),
            "seconds": round(time.monotonic() - started),
        }
        _save(model, folder / f"{name}.safetensors")

    contrast = partial(train_contrastive, images=images, captions=captions, config=config.contrastive)
    for name in CLIPS:
        model, _ = load_model(name, f"random:{config.seed}")
        fit(name, model, "contrastively on image-caption pairs alone", config.contrastive.steps, contrast)
    model, _ = load_model("scenes-l", str(folder / "scenes-l.safetensors"))
    distil = partial(train_clipself, images=images, config=config.clipself)
    fit(PVLM, model, "CLIPSelf with live crops, from scenes-l", config.clipself.steps, distil)
    (folder / "scenes.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def render_pairs(seed: int, split: str, count: int) -> tuple[np.ndarray, list[str]]:
    """The first `count` scenes of a split: (count, S, S, 3) uint8 and their captions."""
    scenes: list[Scene] = []
    progress = Progress(count, "scenes")
    with ProcessPoolExecutor() as pool:
        for scene in pool.map(partial(render, seed, split), range(count), chunksize=256):
            scenes.append(scene)
            progress.advance(1)
    progress.close()
    return np.stack([scene.image for scene in scenes]), [scene.caption for scene in scenes]


@contextmanager
def _progress(name: str, steps: int) -> Iterator[Callable[[float], None]]:
    """What a training loop calls with the loss of each step."""
    progress = Progress(steps, "steps")
    yield lambda loss: progress.advance(1, f"{name} loss {loss:.3f}")
    progress.close()


def _save(model: DenseCLIP, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = model.clip.state_dict()
    save_file({k: v.half().contiguous() if v.is_floating_point() else v for k, v in state.items()}, path)
    with torch.no_grad():
        model.clip.load_state_dict(
            {k: v.half().float() if v.is_floating_point() else v for k, v in state.items()}
        )
