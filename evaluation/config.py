"""The settings of `evaluate`: which data, and how each task measures."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from densecli.core.settings import Settings, changed, setting
from densecli.shards.config import CATEGORIES, TextSettings
from densecli.shards.datasets import Dataset

BATCH, KNN_BATCH = 8, 4
"""Photos in a batch."""
KNN_CANVAS = 448


@dataclass(frozen=True, kw_only=True)
class MeasureSettings(TextSettings):
    """The data that a model is measured on, and what is reported."""

    data: str = setting(
        "data/coco",
        help="Folder of the annotated photos.",
        group="data",
        metavar="DIR",
        default_text="that of the run's data set, else data/coco",
        path=True,
    )
    split: str = setting(
        "val2017",
        help="Split of the data set.",
        group="data",
        metavar="NAME",
        default_text="that of the run's data set, else val2017",
    )
    limit: int | None = setting(
        None, help="Uses only the first N photos.", group="data", min=1, metavar="N", default_text="all"
    )
    categories: str = setting(
        "133",
        help=CATEGORIES,
        group="data",
        metavar="SET|FILE",
        default_text="those of the run's data set, else 133",
        path=True,
    )
    dataset: str = setting(
        "panoptic",
        help="Layout of the data: panoptic, folder (zeroshot), or a benchmark (segmentation, knn).",
        group="data",
        metavar="NAME",
        registry="benchmarks",
    )
    alphas: tuple[float, ...] = setting(
        (),
        help="With --run: also measures averages of the initial (0) and the trained (1) weights.",
        group="model",
        metavar="A,A,...",
        default_text="the exported weights alone",
    )
    classes: bool = setting(False, help="Also prints a row for each size and each class.", group="output")
    train_split: str = setting(
        "train2017", help="Split that neighbours are taken from.", group="knn", metavar="NAME"
    )
    train_photos: int = setting(100, help="Photos of that split to use.", group="knn", min=1, metavar="N")


@dataclass(frozen=True, kw_only=True)
class RegionsInTraining(Settings):
    """The annotated photos that a student is measured on while it trains."""

    evaluate_data: str | None = setting(
        None,
        help="Folder of annotated photos (panoptic) to classify the regions of, while it trains.",
        group="watch",
        metavar="DIR",
        default_text="none; with --evaluate-every and without --holdout that of the store's data set",
        path=True,
    )
    evaluate_split: str | None = setting(
        None,
        help="Split of these photos.",
        group="watch",
        metavar="NAME",
        default_text="that of the store's data set, else val2017",
    )
    evaluate_categories: str | None = setting(
        None,
        help="Categories of these photos; see evaluate --categories.",
        group="watch",
        metavar="SET|FILE",
        default_text="those of the store's data set, else 133",
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class ReadoutConfig(Settings):
    """How dense features are computed."""

    mode: str = setting(
        "value",
        help="How the last block is read out.",
        group="model",
        metavar="NAME",
        default_text="the run's, else value",
    )
    batch_size: int = setting(
        BATCH,
        help="Photos in a batch.",
        group="speed",
        min=1,
        metavar="N",
        default_text=f"{BATCH}; knn {KNN_BATCH}",
    )


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(ReadoutConfig):
    """How regions are classified.

    Segments with a box area outside [min_side^2, max_side^2] are left out. The area is in pixels of the
    *photo*: the released code of CLIPSelf compares the annotated box before it scales it to the canvas.
    """

    canvas: int = setting(
        Dataset.canvas,
        help="Side of the square canvas that photos are fitted into.",
        group="model",
        min=16,
        metavar="PX",
        default_text="that of the run or of the weights' card, else the model's own, "
        f"{Dataset.canvas} for photos; knn at most {KNN_CANVAS}",
    )
    min_side: int = setting(
        8, help="Leaves out segments with a box smaller than PX x PX.", group="regions", min=0, metavar="PX"
    )
    max_side: int = setting(
        1024, help="Leaves out segments with a box larger than PX x PX.", group="regions", min=1, metavar="PX"
    )
    crowds: bool = setting(
        True,
        help="Counts crowds as segments like others, as the released code of CLIPSelf does.",
        group="regions",
    )
    crops: bool = setting(
        False,
        help="Also classifies each segment by the image embedding of its own crop: an upper bound.",
        group="regions",
    )


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(ReadoutConfig):
    """How photos are segmented.

    The probabilities of a pixel are a softmax of `scale` x cosine over all prompts. If the data set has a
    background class, pixels whose highest probability is below `threshold` are background (SCLIP). SCLIP's
    further threshold on areas, for VOC21, is left out.
    """

    side: int = setting(
        448, help="Short side that photos are resized to.", group="segmentation", min=1, metavar="PX"
    )
    window: int = setting(336, help="Side of the sliding window.", group="segmentation", min=1, metavar="PX")
    stride: int = setting(112, help="Distance between windows.", group="segmentation", min=1, metavar="PX")
    scale: float = setting(
        40.0,
        help="Factor of the cosines before their softmax.",
        group="segmentation",
        above=0,
        default_text="40; detection 100",
    )
    threshold: float = setting(
        0.1,
        help="Pixels whose best class is less probable than this are background.",
        group="segmentation",
        min=0,
        max=1,
    )
    pictures: int = setting(
        0,
        help="Shows N photos with their true and predicted classes on the page of --report.",
        group="segmentation",
        min=0,
        max=100,
        metavar="N",
        default_text="none",
    )


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(ReadoutConfig):
    """How given boxes are classified and ranked."""

    canvas: int = changed(ClassifyConfig, "canvas")
    scale: float = changed(SegmentationConfig, "scale", default=100.0)
    instances: str | None = setting(
        None,
        help="Annotated boxes: a json file in COCO's or LVIS's format, or a panoptic one for its things.",
        group="detection",
        metavar="FILE",
        default_text="DATA/annotations/instances_SPLIT.json, else lvis_v1_SPLIT.json or the panoptic file",
        path=True,
    )
    proposals: str | None = setting(
        None,
        help="Boxes to rank: a json file in COCO's format. Scores in it are not read: no objectness counts.",
        group="detection",
        metavar="FILE",
        default_text="the annotated boxes",
        path=True,
    )
    novel: tuple[str, ...] = setting(
        (),
        help="A novel category, may be given several times; all others are base.",
        group="detection",
        metavar="NAME",
        default_text="COCO: the 17 of OV-COCO beside 48 base; LVIS: rare, common and frequent",
    )
    nms: float = setting(
        0.5,
        help="With --proposals: drops a box that overlaps a better one of its category by more than IOU.",
        group="detection",
        min=0,
        max=1,
        metavar="IOU",
    )
    max_boxes: int | None = setting(
        None,
        help="Ranked pairs of box and category that count in a photo.",
        group="detection",
        min=1,
        metavar="N",
        default_text="100; LVIS 300",
    )


@dataclass(frozen=True, kw_only=True)
class KNNConfig(ReadoutConfig):
    """How patches are classified by their neighbours."""

    canvas: int = changed(ClassifyConfig, "canvas", default=KNN_CANVAS)
    batch_size: int = changed(ReadoutConfig, "batch_size", default=KNN_BATCH)
    k: int = setting(20, help="Neighbours of a patch that vote.", group="knn", min=1)


@dataclass(frozen=True, kw_only=True)
class ZeroShotConfig(Settings):
    """How whole photos are classified."""

    batch_size: int = changed(ReadoutConfig, "batch_size")


TASKS: Mapping[str, type[Settings]] = MappingProxyType(
    {
        "regions": ClassifyConfig,
        "segmentation": SegmentationConfig,
        "zeroshot": ZeroShotConfig,
        "knn": KNNConfig,
        "detection": DetectionConfig,
    }
)
"""The settings of each task of `evaluate --task`."""
