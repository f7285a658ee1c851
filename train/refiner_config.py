"""The settings of train-refiner."""

from dataclasses import dataclass

from densecli.core.settings import changed, setting
from densecli.train.trainer_config import TrainerConfig


@dataclass(frozen=True, kw_only=True)
class RefinerConfig(TrainerConfig):
    """The settings of train-refiner; `student` is the Refiner's CLIP."""

    student: str = changed(TrainerConfig, "student", help="CLIP whose Refiner is trained.")
    batch_size: int = changed(TrainerConfig, "batch_size", default=16)
    epochs: int = changed(TrainerConfig, "epochs", default=4)
    lr: float = changed(TrainerConfig, "lr", default=1e-4)
    depth: int | None = setting(
        None,
        help="Clones the last K blocks of the CLIP.",
        group="method",
        min=1,
        metavar="K",
        default_text="4 of 12, 6 of 24",
    )
    crops: int = setting(4, help="Crops of each photo.", group="method", min=1, metavar="N")
    tau: float = setting(0.2, help="Temperature of the contrast between tokens.", group="method", above=0)
