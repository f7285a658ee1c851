"""Semantic ground truth: photos with a class for every pixel, as published or out of panoptic segments.

coco-stuff:  photos ROOT/SPLIT/ or ROOT/images/SPLIT/, PNGs ROOT/stuffthingmaps/SPLIT/ or
             ROOT/annotations/SPLIT/, as COCO-Stuff 164k was released (values are ids less 1).
ade:         ROOT/images/validation/, ROOT/annotations/validation/ (SPLIT `val`; `training/` for `train`):
             ADEChallengeData2016.
voc:         ROOT/JPEGImages/, ROOT/SegmentationClass/, ROOT/ImageSets/Segmentation/SPLIT.txt: VOC2012.
context:     ROOT/JPEGImages/, ROOT/SegmentationClassContext/, ROOT/ImageSets/SegmentationContext/SPLIT.txt:
             VOC2010 with the 59 classes of Pascal Context as MMSegmentation converts them.
cityscapes:  ROOT/leftImg8bit/SPLIT/CITY/, ROOT/gtFine/SPLIT/CITY/ with *_gtFine_labelIds.png.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from densecli.core.errors import DenseCLIError
from densecli.evaluation.benchmarks import BENCHMARKS, IGNORED, Benchmark, Classes
from densecli.evaluation.panoptic import ADE_PHOTOS, AnnotatedPhoto, PanopticDataset, open_image
from densecli.models.categories import load_categories

Pair = tuple[Path, Path]  # a photo and its PNG


@dataclass(frozen=True, kw_only=True)
class LabelledPhoto:
    """A photo (PIL, RGB) and the class of each pixel, int16 (H, W); IGNORED counts for nothing."""

    photo: Image.Image
    labels: np.ndarray


class SemanticDataset:
    """One split of a published benchmark; `dataset[i]` reads photo and PNG i, sorted by name."""

    def __init__(self, root: Path | str, split: str, benchmark: Benchmark, limit: int | None = None) -> None:
        self.classes = benchmark.classes
        self._table = benchmark.table
        self._pairs = LAYOUTS[benchmark.layout](Path(root), split)[:limit]

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, i: int) -> LabelledPhoto:
        """Raises DenseCLIError if photo or PNG cannot be read or the two differ in size."""
        photo_path, png_path = self._pairs[i]
        photo, png = open_image(photo_path).convert("RGB"), open_image(png_path)
        if photo.size != png.size:
            raise DenseCLIError(
                f"{png_path} is {png.width}x{png.height} px, its photo {photo.width}x{photo.height}.",
                hint="Photos and labels must come from the same release of the dataset.",
            )
        if png.mode not in ("L", "P"):
            raise DenseCLIError(
                f"{png_path} has pixels of the kind {png.mode}, not one number each.",
                hint="Take the label PNGs of the dataset's release, not pictures of them.",
            )
        return LabelledPhoto(photo=photo, labels=self._table[np.asarray(png)])


class PanopticLabels:
    """A panoptic dataset pixel by pixel; crowds and what no segment covers are ignored."""

    def __init__(self, dataset: PanopticDataset) -> None:
        self.classes = Classes.of(dataset.categories.names)
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, i: int) -> LabelledPhoto:
        found = self._dataset[i]
        return LabelledPhoto(photo=found.photo, labels=category_map(found))


Labelled = SemanticDataset | PanopticLabels


def open_labelled(
    name: str, data: str, split: str, *, categories: str = "133", limit: int | None = None
) -> Labelled:
    """A benchmark of BENCHMARKS by name, or as `panoptic` any panoptic split with its category set.

    Raises DenseCLIError where the files are not there.
    """
    if name == "panoptic":
        return PanopticLabels(PanopticDataset(data, split, load_categories(categories), limit))
    if name not in BENCHMARKS:
        raise DenseCLIError(
            f"The layout {name} has no class for each pixel.",
            hint=f"Give one of panoptic, {', '.join(BENCHMARKS)}.",
        )
    return SemanticDataset(data, split, BENCHMARKS[name](), limit)


def category_map(photo: AnnotatedPhoto) -> np.ndarray:
    """int16 (H, W): the category of each pixel's segment, else IGNORED."""
    labels = np.full((photo.photo.height, photo.photo.width), IGNORED, np.int16)
    for segment in photo.segments:
        labels[segment.mask] = segment.category
    return labels


def _coco_stuff(root: Path, split: str) -> list[Pair]:
    pngs = _first_folder(root / "stuffthingmaps" / split, root / "annotations" / split)
    photos = _first_folder(root / split, root / "images" / split)
    # MMSegmentation's converter leaves PNGs with other numbers beside the released ones.
    released = [png for png in sorted(pngs.glob("*.png")) if not png.stem.endswith("TrainIds")]
    return _found([(photos / f"{png.stem}.jpg", png) for png in released], pngs)


def _ade(root: Path, split: str) -> list[Pair]:
    folder = ADE_PHOTOS.get(split, split)
    pngs = _first_folder(root / "annotations" / folder)
    photos = root / "images" / folder
    return _found([(photos / f"{png.stem}.jpg", png) for png in sorted(pngs.glob("*.png"))], pngs)


def _pascal(sets: str, pngs: str) -> Callable[[Path, str], list[Pair]]:
    def listed(root: Path, split: str) -> list[Pair]:
        listing = root / "ImageSets" / sets / f"{split}.txt"
        try:
            names = sorted(listing.read_text().split())
        except OSError:
            raise DenseCLIError(
                f"There is no list of photos {listing}.",
                hint="--data is the folder that holds JPEGImages/ and ImageSets/.",
            ) from None
        return _found([(root / "JPEGImages" / f"{n}.jpg", root / pngs / f"{n}.png") for n in names], listing)

    return listed


def _cityscapes(root: Path, split: str) -> list[Pair]:
    pngs = _first_folder(root / "gtFine" / split)
    photos = root / "leftImg8bit" / split
    end = "_gtFine_labelIds.png"
    found = sorted(pngs.glob(f"*/*{end}"))
    named = [(png.parent.name, png.name.removesuffix(end)) for png in found]
    pairs = [photos / city / f"{name}_leftImg8bit.png" for city, name in named]
    return _found(list(zip(pairs, found, strict=True)), pngs)


LAYOUTS: dict[str, Callable[[Path, str], list[Pair]]] = {
    "coco-stuff": _coco_stuff,
    "ade": _ade,
    "voc": _pascal("Segmentation", "SegmentationClass"),
    "context": _pascal("SegmentationContext", "SegmentationClassContext"),
    "cityscapes": _cityscapes,
}


def _first_folder(*folders: Path) -> Path:
    for folder in folders:
        if folder.is_dir():
            return folder
    raise DenseCLIError(
        f"There is no folder {' nor '.join(map(str, folders))}.",
        hint="--data is the dataset's own folder and --split one of its splits.",
    )


def _found(pairs: Sequence[Pair], place: Path) -> list[Pair]:
    if not pairs:
        raise DenseCLIError(f"{place} names no labelled photo.", hint="Give another split.")
    return list(pairs)
