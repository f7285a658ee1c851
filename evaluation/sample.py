"""One sample of a store in pictures: a panel for each of its target columns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from densecli.core.errors import DenseCLIError
from densecli.evaluation.affinity import INK, PAPER, Point, affinity_panel, point_panel
from densecli.evaluation.affinity_figures import Dense, affinity_row
from densecli.evaluation.preview import GAP, contact_sheet, row_of
from densecli.evaluation.retrieved import retrieved_view
from densecli.shards.geometry import Canvas
from densecli.shards.kinds import KINDS
from densecli.shards.quantise import dequantise
from densecli.shards.reader import Record, decode_image, decode_npz, read_joined
from densecli.shards.regions import Regions
from densecli.shards.store import Column, Store

CROP, CROPS_A_ROW = 96, 8  # px; pictures
Live = Callable[[Column, str], np.ndarray]
"""What the teacher of a column of token maps says itself of the photo of that key, (h, w, C)."""


def find_record(store: Store, columns: Sequence[Column], key: str) -> Record:
    """The sample of that key, with the photo and its parts of `columns`. Raises DenseCLIError where it is not
    there, or not built yet."""
    others: list[str] = []
    for shard in store.shard_names:
        receipt = store.images.receipt(shard)
        if receipt and f"{key}.jpg" in receipt.members:
            return next(
                record for record in read_joined([store.images, *columns], shard) if record.key == key
            )
        if receipt and len(others) < 3:
            others += [name.removesuffix(".jpg") for name in receipt.members if name.endswith(".jpg")][:3]
    raise DenseCLIError(
        f"The store at {store.root} has no sample {key}.",
        hint=f"Its samples are called {', '.join(others[:3])}, ..." if others else "Build it first.",
    )


def picture(
    store: Store,
    columns: Sequence[Column],
    key: str,
    *,
    view: int,
    point: Point,
    theta: float | None = None,
    live: Live | None = None,
    students: Mapping[str, Dense] | None = None,
) -> Image.Image:
    """What each of the target columns says of a photo, one below the other.

    students: networks whose own affinities to the point come first, side by side.

    labels: the cells of view `view`, and with `theta` as DenseVLM denoises them beside; a map of tokens:
    affinities to `point`, x and y in 0..1 of the photo, and those of the teacher itself where `live` asks it;
    crops: the crops that were asked about. Raises DenseCLIError for a view that there is not.
    """
    drawn = Drawing(store=store, view=view, point=point, theta=theta, live=live)
    panels = []
    if students:
        image = decode_image(find_record(store, [], key).parts["images"]["jpg"])
        panels.append(_titled("student", affinity_row(students, image, point, Canvas(store.canvas))))
    for column in columns:
        of_boxes = store.regions_of(column) if column.regions_key else None
        record = find_record(store, [c for c in (of_boxes, column) if c], key)
        panels.append(_titled(f"{column.name}: {column.target_kind}", drawn.panel(record, column)))
    sheet = Image.new("RGB", (max(p.width for p in panels), sum(p.height for p in panels)), PAPER)
    y = 0
    for panel in panels:
        sheet.paste(panel, (0, y))
        y += panel.height
    return sheet


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What is drawn of a sample; see `picture`."""

    store: Store
    view: int
    point: Point
    theta: float | None
    live: Live | None

    def panel(self, record: Record, column: Column) -> Image.Image:
        stored = decode_npz(record.parts[column.part]["npz"])
        canvas = Canvas(self.store.canvas)
        layout = KINDS[column.target_kind].layout
        if layout == "map":
            height, width = stored["grid"].tolist()
            return self._tokens(record, column, dequantise(stored).reshape(height, width, -1), canvas)
        regions = Regions(**decode_npz(record.parts["regions"]["npz"]))
        if layout == "views":
            crop = column.spec["target"].get("crop", {"side": CROP, "context": 1.0})
            image = decode_image(record.parts["images"]["jpg"])
            cells = [cell for view in stored["views"] for cell in regions.view(view)]
            return _crops(
                [canvas.crop(image, regions.boxes[c], crop["side"], crop["context"]) for c in cells]
            )
        return self._labels(record, column, regions)

    def _tokens(self, record: Record, column: Column, factors: np.ndarray, canvas: Canvas) -> Image.Image:
        image = decode_image(record.parts["images"]["jpg"])
        cached = affinity_panel(image, factors, self.point, canvas)
        if self.live is None:
            return cached
        told = affinity_panel(image, self.live(column, record.key), self.point, canvas)
        rank = f"cached factor, {factors.shape[-1]} numbers a token"
        return row_of({"photo": point_panel(image, self.point), "live teacher": told, rank: cached})

    def _labels(self, record: Record, column: Column, regions: Regions) -> Image.Image:
        if self.view >= regions.n_views:
            raise DenseCLIError(
                f"The regions of {column.name} have no view {self.view}.",
                hint=f"Choose one of 0 to {regions.n_views - 1}.",
            )
        thetas = [None] if self.theta is None else [None, self.theta]
        views = [retrieved_view(record, column, view=self.view, theta=theta) for theta in thetas]
        return contact_sheet(views)


def _crops(crops: Sequence[np.ndarray]) -> Image.Image:
    rows = -(-len(crops) // CROPS_A_ROW)
    sheet = Image.new("RGB", (CROPS_A_ROW * (CROP + GAP), rows * (CROP + GAP)), PAPER)
    for i, crop in enumerate(crops):
        row, column = divmod(i, CROPS_A_ROW)
        small = Image.fromarray(crop).resize((CROP, CROP), Image.Resampling.BICUBIC)
        sheet.paste(small, (column * (CROP + GAP), row * (CROP + GAP)))
    return sheet


def _titled(title: str, panel: Image.Image) -> Image.Image:
    sheet = Image.new("RGB", (panel.width + 2 * GAP, panel.height + 34 + GAP), PAPER)
    ImageDraw.Draw(sheet).text((GAP, GAP), title, INK, ImageFont.load_default(17))
    sheet.paste(panel, (GAP, 34))
    return sheet
