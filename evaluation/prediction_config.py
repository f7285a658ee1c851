"""The settings of `predict`."""

from dataclasses import dataclass

from densecli.core.settings import changed, setting
from densecli.evaluation.config import DetectionConfig, MeasureSettings, ReadoutConfig, SegmentationConfig
from densecli.evaluation.diagnosis_config import DiagnosisConfig
from densecli.models.naming import MIN_SHARE
from densecli.shards.config import DeviceSettings, TextSettings


@dataclass(frozen=True, kw_only=True)
class PredictConfig(DeviceSettings, TextSettings):
    """The photos, the names, and what is drawn."""

    photos: tuple[str, ...] = setting(
        help="Photos, folders of photos, and patterns such as 'photos/*.jpg'.",
        group="data",
        metavar="PHOTO",
        argument=True,
        path=True,
    )
    names: str | None = setting(
        None,
        help='Names to tell apart, separated by commas: "dog, sofa, wall".',
        group="data",
        metavar="NAMES",
        default_text="those of --categories, else of the run's store",
    )
    categories: str | None = changed(
        MeasureSettings, "categories", default=None, default_text="those of the run's store"
    )
    proposals: str | None = changed(
        DetectionConfig,
        "proposals",
        help="Boxes to name: a json file in COCO's format, in pixels of the upright photos.",
        default_text="boxes around the connected parts of the segmentation",
        group="regions",
    )
    min_share: float = setting(
        MIN_SHARE,
        help="Leaves out parts that cover less than this share of the photo.",
        group="regions",
        min=0.0001,
        max=1,
    )
    scale: float = changed(DetectionConfig, "scale", default_text="")
    threshold: float = changed(
        SegmentationConfig,
        "threshold",
        default=0.0,
        help="Pixels whose best name is less probable than this have none.",
        default_text="0: every pixel has a name",
    )
    heat: tuple[str, ...] = setting(
        (),
        help="Name with a heat map. May be given several times.",
        group="picture",
        metavar="NAME",
        default_text="the names that cover most of a photo, see --heat-maps",
    )
    heat_maps: int = changed(
        DiagnosisConfig, "heat_maps", help="Names with a heat map, those that cover most of a photo."
    )
    side: int = setting(
        768, help="Longest side of a photo in the pictures.", group="picture", min=64, max=8192, metavar="PX"
    )
    canvas: int = changed(DiagnosisConfig, "canvas")
    mode: str = changed(ReadoutConfig, "mode")
