"""The memory that a training step takes, found before the first one: its tensors are made without values."""

import copy
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from densecli.core.device import Precision
from densecli.train.batch import Batch
from densecli.train.recipe import Recipe


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that operations make, as long as they live.

    Attributes:
        now: Bytes alive.
        peak: The most bytes that were alive at a time.
    """

    def __init__(self, fake: FakeTensorMode | None = None) -> None:
        """Starts at 0: what exists before is not counted.

        Args:
            fake: The mode around this one, if tensors have no values.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._fake = fake
        self.now = self.peak = 0
        self._alive: dict[int, weakref.finalize[..., Any]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation and counts what it makes."""
        if self._fake:
            # Their stand-ins exist before the operation, too.
            args, kwargs = tree_map(partial(_without_values, self._fake), (args, kwargs))
        known = {id(x.untyped_storage()) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        result = function(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, Tensor):
                storage = x.untyped_storage()
                if id(storage) not in known and id(storage) not in self._alive:
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    end = weakref.finalize(storage, self._gone, id(storage), storage.nbytes())
                    self._alive[id(storage)] = end
        return result

    def _gone(self, storage: int, nbytes: int) -> None:
        self.now -= nbytes
        del self._alive[storage]


def without_values(model: nn.Module) -> nn.Module:
    """A copy of a model whose parameters have no values, for `step_bytes` once the model is divided."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    parameters = {
        id(p): nn.Parameter(fake.from_tensor(p.detach()), requires_grad=p.requires_grad)
        for p in model.parameters()
    }
    return copy.deepcopy(model, dict(parameters))


def step_bytes(
    recipe: Recipe[Any], batch: Batch, precision: Precision, outline: nn.Module | None = None
) -> int:
    """The bytes that the forward and backward pass of a batch hold at their peak.

    Gradients are among them; weights, the batch itself and the optimiser are not. Nothing is computed. A
    compiled model holds less: operations that it does as one keep nothing in between.

    Args:
        recipe: The model and its loss. They are not changed.
        batch: A batch on the model's device.
        precision: The precision of the forward pass.
        outline: What `without_values` made of a model that is divided by now. Gradients are not counted then:
            each is handed on as soon as it is there.
    """
    trained = [p for p in recipe.model.parameters() if p.requires_grad]
    model = outline or recipe.model
    made_in = next((p.fake_mode for p in model.parameters() if isinstance(p, FakeTensor)), None)
    with (
        made_in or FakeTensorMode(allow_non_fake_inputs=True) as fake,
        torch.compiler.set_stance("force_eager"),
        ExitStack() as given_up,
    ):
        values = {each.name: getattr(batch, each.name) for each in fields(batch)}
        valueless = replace(batch, **tree_map(partial(_without_values, fake), values))
        with LiveBytes(fake) as live:
            counts = recipe.counts(valueless)
            with precision.autocast():
                outputs = recipe.forward(model, valueless)
            loss, _ = recipe.loss(outputs, valueless, counts)
            if outline is None:
                torch.autograd.grad(loss, trained, allow_unused=True)
            else:
                for parameter in filter(lambda p: p.requires_grad, outline.parameters()):
                    hook = parameter.register_post_accumulate_grad_hook(_give_up)
                    given_up.callback(hook.remove)
                loss.backward()
    peak: int = live.peak
    return peak


def _give_up(parameter: Tensor) -> None:
    parameter.grad = None


def held_apart(model: nn.Module, units: Sequence[nn.Module], processes: int) -> int:
    """The bytes of weights and gradients that a process holds at a time in a step of a divided model.

    Its own part of the gradients; the whole weights of what is in no unit; those of a unit and of the next,
    which are gathered meanwhile, and the whole gradient of a unit.

    Args:
        model: The model before it is divided.
        units: See `train.sharding.Parts`.
        processes: Number of processes.
    """
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    sizes = [sum(p.nbytes for p in unit.parameters()) for unit in units]
    rest = sum(p.nbytes for p in model.parameters()) - sum(sizes)
    return trained // processes + rest + 3 * max(sizes, default=0)


def gigabytes(count: int) -> str:
    """Bytes in words, such as "116 GB"; a GB has 1e9 bytes."""
    return f"{count / 1e9:.0f} GB" if count >= 10e9 else f"{count / 1e9:.1f} GB"


def _without_values(fake: FakeTensorMode, value: Any) -> Any:
    real = isinstance(value, Tensor) and not isinstance(value, FakeTensor)
    return fake.from_tensor(value) if real else value


def optimizer_bytes(model: nn.Module, moments: int = 2) -> int:
    """The bytes of the optimiser's moments, which have the size of the trained parameters."""
    return moments * sum(p.nbytes for p in model.parameters() if p.requires_grad)
