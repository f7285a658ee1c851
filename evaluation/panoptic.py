"""Panoptic ground truth: photos with thing and stuff segments, in the layouts of COCO and ADE20K.

COCO:    ROOT/annotations/panoptic_SPLIT.json, ROOT/annotations/panoptic_SPLIT/*.png, photos ROOT/SPLIT/.
ADE20K:  ROOT/ade20k_panoptic_SPLIT.json, ROOT/ade20k_panoptic_SPLIT/*.png, photos ROOT/images/validation/
         (SPLIT `val`; `training/` for `train`), as the conversion script of Mask2Former writes it.
Both: PNG colours are segment ids, r + 256 g + 65536 b (Kirillov et al., Panoptic Segmentation, and its API).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from densecli.core.errors import DenseCLIError
from densecli.core.pictures import read_photo, read_picture
from densecli.evaluation.annotations import PhotoAnnotation, SegmentInfo, read_annotations
from densecli.models.categories import Categories

log = logging.getLogger(__name__)

NEEDED = "Evaluation needs every annotated photo and PNG of the split."
FIRST = 5
"""So many ids are shown of each side where none match."""
ADE_PHOTOS = {"train": "training", "val": "validation"}


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One annotated segment.

    Attributes:
        category: Index into the category set.
        thing: Whether that category is a thing.
        box: (4,) float32 xyxy in pixels of the photo.
        mask: (H, W) bool, over the pixels of the photo.
        area: Pixels of the mask.
    """

    category: int
    thing: bool
    box: np.ndarray
    mask: np.ndarray
    area: int


@dataclass(frozen=True, kw_only=True)
class AnnotatedPhoto:
    """A photo (PIL, RGB) and its segments in the order of the json."""

    key: str
    photo: Image.Image
    segments: tuple[Segment, ...]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Paths of one split: its annotation file, and the folders of its segment PNGs and photos."""

    annotations: Path
    pngs: Path
    photos: Path


def find_layout(root: Path, split: str) -> Layout:
    """Finds the files of a split under `root`.

    Raises:
        DenseCLIError: There is no annotation file; the message names both places where it could be.
    """
    coco = root / "annotations" / f"panoptic_{split}.json"
    ade = root / f"ade20k_panoptic_{split}.json"
    if coco.is_file():
        return Layout(annotations=coco, pngs=coco.with_suffix(""), photos=root / split)
    if ade.is_file():
        photos = root / "images" / ADE_PHOTOS.get(split, split)
        return Layout(annotations=ade, pngs=ade.with_suffix(""), photos=photos)
    raise DenseCLIError(
        f"There are no panoptic annotations for split {split!r}: neither {coco} nor {ade} exists.",
        hint="Give --data the folder that holds annotations/ (COCO) or ade20k_panoptic_val.json (ADE20K), "
        "and --split one of its splits.",
    )


def segment_ids(png: Image.Image) -> np.ndarray:
    """Segment id of every pixel, int32 (H, W), from a panoptic PNG: r + 256 g + 65536 b. 0 is unlabelled."""
    rgb = np.asarray(png.convert("RGB"), dtype=np.int32)
    return rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]


def absent_text(absent: int) -> str:
    """The sentence about segments that are in the json and not in their PNGs."""
    return f"{absent} segments are left out because no pixel of their PNG has their id."


def mask_box(mask: np.ndarray) -> np.ndarray:
    """Tight box, float32 xyxy in pixels, of a bool (H, W) mask with at least one pixel."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], np.float32)


class PanopticDataset:
    """One split of a panoptic data set. `dataset[i]` reads photo i, sorted by file name, and its PNG."""

    def __init__(
        self,
        root: Path | str,
        split: str,
        categories: Categories,
        limit: int | None = None,
        *,
        crowds: bool = False,
    ):
        """Reads the annotation file.

        Args:
            root: Folder of the data set.
            split: Name of the split.
            categories: The category set.
            limit: Number of photos, by default all.
            crowds: Whether crowds are segments like others.

        Raises:
            DenseCLIError: The file cannot be read, or its categories do not match.
        """
        self.crowds = crowds
        self.layout = find_layout(Path(root), split)
        self.categories = categories
        self._photos, self.matched_by = read_annotations(self.layout.annotations, categories, limit)
        self._absent: dict[int, int] = {}
        if self.matched_by == "order":
            log.warning(
                "%s: its categories are matched to %s by order, because some names differ",
                self.layout.annotations,
                categories.name,
            )
        if not self._photos:
            raise DenseCLIError(
                f"{self.layout.annotations} annotates no photo.", hint="Give another --split."
            )

    @property
    def crowd_segments(self) -> int:
        """Number of crowds that are annotated in the photos."""
        return sum(info.crowd for annotation in self._photos for info in annotation.segments)

    @property
    def absent(self) -> int:
        """Segments of the photos read so far whose ids are not in their PNGs: they do not count."""
        return sum(self._absent.values())

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, i: int) -> AnnotatedPhoto:
        """Reads a photo.

        Raises:
            DenseCLIError: It or its PNG cannot be read, their sizes differ, the PNG has pixels of another
                kind, or none of the photo's segments is in it.
        """
        annotation = self._photos[i]
        photo = read_photo(self.layout.photos / annotation.photo, NEEDED)
        png = read_picture(self.layout.pngs / annotation.png, NEEDED)
        if png.size != photo.size:
            raise DenseCLIError(
                f"{annotation.png} is {png.width}x{png.height} px, its photo {photo.width}x{photo.height}.",
                hint="Photos and segments must come from the same release of the data set.",
            )
        if png.mode not in ("RGB", "RGBA"):
            raise DenseCLIError(
                f"{self.layout.pngs / annotation.png} has pixels of mode {png.mode}, not segment ids in "
                "three channels.",
                hint="Take the PNGs of the release: r + 256 g + 65536 b is the id of a pixel's segment.",
            )
        ids = segment_ids(png)
        infos = [info for info in annotation.segments if self.crowds or not info.crowd]
        segments = tuple(s for info in infos if (s := _segment(info, ids)))
        # ADE20K: some are painted over by later segments.
        self._absent[i] = len(infos) - len(segments)
        if infos and not segments:
            raise self._no_segment(annotation, ids)
        return AnnotatedPhoto(key=Path(annotation.photo).stem, photo=photo, segments=segments)

    def _no_segment(self, annotation: PhotoAnnotation, ids: np.ndarray) -> DenseCLIError:
        """The error for a photo that loses all its segments, with the first ids of both sides."""
        wanted = {info.id for info in annotation.segments}
        there = np.unique(ids)
        swapped = 65536 * (there % 256) + 256 * (there // 256 % 256) + there // 65536
        hint = "The PNG and the json must come from the same release of the data set."
        if wanted & set(swapped.tolist()):
            hint = "The channels of the PNG are in the order BGR: the ids match once it is saved as RGB."
        return DenseCLIError(
            f"None of the {len(wanted)} segments of {annotation.photo} is in its PNG "
            f"{self.layout.pngs / annotation.png}: the json has the ids {_first(sorted(wanted))}, the PNG "
            f"{_first(there.tolist())}.",
            hint=hint,
        )


def _first(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids[:FIRST])) + (", ..." if len(ids) > FIRST else "")


def _segment(info: SegmentInfo, ids: np.ndarray) -> Segment | None:
    """The segment; None where no pixel has its id."""
    mask = ids == info.id
    area = int(mask.sum())
    if not area:
        return None
    return Segment(
        category=info.category,
        thing=info.box is not None,
        box=mask_box(mask) if info.box is None else info.box,
        mask=mask,
        area=area,
    )
