"""Panoptic ground truth: photos with thing and stuff segments, in the layouts of COCO and ADE20K.

COCO:    ROOT/annotations/panoptic_SPLIT.json, ROOT/annotations/panoptic_SPLIT/*.png, photos ROOT/SPLIT/.
ADE20K:  ROOT/ade20k_panoptic_SPLIT.json, ROOT/ade20k_panoptic_SPLIT/*.png, photos ROOT/images/validation/
         (SPLIT `val`; `training/` for `train`), as the conversion script of Mask2Former writes it.
Both: PNG colours are segment ids, r + 256 g + 65536 b (Kirillov et al., Panoptic Segmentation, and its API).
"""

import json
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from densecli.core.errors import DenseCLIError
from densecli.core.pictures import read_photo, read_picture
from densecli.models.categories import Categories

log = logging.getLogger(__name__)

NEEDED = "Evaluation needs every annotated photo and PNG of the split."
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


def canonical(name: str) -> str:
    """A category name for comparison: case, spacing, `_` and COCO-panoptic's `-merged` do not count."""
    return " ".join(name.casefold().replace("_", " ").split()).removesuffix("-merged")


def match_categories(entries: list[dict[str, Any]], categories: Categories) -> tuple[dict[int, int], str]:
    """Matches the categories of a panoptic annotation file to a category set.

    They are matched by name (`canonical`) if every name is found. Otherwise they are matched by the order of
    their ids, as in the released code of CLIPSelf, if there are as many as in the set.

    Args:
        entries: The file's `categories`.
        categories: The category set.

    Returns:
        Index into the set by id in the file, and how they were matched: "name" or "order".

    Raises:
        DenseCLIError: They cannot be matched; the message lists the unknown names.
    """
    forms = [canonical(name) for name in categories.names]
    # A name that the set holds twice names no class.
    count = Counter(forms)
    index = {form: i for i, form in enumerate(forms) if count[form] == 1}
    unmatched = [entry["name"] for entry in entries if canonical(entry["name"]) not in index]
    if not unmatched:
        return {entry["id"]: index[canonical(entry["name"])] for entry in entries}, "name"
    if len(entries) == len(categories.names):
        return {id: i for i, id in enumerate(sorted(entry["id"] for entry in entries))}, "order"
    raise DenseCLIError(
        f"{len(unmatched)} of {len(entries)} annotated categories are not in {categories.name}"
        f" ({len(categories.names)} names): {', '.join(unmatched)}.",
        hint="Give --categories the set that the annotations were made with (COCO: 133, ADE20K: ade150).",
    )


def segment_ids(png: Image.Image) -> np.ndarray:
    """Segment id of every pixel, int32 (H, W), from a panoptic PNG: r + 256 g + 65536 b. 0 is unlabelled."""
    rgb = np.asarray(png.convert("RGB"), dtype=np.int32)
    return rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]


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
        self._things = categories.thing_flags()
        try:
            content = json.loads(self.layout.annotations.read_text())
            self._index, self.matched_by = match_categories(content["categories"], categories)
            images = {image["id"]: image for image in content["images"]}
            pairs = [(images[a["image_id"]], a) for a in content["annotations"]]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DenseCLIError(
                f"{self.layout.annotations} is not a panoptic annotation file ({error!r}).",
                hint="It must hold images, annotations with segments_info, and categories.",
            ) from error
        if self.matched_by == "order":
            log.warning(
                "%s: its categories are matched to %s by order, because some names differ",
                self.layout.annotations,
                categories.name,
            )
        self._pairs = sorted(pairs, key=lambda pair: pair[0]["file_name"])[:limit]
        if not self._pairs:
            raise DenseCLIError(
                f"{self.layout.annotations} annotates no photo.", hint="Give another --split."
            )

    @property
    def crowd_segments(self) -> int:
        """Number of crowds that are annotated in the photos."""
        return sum(bool(info.get("iscrowd")) for _, a in self._pairs for info in a["segments_info"])

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, i: int) -> AnnotatedPhoto:
        """Reads a photo. Raises DenseCLIError if it or its PNG cannot be read or their sizes differ."""
        image, annotation = self._pairs[i]
        photo = read_photo(self.layout.photos / image["file_name"], NEEDED)
        ids = segment_ids(read_picture(self.layout.pngs / annotation["file_name"], NEEDED))
        if ids.shape != (photo.height, photo.width):
            raise DenseCLIError(
                f"{annotation['file_name']} is {ids.shape[1]}x{ids.shape[0]} px,"
                f" its photo {photo.width}x{photo.height}.",
                hint="Photos and segments must come from the same release of the data set.",
            )
        segments = (
            self._segment(info, ids)
            for info in annotation["segments_info"]
            if self.crowds or not info.get("iscrowd")
        )
        return AnnotatedPhoto(
            key=Path(image["file_name"]).stem,
            photo=photo,
            segments=tuple(s for s in segments if s is not None),
        )

    def _segment(self, info: dict[str, Any], ids: np.ndarray) -> Segment | None:
        category = self._index[info["category_id"]]
        thing = bool(self._things[category])
        mask = ids == info["id"]
        if not mask.any():  # ADE20K: painted over by a later segment
            return None
        if thing:
            # ADE20K: the file has the box of the whole object, the PNG only what was not painted over.
            x, y, width, height = info["bbox"]
            box = np.array([x, y, x + width, y + height], np.float32)
        else:
            box = mask_box(mask)
        return Segment(category=category, thing=thing, box=box, mask=mask, area=int(mask.sum()))
