"""The settings of mix."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from densecli.core.settings import changed, setting
from densecli.pipeline.relabel_config import RelabelConfig
from densecli.shards.config import DryRunSettings, StoreSettings

Rule = Literal["average", "vote", "agree"]


@dataclass(frozen=True, kw_only=True)
class MixConfig(StoreSettings, DryRunSettings):
    """The settings of mix."""

    teacher_mix: Mapping[str, float] = setting(
        default_factory=dict,
        help="Columns of labels, NAME or NAME-ID, and their weights, separated by commas. Give at least two.",
        group="teachers",
        metavar="NAME=WEIGHT",
        default_text="every column of labels, with equal weights",
    )
    rule: Rule = setting(
        "average",
        help="How labels are mixed. average: the weighted mean. vote: the share of the weights that name a "
        "category first. agree: the mean where all name the same category first, elsewhere 1/D each: "
        "a training leaves such regions out.",
        group="labels",
    )
    workers: int = changed(RelabelConfig, "workers")
