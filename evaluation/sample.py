"""One sample of a store in pictures: a panel for each of its target columns."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evaluation.affinity import Point, affinity_panel
from evaluation.preview import GAP, INK, PAPER, contact_sheet
from evaluation.retrieved import retrieved_view
from shards.errors import DenseCLIError
from shards.geometry import Canvas
from shards.quantise import dequantise
from shards.reader import Record, decode_image, decode_npz, read_joined
from shards.regions import Regions
from shards.store import Column, Store

CROP, CROPS_A_ROW = 96, 8  # px; pictures


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


def picture(store: Store, columns: Sequence[Column], key: str, *, view: int, point: Point) -> Image.Image:
    """What each of the target columns says of a photo, one below the other.

    labels: the cells of view `view`; a map of tokens: affinities to `point`, x and y in 0..1 of the photo;
    crops: the crops that were asked about. Raises DenseCLIError for a view that there is not.
    """
    panels = []
    for column in columns:
        of_boxes = store.regions_of(column) if "regions" in column.spec else None
        record = find_record(store, [c for c in (of_boxes, column) if c], key)
        panels.append(
            _titled(
                f"{column.name}: {column.spec['target']['name']}", _panel(store, record, column, view, point)
            )
        )
    sheet = Image.new("RGB", (max(p.width for p in panels), sum(p.height for p in panels)), PAPER)
    y = 0
    for panel in panels:
        sheet.paste(panel, (0, y))
        y += panel.height
    return sheet


def _panel(store: Store, record: Record, column: Column, view: int, point: Point) -> Image.Image:
    stored = decode_npz(record.parts[column.part]["npz"])
    image = decode_image(record.parts["images"]["jpg"])
    canvas = Canvas(store.canvas)
    if "grid" in stored:
        height, width = stored["grid"].tolist()
        return affinity_panel(image, dequantise(stored).reshape(height, width, -1), point, canvas)
    regions = Regions(**decode_npz(record.parts["regions"]["npz"]))
    if "views" in stored:
        crop = column.spec["target"].get("crop", {"side": CROP, "context": 1.0})
        cells = [cell for view in stored["views"] for cell in regions.view(view)]
        return _crops([canvas.crop(image, regions.boxes[c], crop["side"], crop["context"]) for c in cells])
    if view >= regions.n_views:
        raise DenseCLIError(
            f"The regions of {column.name} have no view {view}.",
            hint=f"Choose one of 0 to {regions.n_views - 1}.",
        )
    return contact_sheet([retrieved_view(record, column, view=view, title=record.key)])


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
