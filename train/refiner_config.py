"""The settings of train-refiner."""

from dataclasses import dataclass
from typing import Literal

from densecli.core.errors import DenseCLIError
from densecli.core.settings import changed, setting
from densecli.train.trainer_config import TrainerConfig


@dataclass(frozen=True, kw_only=True)
class RefinerConfig(TrainerConfig):
    """The settings of train-refiner; `student` is the Refiner's network."""

    student: str = changed(TrainerConfig, "student", help="CLIP or VFM whose Refiner to train.")
    batch_size: int = changed(TrainerConfig, "batch_size", default=16)
    epochs: int = changed(TrainerConfig, "epochs", default=4)
    lr: float = changed(TrainerConfig, "lr", default=1e-4)
    depth: int | None = setting(
        None,
        help="Copies the last K blocks of the network.",
        group="method",
        min=1,
        metavar="K",
        default_text="4 of 12 blocks, 6 of 24",
    )
    init: str = setting(
        "own",
        help="Initial blocks: own, the network's last blocks; random; exogenous, random blocks after all of "
        "the network's blocks; pacl, PACL's residual block for each token in place of blocks; or the last "
        "blocks of another model, NAME or NAME=WEIGHTS.",
        group="method",
        metavar="NAME",
    )
    fc_inter: bool = setting(True, help="Mixes in the tokens of two earlier layers.", group="method")
    fc_cls: bool = setting(
        True,
        help="Makes a region's [CLS] token by an MLP; otherwise it is the mean of the region's tokens.",
        group="method",
    )
    late: bool = setting(
        False,
        help="Runs over the whole photo, and takes a region's tokens from its map; otherwise it sees nothing "
        "but the region.",
        group="method",
    )
    direction: Literal["global-to-local", "local-to-global"] = setting(
        "global-to-local",
        help="A region in the whole photo learns the tokens of its crop, or a crop those of its region.",
        group="method",
    )
    align: Literal["infonce", "cosine"] = setting(
        "infonce", help="Loss that compares the tokens.", group="method"
    )
    tau: float = setting(0.2, help="Temperature of InfoNCE between tokens.", group="method", above=0)
    crops: int = setting(4, help="Crops of each photo.", group="method", min=1, metavar="N")
    scale: tuple[float, float] = setting(
        (0.3, 0.7),
        help="Smallest and largest area of a crop, as a share of the photo's.",
        group="method",
        above=0,
        max=1,
        metavar="LOW HIGH",
    )
    tokens: int | None = setting(
        None,
        help="Number of tokens along each side of a crop.",
        group="method",
        min=1,
        metavar="N",
        default_text="that of a picture of the native size, 14 for a ViT-B/16",
    )

    def __post_init__(self) -> None:
        """Checks the settings, and that the scale is in order."""
        super().__post_init__()
        if self.scale[0] > self.scale[1]:
            raise DenseCLIError(
                f"scale goes from {self.scale[0]:g} to {self.scale[1]:g}.", hint="Give --scale LOW HIGH."
            )
