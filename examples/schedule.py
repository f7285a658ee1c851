"""A learning-rate schedule: after the warm-up the rate falls with the square root of the step."""

from densecli.train.schedules import SCHEDULES


@SCHEDULES.register("inverse-sqrt", help="Warm-up, then peak * sqrt(warm-up / step) (Vaswani et al. 2017).")
def inverse_sqrt(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:  # noqa: ARG001
    """The rate of a step, counted from 0. It depends on no length of the training."""
    warmup = max(warmup_steps, 1)
    return peak * min((step + 1) / warmup, (warmup / (step + 1)) ** 0.5)
