"""The generated world as a data set, with its own models and categories as defaults."""

from densecli.scenes.vocabulary import IMAGE_SIZE
from densecli.shards.datasets import Dataset

SCENES = Dataset(
    source="densecli.scenes.source:scenes_source",
    split="train",
    generated=True,
    canvas=IMAGE_SIZE,
    student="scenes-s",
    student_patch=12,
    pvlm="scenes-pvlm",
    vfm="scenes-vfm",
    categories="scenes",
    # A scene's map has 64 tokens, which this rank represents well.
    features_rank=16,
    annotated="densecli.scenes.coco:write_coco",
)
