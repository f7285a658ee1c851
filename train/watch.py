"""Measurements during a training, and which of its checkpoints is the best by one of them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.registry import suggestion
from densecli.train.checkpoints import checkpoint_path, rng_state, set_rng_state
from densecli.train.recipe import Recipe
from densecli.train.trainer_config import TrainerConfig

REGIONS = "evaluate/"
"""Begins the names of what annotated photos give; --keep-best takes these names without it."""


class Measure(Protocol):
    """Something that is measured during a training, by all of its processes together.

    Attributes:
        names: Whether a larger value is better, by name. A measurement may lack some of them.
        about: What it depends on beside the weights, JSON values for config.json.
        notes: What a user should read before the first step.
    """

    @property
    def names(self) -> Mapping[str, bool]:
        """See above."""

    @property
    def about(self) -> Mapping[str, Any]:
        """See above."""

    @property
    def notes(self) -> Sequence[str]:
        """See above."""

    def __call__(self) -> dict[str, float]:
        """Measures the model as it is: values by name, the same in all processes."""


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best measurement so far.

    Attributes:
        metric: Its name.
        value: Its value.
        step: After how many steps it was measured; the checkpoint of that step is kept.
        about: What it depends on beside the weights; see `Measure.about`.
    """

    metric: str
    value: float
    step: int
    about: dict[str, Any]


class Watch:
    """Measures a model every N steps of its training, and remembers the best.

    The model is measured with the weights that an export would have. A measurement changes nothing: weights
    and random states are afterwards what they were before, bit for bit.

    Attributes:
        metric: Name of the value by which a checkpoint is the best; empty if none is kept.
        before: The values before the first step.
        last: The values measured last.
        best: The best measurement so far.
        improved: Whether that is the latest one.
    """

    def __init__(self, config: TrainerConfig, recipe: Recipe[Any], measures: Sequence[Measure] = ()) -> None:
        """Takes what is to be measured.

        Args:
            config: The configuration.
            recipe: The model.
            measures: What is measured.

        Raises:
            DenseCLIError: There is nothing to measure although it is asked for, or nothing that is measured
                has the name in `config.keep_best`.
        """
        self._every = config.evaluate_every or config.checkpoint_every
        self._recipe, self._measures = recipe, measures
        if not measures and (config.evaluate_every or config.keep_best):
            flag = "--evaluate-every" if config.evaluate_every else "--keep-best"
            raise DenseCLIError(
                f"{flag} has nothing to measure.",
                hint="Add --holdout 0.01, which needs no annotations.",
            )
        self._larger = {name: larger for each in measures for name, larger in each.names.items()}
        self.metric = _named(config.keep_best, self._larger) if config.keep_best else ""
        self.before: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.best: Best | None = None
        self.improved = False

    def __bool__(self) -> bool:
        return bool(self._measures)

    @property
    def about(self) -> dict[str, Any]:
        """What the measurements depend on beside the weights; see `Measure.about`."""
        return {name: value for each in self._measures for name, value in each.about.items()}

    def due(self, step: int, total: int) -> bool:
        """Whether there is something to measure after so many steps of all."""
        return bool(self) and (step % self._every == 0 or step == total)

    def measure(self, step: int) -> str:
        """Measures the model after so many steps; `last` has the values.

        Returns:
            A sentence with them.
        """
        start = time.monotonic()
        with _undisturbed(self._recipe):
            self.last = {name: value for each in self._measures for name, value in each().items()}
        seconds = time.monotonic() - start
        if not step:
            self.before = self.last
        self.improved = bool(step) and self._improves(step)
        values = ", ".join(f"{name.removeprefix(REGIONS)} {_text(v)}" for name, v in self.last.items())
        when = f"After step {step}" if step else "Before the first step"
        best = f" The best {self.metric.removeprefix(REGIONS)} so far." if self.improved else ""
        return f"{when}: {values} ({seconds:.1f} s).{best}"

    def _improves(self, step: int) -> bool:
        value = self.last.get(self.metric)
        # Not a number is never better.
        if value is None or value != value:
            return False
        sign = 1 if self._larger[self.metric] else -1
        if self.best is not None and sign * value <= sign * self.best.value:
            return False
        self.best = Best(metric=self.metric, value=value, step=step, about=self.about)
        return True

    @property
    def keeps(self) -> list[int]:
        """Steps whose checkpoints stay besides the last ones."""
        return [self.best.step] if self.best else []

    def result(self) -> dict[str, Any]:
        """Its entries of the result of a training."""
        if not self:
            return {}
        best = asdict(self.best) if self.best else None
        return {"measured": {"before": self.before, "last": self.last}, "best": best}

    def state(self) -> dict[str, Any]:
        """Its entries of a checkpoint."""
        return {"measures": self.result()} if self else {}

    def load(self, state: Mapping[str, Any], checkpoints: str) -> list[str]:
        """Takes over what an earlier process has measured.

        Args:
            state: A checkpoint.
            checkpoints: The folder of the checkpoints.

        Returns:
            Sentences about what cannot be taken over.
        """
        found = state.get("measures") or {}
        measured = found.get("measured", {})
        self.before, self.last = dict(measured.get("before", {})), dict(measured.get("last", {}))
        best = Best(**found["best"]) if found.get("best") else None
        if best is None or not self.metric:
            return []
        if (best.metric, best.about) != (self.metric, self.about):
            why = f"it was chosen by {best.metric}" if best.metric != self.metric else "the data are others"
        # A checkpoint is on disk before one that names it, unless somebody has removed it.
        elif best.step != state["step"] and not fs.exists(checkpoint_path(checkpoints, best.step)):
            why = "its checkpoint is gone"
        else:
            self.best = best
            return []
        return [f"The best checkpoint so far, of step {best.step}, does not count any more: {why}."]


def _named(name: str, known: Mapping[str, bool]) -> str:
    """The name of what is measured, perhaps given without its beginning. Raises DenseCLIError."""
    for each in (name, f"{REGIONS}{name}"):
        if each in known:
            return each
    names = [each.removeprefix(REGIONS) for each in known]
    near = suggestion(name, names).removeprefix(f"Known: {', '.join(names)}.")
    raise DenseCLIError(
        f"This training does not measure {name!r}, which --keep-best names.",
        hint=f"{near} It measures {', '.join(names)}.".strip(),
    )


def _text(value: float) -> str:
    return f"{value:.4g}"


@contextmanager
def _undisturbed(recipe: Recipe[Any]) -> Iterator[None]:
    """With the weights of an export, without gradients, and with nothing compiled for other shapes."""
    random, filled = rng_state(), recipe.filled_to
    eager = torch.compiler.set_stance("force_eager") if filled else nullcontext()
    recipe.filled_to = 0
    try:
        with torch.no_grad(), eager, recipe.exported():
            yield
    finally:
        recipe.filled_to = filled
        set_rng_state(random)
