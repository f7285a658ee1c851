"""Panoptic ground truth: photos with their thing and stuff segments, in the COCO and the ADE20K layout.

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
from densecli.models.categories import Categories

log = logging.getLogger(__name__)

ADE_PHOTOS = {"train": "training", "val": "validation"}


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One annotated segment.

    `category` is an index into the category set and `thing` its flag there. `box` is float32 xyxy and
    `mask` bool (H, W), both in pixels of the photo; `area` counts the mask's pixels.
    """

    category: int
    thing: bool
    box: np.ndarray
    mask: np.ndarray
    area: int


@dataclass(frozen=True, kw_only=True)
class AnnotatedPhoto:
    """A photo (PIL, RGB) and its segments in the order of the json; crowds are left out."""

    key: str
    photo: Image.Image
    segments: tuple[Segment, ...]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where one split's annotation json, segment PNGs and photos lie."""

    annotations: Path
    pngs: Path
    photos: Path


def find_layout(root: Path, split: str) -> Layout:
    """The layout of `split` under `root`; DenseCLIError names both places when neither json is there."""
    coco = root / "annotations" / f"panoptic_{split}.json"
    ade = root / f"ade20k_panoptic_{split}.json"
    if coco.is_file():
        return Layout(annotations=coco, pngs=coco.with_suffix(""), photos=root / split)
    if ade.is_file():
        photos = root / "images" / ADE_PHOTOS.get(split, split)
        return Layout(annotations=ade, pngs=ade.with_suffix(""), photos=photos)
    raise DenseCLIError(
        f"There are no panoptic annotations for split {split!r}: neither {coco} nor {ade} exists.",
        hint="Give the folder that holds annotations/ (COCO) or ade20k_panoptic_val.json (ADE20K).",
    )


def canonical(name: str) -> str:
    """A category name for comparison: case, spacing, `_` and COCO-panoptic's `-merged` do not count."""
    return " ".join(name.casefold().replace("_", " ").split()).removesuffix("-merged")


def match_categories(entries: list[dict[str, Any]], categories: Categories) -> tuple[dict[int, int], str]:
    """Map the `categories` of a panoptic json to indices into a category set.

    By name (`canonical`) if every name is found, else by order of id if there are as many as in the set
    (what the released code does). Returns ({json id: index}, "name" or "order"); DenseCLIError lists names
    without a match.
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
        hint="Give the category set that the annotations were made with (COCO: 133, ADE20K: ade150).",
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
    """One split of a panoptic dataset; `dataset[i]` reads photo and PNG of image i, sorted by file name."""

    def __init__(self, root: Path | str, split: str, categories: Categories, limit: int | None = None):
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
            log.warning("%s: matched to %s by order, not by name", self.layout.annotations, categories.name)
        self._pairs = sorted(pairs, key=lambda pair: pair[0]["file_name"])[:limit]
        if not self._pairs:
            raise DenseCLIError(
                f"{self.layout.annotations} annotates no photo.", hint="Give another split or a higher limit."
            )

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, i: int) -> AnnotatedPhoto:
        """Raises DenseCLIError if the photo or PNG cannot be read or the two differ in size."""
        image, annotation = self._pairs[i]
        photo = open_image(self.layout.photos / image["file_name"]).convert("RGB")
        ids = segment_ids(open_image(self.layout.pngs / annotation["file_name"]))
        if ids.shape != (photo.height, photo.width):
            raise DenseCLIError(
                f"{annotation['file_name']} is {ids.shape[1]}x{ids.shape[0]} px,"
                f" its photo {photo.width}x{photo.height}.",
                hint="Photos and segments must come from the same release of the dataset.",
            )
        segments = (
            self._segment(info, ids) for info in annotation["segments_info"] if not info.get("iscrowd")
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
            # ADE20K again: the json has the box of the whole object, the PNG only what was not painted over.
            x, y, width, height = info["bbox"]
            box = np.array([x, y, x + width, y + height], np.float32)
        else:
            box = mask_box(mask)
        return Segment(category=category, thing=thing, box=box, mask=mask, area=int(mask.sum()))


def open_image(path: Path) -> Image.Image:
    """A picture, wholly read. Raises DenseCLIError where it is not there or damaged."""
    try:
        image = Image.open(path)
        image.load()
    except OSError as error:
        raise DenseCLIError(
            f"Could not read {path}: {error}.",
            hint="Evaluation needs every annotated photo and PNG of the split.",
        ) from error
    return image
