"""The schedules that come with densecli. All begin with a linear warm-up, as in CLIP."""

import math

from densecli.train.schedules import SCHEDULES

DECAY_SHARE = 0.2
"""Share of the steps in which `wsd` decays; MiniCPM uses 10 to 20% (Hu et al. 2024)."""


@SCHEDULES.register("cosine", help="Warm-up, then a cosine towards 0, as in the papers.")
def cosine(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Half a cosine from the peak to 0."""
    if step < warmup_steps:
        return _warm_up(step, peak, warmup_steps)
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


@SCHEDULES.register("linear", help="Warm-up, then a straight line towards 0.")
def linear(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """A straight line from the peak to 0."""
    if step < warmup_steps:
        return _warm_up(step, peak, warmup_steps)
    return peak * (total_steps - step) / (total_steps - warmup_steps)


@SCHEDULES.register("constant", help="Warm-up, then the peak rate.")
def constant(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:  # noqa: ARG001
    """The peak throughout."""
    return _warm_up(step, peak, warmup_steps) if step < warmup_steps else peak


@SCHEDULES.register("wsd", help="Warm-up, the peak rate, and a straight line towards 0 in the last fifth.")
def wsd(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Warm-up, stable, decay (Hu et al. 2024): the peak, then a straight line to 0."""
    if step < warmup_steps:
        return _warm_up(step, peak, warmup_steps)
    decay_steps = min(math.ceil(DECAY_SHARE * total_steps), total_steps - warmup_steps)
    return peak * min(1.0, (total_steps - step) / decay_steps)


def _warm_up(step: int, peak: float, warmup_steps: int) -> float:
    return peak * (step + 1) / warmup_steps
