"""Semantic ground truth: photos with a class for every pixel, from a benchmark or from panoptic segments."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from densecli.core.errors import DenseCLIError
from densecli.core.pictures import read_photo, read_picture
from densecli.evaluation.benchmarks import BENCHMARKS, IGNORED, Benchmark, Classes
from densecli.evaluation.config import MeasureSettings
from densecli.evaluation.panoptic import NEEDED, AnnotatedPhoto, PanopticDataset
from densecli.models.categories import load_categories


@dataclass(frozen=True, kw_only=True)
class LabelledPhoto:
    """A photo (PIL, RGB), and the class of each pixel, (H, W) int16; IGNORED pixels do not count."""

    name: str
    photo: Image.Image
    labels: np.ndarray


class SemanticDataset:
    """One split of a published benchmark. `dataset[i]` reads photo and PNG i, sorted by name."""

    def __init__(self, root: Path | str, split: str, benchmark: Benchmark, limit: int | None = None) -> None:
        self.classes = benchmark.classes
        self.absent = 0
        self._table = benchmark.table
        self._pairs = benchmark.pairs(Path(root), split)[:limit]

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, i: int) -> LabelledPhoto:
        """Reads a photo. Raises DenseCLIError if it or its PNG cannot be read or their sizes differ."""
        photo_path, png_path = self._pairs[i]
        photo, png = read_photo(photo_path, NEEDED), read_picture(png_path, NEEDED)
        if photo.size != png.size:
            raise DenseCLIError(
                f"{png_path} is {png.width}x{png.height} px, its photo {photo.width}x{photo.height}.",
                hint="Photos and labels must come from the same release of the data set.",
            )
        if png.mode not in ("L", "P"):
            raise DenseCLIError(
                f"{png_path} has pixels of mode {png.mode}, not one label for each pixel.",
                hint="Use the label PNGs of the data set's release, not colour pictures of them.",
            )
        return LabelledPhoto(name=photo_path.stem, photo=photo, labels=self._table[np.asarray(png)])


class PanopticLabels:
    """A panoptic data set with a class for every pixel; crowds and pixels without a segment are ignored."""

    def __init__(self, dataset: PanopticDataset) -> None:
        self.classes = Classes.of(dataset.categories.names)
        self._dataset = dataset

    @property
    def absent(self) -> int:
        """See `PanopticDataset.absent`."""
        return self._dataset.absent

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, i: int) -> LabelledPhoto:
        found = self._dataset[i]
        return LabelledPhoto(name=found.key, photo=found.photo, labels=category_map(found))


Labelled = SemanticDataset | PanopticLabels


def open_labelled(
    name: str,
    data: str,
    split: str,
    *,
    categories: str = MeasureSettings.categories,
    limit: int | None = None,
) -> Labelled:
    """Opens a split with a class for every pixel.

    Args:
        name: A name in BENCHMARKS, or `panoptic` for any panoptic data set with its category set.
        data: Folder of the data set.
        split: Split of the data set.
        categories: Category set of a panoptic data set.
        limit: Number of photos, by default all.

    Raises:
        DenseCLIError: There is no such data set, or its files are not there.
    """
    if name == "panoptic":
        return PanopticLabels(PanopticDataset(data, split, load_categories(categories), limit))
    return SemanticDataset(data, split, BENCHMARKS[name](), limit)


def category_map(photo: AnnotatedPhoto) -> np.ndarray:
    """int16 (H, W): the category of each pixel's segment, else IGNORED."""
    labels = np.full((photo.photo.height, photo.photo.width), IGNORED, np.int16)
    for segment in photo.segments:
        labels[segment.mask] = segment.category
    return labels
