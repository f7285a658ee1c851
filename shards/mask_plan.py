"""Masks as regions: of data whose photos come with masks."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from densecli.shards.geometry import Canvas
from densecli.shards.masks import Masks
from densecli.shards.regions import PAIRS, Grids, Regions
from densecli.shards.segmentation import Malformed, PhotoMasks, lengths_of, packed, sampled
from densecli.shards.specs import RegionSpec

ELSEWHERE = "paper"
"""Grids of photos without masks, by their name in `PAIRS`."""


@dataclass(frozen=True, kw_only=True)
class MaskCounts:
    """What became of the masks of some photos.

    Attributes:
        photos: Photos with masks.
        on_grids: Photos without, whose regions are the cells of grids.
        masks: Masks kept.
        left_out: Masks left out, by reason.
    """

    photos: int = 0
    on_grids: int = 0
    masks: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "MaskCounts") -> "MaskCounts":
        return MaskCounts(
            photos=self.photos + other.photos,
            on_grids=self.on_grids + other.on_grids,
            masks=self.masks + other.masks,
            left_out=dict(Counter(self.left_out) + Counter(other.left_out)),
        )

    @property
    def means(self) -> dict[str, float]:
        """Of one photo, for the receipt: masks kept and left out, and whether it is on grids."""
        left_out = float(sum(self.left_out.values()))
        return {"masks": float(self.masks), "on_grids": float(self.on_grids), "masks_left_out": left_out}

    @property
    def document(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class MaskPlan:
    """The masks of a photo, pooled by mask or by their boxes; grids where a photo has none.

    A mask is kept if it covers at least `min_area` of the canvas. Masks are sorted by predicted IoU, where a
    model has made them, then by area, and dealt to the fewest views of at most 20, so that the views are
    alike. The box of a mask is that of its pixels on the stored photo.

    Attributes:
        pool: How teachers and students pool a region: its mask, or the box of its mask.
        min_iou: Lowest predicted_iou of a mask. The default is SA-1B's own filter (Segment Anything,
            appendix B), as is that of `min_stability`.
        min_stability: Lowest stability_score of a mask.
        min_area: Smallest mask, as a share of the canvas. The default is 8 x 8 pixels of 512 x 512.
        max_masks: Most masks of a photo.
        file_sha256: Digest of the annotation file; empty where masks lie beside the photos.
    """

    pool: Literal["mask", "box"] = "mask"
    min_iou: float = 0.88
    min_stability: float = 0.95
    min_area: float = 1 / 64**2
    max_masks: int = 100
    file_sha256: str = ""
    context = 1.5
    max_cells = None
    view_size = 20

    @property
    def name(self) -> str:
        """Name on the command line and of the column."""
        return "masks" if self.pool == "mask" else "mask-boxes"

    @property
    def spec(self) -> RegionSpec:
        """The spec of its column, on which the column's key depends."""
        return {
            "plan": "masks",
            "pool": self.pool,
            "min_iou": self.min_iou,
            "min_stability": self.min_stability,
            "min_area": self.min_area,
            "max_masks": self.max_masks,
            "view_size": self.view_size,
            "pairs": [list(pair) for pair in PAIRS[ELSEWHERE]],
            **({"sha256": self.file_sha256} if self.file_sha256 else {}),
        }

    def of_photo(
        self, about: Mapping[str, Any], masks: PhotoMasks, canvas: Canvas
    ) -> tuple[Regions, MaskCounts]:
        """The regions of a stored photo.

        Args:
            about: Its `.json` in the images column.
            masks: What is annotated of it.
            canvas: The canvas that it is on.

        Returns:
            The regions, and what became of the masks.
        """
        width, height = about["width"], about["height"]
        side = canvas.fit(width, height)
        left_out = Counter(masks.malformed)
        bitmaps, ranks = [], []
        for annotation in masks.annotations:
            if annotation.iou < self.min_iou or annotation.stability < self.min_stability:
                left_out["below --min-iou or --min-stability"] += 1
                continue
            try:
                bitmap = sampled(lengths_of(annotation.segmentation, width, height), width, height, side)
            except Malformed as error:
                left_out[str(error)] += 1
                continue
            if (area := int(bitmap.sum())) < max(1, self.min_area * canvas.size**2):
                left_out["smaller than --min-area"] += 1
                continue
            bitmaps.append(bitmap)
            ranks.append((-annotation.iou, -area))
        order = sorted(range(len(ranks)), key=ranks.__getitem__)
        if len(order) > self.max_masks:
            left_out["more than --max-masks"] += len(order) - self.max_masks
        n_views = -(-min(len(order), self.max_masks) // self.view_size)
        views = [order[: self.max_masks][v::n_views] for v in range(n_views)]
        found = self._regions([[bitmaps[i] for i in view] for view in views], about, side)
        kept = sum(map(len, views))
        counts = MaskCounts(photos=int(kept > 0), on_grids=int(not kept), masks=kept, left_out=left_out)
        return found, counts

    def _regions(
        self, views: list[list[np.ndarray]], about: Mapping[str, Any], side: tuple[int, int]
    ) -> Regions:
        bitmaps = [bitmap for view in views for bitmap in view]
        if bitmaps:
            boxes = np.array([_box(bitmap) for bitmap in bitmaps], np.float64) / max(side)
            found = Regions(boxes.astype(np.float32), np.cumsum([0, *map(len, views)]).astype(np.int32))
        else:
            found = Grids(PAIRS[ELSEWHERE]).of_photo(about)
        if self.pool == "box":
            return found
        rles = packed(bitmaps) or [b""] * len(found.boxes)
        masks = Masks(
            rle=np.frombuffer(b"".join(rles), np.uint8),
            ends=np.cumsum(list(map(len, rles))).astype(np.uint32),
            size=np.array(side[::-1], np.int32),
        )
        return Regions(found.boxes, found.offsets, masks)


def _box(bitmap: np.ndarray) -> tuple[int, int, int, int]:
    """xyxy in pixels around the pixels of a mask."""
    rows, columns = np.flatnonzero(bitmap.any(axis=1)), np.flatnonzero(bitmap.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
