"""A step on a GPU waits for it once, when it reads its own numbers.

No GPU is needed: tensors without values (device meta) stand for those on one, every operation is seen, and
one that needs values is an error.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from training import run_settings

from densecli.train.distillation import TrainConfig, make_trainer
from densecli.train.methods import METHODS
from densecli.train.trainer import Trainer

GPU = torch.device("meta")
# Python scalars reach these as tensors on the CPU, and are copied to the GPU.
COPYING_SCALARS = ("index_put", "index_put_", "copy_")


class Waits(TorchDispatchMode):
    """Counts operations that make the CPU wait for the GPU, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        devices = {tensor.device.type for tensor in tensors}
        masks = name.startswith("index") and any(t.dtype in (torch.bool, torch.uint8) for t in tensors[1:])
        target = torch.device(kwargs["device"]).type if kwargs.get("device") else None
        copied = name == "_to_copy" and target and devices != {target} and not kwargs.get("non_blocking")
        if (
            name in ("nonzero", "_local_scalar_dense", "masked_select", "_unique2", "repeat_interleave")
            or masks
            or copied
            or (name in COPYING_SCALARS and devices == {"cpu", GPU.type})
        ):
            self.counts[name] += 1
        return func(*args, **kwargs)


class Numbers(TorchFunctionMode):
    """Counts Python numbers that are copied to the GPU, which no operation shows."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu") == GPU:
            self.counts["tensor"] += 1
        return func(*args, **kwargs)


@contextmanager
def counting_waits() -> Iterator[Counter[str]]:
    with Waits() as waits, Numbers(waits.counts):
        yield waits.counts


def on_gpu(values: Any) -> Any:
    """A tensor without values on the GPU in place of one on the CPU."""
    if isinstance(values, nn.Parameter):
        return nn.Parameter(torch.empty_like(values, device=GPU), requires_grad=values.requires_grad)
    return torch.empty_like(values, device=GPU) if isinstance(values, Tensor) else values


def put_on_gpu(module: nn.Module) -> None:
    for each in module.modules():
        for tensors in (each._parameters, each._buffers):
            tensors.update({name: on_gpu(tensor) for name, tensor in tensors.items()})


def step_on_gpu(trainer: Trainer[Any]) -> Counter[str]:
    """The waits of everything in a step up to its own numbers."""
    [batch] = next(trainer.steps.batches(0))
    recipe = trainer.recipe
    put_on_gpu(trainer.model)
    for term in recipe.terms.values():
        vars(term).update({name: on_gpu(value) for name, value in vars(term).items()})
    batch = replace(
        batch,
        images=on_gpu(batch.images),
        boxes=on_gpu(batch.boxes),
        batch_index=on_gpu(batch.batch_index),
        masks=on_gpu(batch.masks),
        targets={kind: on_gpu(target) for kind, target in batch.targets.items()},
    )
    with counting_waits() as waits:
        counts = trainer.gradient.count([batch])
        parts = trainer.gradient.add(batch, counts, last=True)
        numbers = trainer.gradient.numbers([parts], recipe.learns_from(counts), 0)
    assert numbers.device.type == GPU.type
    assert any(p.grad is not None for p in trainer.model.parameters())
    return waits


@pytest.mark.parametrize(
    "settings",
    [
        *({"method": method} for method in METHODS),
        {"method": "densevlm", "tau": 0.02, "beta": 0.3, "reduction": "groups"},
        {"method": "regiontext", "loss_options": {"region_text.loss": "bce"}},
    ],
    ids=str,
)
def test_step__waits_for_the_gpu_once(full_store, tmp_path: Path, settings: dict[str, Any]) -> None:
    settings = {"max_steps": 2, "spatial_side": 3, **settings}
    trainer = make_trainer(TrainConfig(**run_settings(full_store.store.root, tmp_path, **settings)))
    assert not step_on_gpu(trainer)


@pytest.mark.parametrize("method", ["densevlm", "clipself"])
def test_step__of_masks_waits_for_the_gpu_once(full_store, tmp_path: Path, method: str) -> None:
    trainer = make_trainer(
        TrainConfig(**run_settings(full_store.store.root, tmp_path, max_steps=2, method=method))
    )
    batches = trainer.steps.batches

    def with_masks(epoch: int) -> Iterator[list[Any]]:
        for [batch] in batches(epoch):
            yield [replace(batch, masks=torch.ones(len(batch.boxes), 8, 8, dtype=torch.float16))]

    trainer.steps.batches = with_masks
    assert not step_on_gpu(trainer)


@pytest.mark.parametrize(
    "waiting",
    [
        lambda x: x[x > 0],
        lambda x: x.sum().item(),
        lambda x: x.index_put((torch.tensor([0]),), torch.tensor(1.0)),
        lambda x: x + torch.tensor([1.0, 2.0, 3.0], device=x.device),
        lambda x: x.cpu(),
    ],
)
def test_waits__are_seen(waiting) -> None:
    # A tensor without values has none to give.
    with counting_waits() as counts, suppress(RuntimeError, NotImplementedError):
        waiting(torch.empty(3, device=GPU))
    assert counts
