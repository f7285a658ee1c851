"""The settings of plan."""

from dataclasses import dataclass

from densecli.core.settings import Settings, setting
from densecli.pipeline.config import BuildConfig


@dataclass(frozen=True, kw_only=True)
class PlanConfig(Settings):
    """The settings of plan.

    Attributes:
        build: The build to plan.
        reads: Kinds of column that the training reads, whose live teachers it would run at every step; None
            for all that are built.
        student: The model to train; None for the data set's.
        image_size: Side of the student's input in pixels; None for the canvas.
        epochs: Length of the training.
        seen: Length of the training in photos, in place of `epochs`.
    """

    build: BuildConfig
    photos: int | None = setting(
        None,
        help="Plans for N photos like those listed.",
        group="plan",
        min=1,
        metavar="N",
        default_text="as many as listed",
    )
    samples: int = setting(256, help="Photos to build as a sample.", group="plan", min=1, metavar="N")
    measured: int = setting(
        8,
        flag="measure",
        help="Photos from which the bytes of labels are measured, where the teacher's weights are here; "
        "without weights, or with 0, they are a range.",
        group="plan",
        min=0,
        metavar="N",
    )
    tflops: float = setting(
        100.0,
        help="Speed of a GPU in 1e12 FLOP/s at 16 bits; tf32 counts half of it, fp32 a sixteenth.",
        group="plan",
        above=0,
    )
    calibrate: bool = setting(
        False,
        help="Measures the speed instead, on the sample and with the teachers' weights.",
        group="plan",
    )
    reads: frozenset[str] | None = None
    student: str | None = None
    image_size: int | None = None
    epochs: int
    seen: int | None = None
