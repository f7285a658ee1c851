"""The settings of relabel."""

from dataclasses import dataclass

from densecli.core.settings import changed, setting
from densecli.pipeline.config import BuildConfig, LabelSettings, ModelWeightsSettings
from densecli.shards.config import DryRunSettings, StoreSettings


@dataclass(frozen=True, kw_only=True)
class RelabelConfig(StoreSettings, ModelWeightsSettings, LabelSettings, DryRunSettings):
    """The settings of relabel; only the weights of a text tower are used."""

    teacher: str | None = setting(
        None,
        help="Column of features or of crops: features-MODEL or crops-MODEL, or with its id.",
        group="teachers",
        metavar="NAME",
        default_text="the only one of features in the store",
    )
    regions: str | None = setting(
        None,
        help="Region plan, new or from the store.",
        group="regions",
        metavar="PLAN",
        default_text="the only one in the store",
    )
    proposals: str | None = changed(BuildConfig, "proposals")
    workers: int = changed(BuildConfig, "workers", 1, help="Worker processes.", default_text="")
