"""The settings of `diagnose`."""

from dataclasses import dataclass

from densecli.core.settings import changed, setting
from densecli.evaluation.config import ClassifyConfig, MeasureSettings, ReadoutConfig
from densecli.shards.config import DeviceSettings


@dataclass(frozen=True, kw_only=True)
class DiagnosisConfig(DeviceSettings):
    """The photos, what is drawn of them, and what is measured on them."""

    data: tuple[str, ...] = setting(
        (),
        help="Photo or folder of photos. May be given several times.",
        group="data",
        metavar="PATH",
        default_text="the test photos of a run on a generated data set",
        path=True,
    )
    split: str | None = setting(
        None,
        help="Annotated split of the data set in --data; adds the confusion of its regions.",
        group="data",
        metavar="NAME",
        default_text="none: photos need no annotations",
    )
    categories: str = changed(
        MeasureSettings, "categories", default_text="those of the run's store, else 133"
    )
    limit: int = setting(4, help="Photos to draw.", group="data", min=1, metavar="N")
    measured_photos: int = setting(
        16,
        help="Photos that the coupling ratio and the confusion are measured on, those drawn among them.",
        group="data",
        min=1,
        metavar="N",
    )
    text_embeddings: str | None = changed(MeasureSettings, "text_embeddings")
    canvas: int = changed(
        ClassifyConfig,
        "canvas",
        default_text="that of the run or of the weights' card, else the model's own",
    )
    mode: str = changed(ReadoutConfig, "mode")
    point: tuple[float, float] | None = setting(
        None,
        help="Point whose attention and correlations are drawn, as shares of the photo.",
        group="picture",
        min=0,
        max=1,
        metavar="X Y",
        default_text="one in each of the photo's two largest regions",
    )
    layers: tuple[int, ...] = setting(
        (),
        help="Layers to draw; 1 is the first.",
        group="picture",
        min=1,
        metavar="N,N,...",
        default_text="four, from a quarter of the depth to the last",
    )
    heat_maps: int = setting(
        3, help="Categories with a heat map, those that cover most of a photo.", group="picture", min=0
    )
