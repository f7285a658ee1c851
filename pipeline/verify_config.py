"""The settings of verify."""

from collections.abc import Mapping
from dataclasses import dataclass

from densecli.core.settings import changed, setting
from densecli.pipeline.config import BuildConfig, LabelSettings, ModelWeightsSettings
from densecli.shards.config import DeviceSettings, StoreSettings


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(StoreSettings, ModelWeightsSettings, DeviceSettings):
    """The settings of verify."""

    teachers: tuple[str, ...] = setting(
        (),
        flag="teacher",
        help="Column to check, NAME or NAME-ID. May be given several times.",
        group="data",
        metavar="NAME",
        default_text="every column",
    )
    against: str | None = setting(
        None,
        help="Compares the stored labels of --teacher with those of this column. No teacher runs.",
        group="data",
        metavar="NAME",
        default_text="compares with the live teachers",
    )
    report: str | None = setting(
        None,
        help="With --against: writes the comparison as a page, with agreement by confidence as a chart.",
        group="output",
        metavar="DIR",
        default_text="no page",
        path=True,
    )
    samples: int = setting(16, help="Photos to check in each column.", group="data", min=1, metavar="N")
    tolerance: float = setting(
        0.01,
        help="How much an error may exceed the recorded one, on another machine or release.",
        group="data",
        min=0,
    )
    weights: Mapping[str, str] = changed(
        ModelWeightsSettings, "weights", default_text="the paths at the build, else looked up by name"
    )
    categories: str | None = changed(LabelSettings, "categories", default_text="as at the build")
    text_embeddings: str | None = changed(LabelSettings, "text_embeddings")
    templates: str | None = changed(
        LabelSettings, "templates", default_text="those of the build, if they are a named set"
    )
    batch_size: int = changed(BuildConfig, "batch_size", help="Photos in a batch.")
