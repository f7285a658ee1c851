"""Learning-rate schedules by name.

A schedule is a pure function of the step. To add one, write a function in this package, or a plug-in:

    from densecli.train.schedules import SCHEDULES

    @SCHEDULES.register("half", help="Half the peak rate throughout.")
    def half(step, *, peak, warmup_steps, total_steps):
        return peak / 2
"""

from collections.abc import Callable
from typing import Protocol

from densecli.core.registry import Registry, registry


class Schedule(Protocol):
    """The learning rate as a function of the step."""

    def __call__(self, step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
        """Returns the rate of a step.

        Args:
            step: Counted from 0.
            peak: Largest rate, `--lr`.
            warmup_steps: Steps in which the rate rises to the peak.
            total_steps: Length of the training.
        """
        ...


SCHEDULES: Registry[Schedule] = registry("schedules", package=__name__, noun="schedule", of=Callable)
