"""The settings of train."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from densecli.core.errors import DenseCLIError
from densecli.core.settings import changed, setting
from densecli.shards.config import TextSettings
from densecli.shards.datasets import defaults_for
from densecli.shards.kinds import KINDS, TAU
from densecli.train.methods import Preset, find_method
from densecli.train.trainer_config import TrainerConfig

Reduction = Literal["regions", "groups"]
DECOUPLING_ROWS: Mapping[str, str] = {"1": "none", "2": "full", "3": "stuff-only", "4": "densevlm"}
"""Names of the decoupling variants by their row of DenseVLM's table 2."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TrainerConfig, TextSettings):
    """The settings of train.

    A setting that is not given has the value that the preset of `method` gives it, else the field's default.
    `dataclasses.replace` gives every setting: with another `method` the copy keeps the old one's values.
    """

    method: str = setting(
        "densevlm",
        help="Preset of losses and settings; densecli list methods describes them.",
        group="method",
        metavar="NAME",
        registry="methods",
    )
    batch_size: int = changed(
        TrainerConfig, "batch_size", default_text="the method's, such as 48 for densevlm"
    )
    lr: float = changed(TrainerConfig, "lr", default_text="the method's, such as 1e-5 for densevlm")
    betas: tuple[float, float] = changed(TrainerConfig, "betas", default_text="the method's, else 0.9 0.98")
    init: str | None = setting(
        None,
        help="Starts from the student that this run exported.",
        group="model",
        metavar="RUN",
        default_text="none: as --weights says",
        path=True,
    )
    losses: Mapping[str, float] | None = setting(
        None,
        flag="loss",
        help="Loss terms and their weights, separated by commas. KIND is the kind of target to learn from.",
        group="method",
        above=0,
        metavar="TERM[:KIND]=W",
        default_text="the method's",
    )
    teachers: tuple[str, ...] = setting(
        (),
        flag="teacher",
        help="Target column, NAME or NAME-ID, if the store has several of a kind. May be given several "
        "times.",
        group="data",
        metavar="NAME",
        default_text="the only one, else that of the student's own teacher",
    )
    regions: str | None = setting(
        None,
        help="Reads only columns of this region plan.",
        group="data",
        metavar="PLAN",
        default_text="that of the target columns",
    )
    categories: str | None = setting(
        None,
        help="Reads only labels of this category set, a name or a json or csv file; densecli list categories "
        "describes the sets.",
        group="data",
        metavar="SET|FILE",
        default_text="those of the labels",
        path=True,
    )
    views: int | None = setting(
        None,
        help="Trains on the first N stored views of each photo.",
        group="data",
        min=1,
        metavar="N",
        default_text="all of them",
    )
    refiner: str | None = setting(
        None,
        help="Reads only refined columns of the Refiner in this run or file.",
        group="data",
        metavar="RUN|FILE",
        default_text="any",
        path=True,
    )
    blocks: int | None = setting(
        None,
        help="Trains only the last N blocks.",
        group="model",
        min=1,
        metavar="N",
        default_text="all of them",
    )
    image_size: int | None = setting(
        None,
        help="Side of the student's input in pixels.",
        group="model",
        min=16,
        metavar="PX",
        default_text="the store's canvas",
    )
    decode: Literal["cpu", "gpu"] = setting(
        "cpu",
        help="Where JPEGs are decoded; on a GPU, pixels differ slightly from those that the teachers saw.",
        group="speed",
    )
    mode: str = setting(
        "value",
        help="How the student's last block is read out.",
        group="model",
        metavar="NAME",
        default_text="the method's, else value",
    )
    tau: float = setting(TAU, help="Temperature of the softmax over categories.", group="method", above=0)
    theta: float = setting(
        0.3,
        help="Leaves out regions whose best category is less probable than this.",
        group="method",
        min=0,
        max=1,
    )
    decoupling: str = setting(
        "densevlm",
        help="Categories that a region is compared with, by name or row of DenseVLM's table 2. none: all. "
        "full: those of its own kind. stuff-only: stuff for stuff regions, all for things. "
        "densevlm: things for thing regions, all for stuff.",
        group="method",
        choices=(*DECOUPLING_ROWS.values(), *DECOUPLING_ROWS),
    )
    beta: float | None = setting(
        None,
        help="Weight of the stuff categories for thing regions.",
        group="method",
        min=0,
        max=1,
        default_text="from --decoupling",
    )
    reduction: Reduction = setting(
        "regions",
        help="Averages losses over all regions, or over things and stuff separately.",
        group="method",
    )
    spatial_tau: float = setting(0.2, help="Temperature of the spatial term.", group="method", above=0)
    spatial_tau_teacher: float | None = setting(
        None,
        help="Temperature of the other encoder in the spatial term.",
        group="method",
        above=0,
        default_text="--spatial-tau",
    )
    spatial_side: int = setting(
        7,
        help="The spatial term compares N x N points in each box.",
        group="method",
        min=1,
        metavar="N",
    )
    alpha: float = setting(
        0.9,
        help="Share of the trained weights in the exported average with the initial weights.",
        group="model",
        min=0,
        max=1,
        default_text="the method's, such as 0.9 for densevlm",
    )

    fsdp: bool = setting(
        False,
        help="Divides weights, gradients and moments among processes: for students beyond a GPU's memory.",
        group="speed",
    )
    loss_options: Mapping[str, str] = setting(
        default_factory=dict,
        flag="loss-option",
        help="Option of a single loss term. May be given several times.",
        group="method",
        metavar="TERM.NAME=VALUE",
        default_text="the term's defaults",
    )

    def __post_init__(self) -> None:
        """Checks the settings, and replaces the number of a decoupling variant by its name."""
        super().__post_init__()
        if self.init and self.weights:
            raise DenseCLIError(
                "Both --init and --weights say what the student starts from.", hint="Give one of them."
            )
        object.__setattr__(self, "decoupling", DECOUPLING_ROWS.get(self.decoupling, self.decoupling))

    def preset(self) -> Mapping[str, Any]:
        """The method's settings."""
        return self.method_preset.settings

    def preset_teachers(self, dataset: str) -> tuple[str, ...]:
        """Names of the columns of the P-VLM that the method reads in place of the student's own.

        Args:
            dataset: Name of the data set, which says what its P-VLM is by default.
        """
        kinds = () if self.losses else self.method_preset.of_pvlm
        return tuple(KINDS[kind].teacher_name(defaults_for(dataset).pvlm) for kind in kinds)

    @property
    def method_preset(self) -> Preset:
        """The settings of the method for this student. Raises DenseCLIError if the method is unknown."""
        return find_method(self.method).for_student(self.student)
