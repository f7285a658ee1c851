"""Pictures of what a store holds for one photo: cells with their labels, affinities to a point, crops.

Things have thick orange frames and stuff thin blue ones, which can be told apart in a grey print too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps

from densecli.core import drawing
from densecli.core.drawing import GAP, INK, PAPER, STUFF, THING
from densecli.core.errors import DenseCLIError
from densecli.core.tables import plain
from densecli.models.affinity import Point, TokenMap, affinity_panel, affinity_row, point_panel
from densecli.shards.find_shard import find_shard
from densecli.shards.geometry import Canvas
from densecli.shards.joined import Record, read_joined
from densecli.shards.kinds import KINDS
from densecli.shards.store import Column, Store

TINT, VEIL = 0.3, 0.75
TYPE_SIZES = (22, 18, 16, 14, 12)
CROP_SIDE, CROPS_PER_ROW = 96, 8
VIEW = 6
"""The view that is drawn where none is named: of grid-paper, one with cells of middle size."""
LiveTeacher = Callable[[Column, str], np.ndarray]
"""Runs the teacher of a column of token maps on the photo of a key; returns its map, (h, w, C)."""


@dataclass(frozen=True, kw_only=True)
class View:
    """The regions of one view of a photo, with a label for each.

    Attributes:
        image: (H, W, 3) uint8, the photo at canvas scale, padded or not.
        boxes: (N, 4) float32 xyxy normalised to the canvas.
        masks: (H, W) bool for each, or None for one that covers its box; empty if all do.
        labels: N names.
        thing: N flags, False for stuff.
        confidence: N numbers in 0..1.
        title: Drawn above the photo.
        kept: Which cells the loss uses, all by default; the others are drawn faint and without a label.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: Sequence[str]
    thing: Sequence[bool]
    confidence: Sequence[float]
    title: str = ""
    kept: Sequence[bool] | None = None
    masks: Sequence[np.ndarray | None] = ()


@dataclass(frozen=True, kw_only=True)
class PreviewRequest:
    """What `draw_preview` draws.

    Attributes:
        key: Key of the photo.
        view: Number of the view whose cells are drawn; None for `VIEW`, or the last one if a photo has fewer.
        point: Point of the photo whose affinities are drawn.
        theta: If given, the cells are also drawn as DenseVLM denoises them with this threshold.
        live_teacher: If given, its token maps are drawn beside the stored ones.
        students: Dense maps of models by the title of their panel, drawn first.
    """

    key: str
    view: int | None
    point: Point
    theta: float | None = None
    live_teacher: LiveTeacher | None = None
    students: Mapping[str, TokenMap] | None = None


def draw_preview(store: Store, columns: Sequence[Column], request: PreviewRequest) -> Image.Image:
    """Draws what target columns hold for a photo, one panel below the other.

    Args:
        store: The store of the columns.
        columns: Target columns of any kind: labels, token maps, crops.
        request: The photo, and what is drawn.

    Raises:
        DenseCLIError: There is no such photo or view.
    """
    panels = []
    shard = find_shard(store, request.key)
    if request.students:
        image = _read_record(store, [], request.key, shard).image()
        students = affinity_row(request.students, image, request.point, Canvas(store.canvas))
        panels.append(drawing.framed("student", students))
    for column in columns:
        of_boxes = store.regions_of(column) if column.regions_key else None
        record = _read_record(store, [c for c in (of_boxes, column) if c], request.key, shard)
        panel = _column_panel(record, column, Canvas(store.canvas), request)
        panels.append(drawing.framed(f"{column.name}: {column.target_kind}", panel))
    return drawing.column(panels)


def find_record(store: Store, columns: Sequence[Column], key: str) -> Record:
    """Reads one sample by its key: the photo, and what `columns` hold for it.

    Raises:
        DenseCLIError: There is no such sample, or its shard is not built yet.
    """
    return _read_record(store, columns, key, find_shard(store, key))


def _read_record(store: Store, columns: Sequence[Column], key: str, shard: str) -> Record:
    return next(record for record in read_joined([store.images, *columns], shard) if record.key == key)


def retrieved_views(
    store: Store, labels: Column, *, view: int, limit: int, theta: float | None = None
) -> list[View]:
    """The cells of one view in each of the first `limit` photos, with the label retrieved for each cell.

    Args:
        store: The store of the column.
        labels: A column of retrieval targets.
        view: Number of the view in the column's region plan.
        limit: Number of photos.
        theta: See `retrieved_view`.
    """
    views: list[View] = []
    for shard in store.shard_names:
        for record in read_joined([store.images, store.regions_of(labels), labels], shard):
            if len(views) == limit:
                return views
            views.append(retrieved_view(record, labels, view=view, theta=theta))
    return views


def retrieved_view(record: Record, labels: Column, *, view: int, theta: float | None = None) -> View:
    """The cells of one view of a photo, with the label retrieved for each cell.

    Args:
        record: The photo with its regions and its part of `labels`.
        labels: A column of retrieval targets.
        view: Number of the view in the column's region plan.
        theta: If given, cells are denoised as in DenseVLM (eqs. 3 and 4): those whose highest probability is
            above theta are kept, and their probabilities are among categories of their kind alone.

    Raises:
        DenseCLIError: The column does not hold this view of the photo.
    """
    names, things = labels.spec["target"]["categories"], labels.spec["codec"]["things"]
    cells, stored = record.regions(), record.arrays(labels.part)
    rows = cells.view(view)
    views = stored.get("views", np.arange(cells.n_views))
    if view not in views:
        raise DenseCLIError(
            f"{labels.name} has no labels of view {view} of {record.key}.",
            hint=f"Choose one of {', '.join(map(str, sorted(views.tolist())))}.",
        )
    # The cells of the views before it, in the order in which views are stored.
    first = sum(len(cells.view(each)) for each in views[: views.tolist().index(view)])
    p = labels.codec.decode(stored, np.arange(first, first + len(rows)))
    best, kept = p.argmax(1), None
    if theta is not None:
        kept = (p.max(1) > theta).tolist()
        # The last two columns are the tail masses of things and of stuff.
        kind = np.array([*things, True, False])
        p = p / np.where(kind[best][:, None], p[:, kind].sum(1, keepdims=True), 1)
    masks: list[np.ndarray | None] = []
    if cells.masks:
        with record.reading("regions"):
            masks = [cells.masks.bitmap(row) for row in rows]
    return View(
        image=record.image(),
        boxes=cells.boxes[rows],
        labels=[names[i] for i in best],
        thing=[things[i] for i in best],
        confidence=p.max(1).tolist(),
        title=record.key if theta is None else f"{record.key}: kept by theta {theta:g}",
        kept=kept,
        masks=masks,
    )


def contact_sheet(views: Sequence[View], columns: int = 3, min_side: int = 480) -> Image.Image:
    """Draws photos with their cells and titles in rows, above one legend.

    Args:
        views: At least one.
        columns: Photos a row.
        min_side: Smaller photos are enlarged until their short side has this many pixels.
    """
    panels = [_view_panel(view, min_side) for view in views]
    rows = [drawing.row(panels[i : i + columns]) for i in range(0, len(panels), columns)]
    photos = drawing.column(rows, gap=GAP)
    legend = _legend(photos.width, any(view.kept is not None for view in views))
    sheet = Image.new("RGB", (photos.width + 2 * GAP, photos.height + legend.height + 3 * GAP), PAPER)
    sheet.paste(photos, (GAP, GAP))
    sheet.paste(legend, (GAP, photos.height + 2 * GAP))
    return sheet


def _column_panel(record: Record, column: Column, canvas: Canvas, request: PreviewRequest) -> Image.Image:
    stored = record.arrays(column.part)
    image = record.image()
    layout = KINDS[column.target_kind].layout
    if layout == "map":
        height, width = stored["grid"].tolist()
        # Of a low-rank codec, factors with the tokens' cosines.
        tokens = column.codec.decode(stored).reshape(height, width, -1)
        return _token_map_panel(column, image, tokens, canvas, request)
    if layout == "image":
        whole = canvas.valid_box(*image.shape[1::-1])
        return _crops_panel([canvas.crop(image, whole, column.spec["target"]["crop"]["side"])])
    regions = record.regions()
    chosen = min(VIEW, regions.n_views - 1) if request.view is None else request.view
    if layout == "cells" and chosen >= regions.n_views:
        last = regions.n_views - 1
        raise DenseCLIError(
            f"The regions of {column.name} have no view {chosen}.",
            hint=f"Choose one of 0 to {last}." if last else "They have view 0 alone.",
        )
    if "categories" not in column.spec["target"]:
        crop = column.spec["target"].get("crop")
        side, context = (crop["side"], crop["context"]) if crop else (CROP_SIDE, 1.0)
        views = stored["views"] if layout == "views" else [chosen]
        boxes = [regions.boxes[cell] for view in views for cell in regions.view(view)]
        return _crops_panel([canvas.crop(image, box, side, context) for box in boxes])
    thetas = [None] if request.theta is None else [None, request.theta]
    views = stored["views"].tolist() if layout == "views" else [chosen]
    return contact_sheet(
        [retrieved_view(record, column, view=view, theta=theta) for view in views for theta in thetas]
    )


def _token_map_panel(
    column: Column, image: np.ndarray, tokens: np.ndarray, canvas: Canvas, request: PreviewRequest
) -> Image.Image:
    cached = affinity_panel(image, tokens, request.point, canvas)
    if request.live_teacher is None:
        return cached
    live = affinity_panel(image, request.live_teacher(column, request.key), request.point, canvas)
    title = f"from the store, {tokens.shape[-1]} numbers a token"
    return drawing.side_by_side(
        {"photo": point_panel(image, request.point), "live teacher": live, title: cached}
    )


def _crops_panel(crops: Sequence[np.ndarray]) -> Image.Image:
    small = [Image.fromarray(c).resize((CROP_SIDE, CROP_SIDE), Image.Resampling.BICUBIC) for c in crops]
    rows = [drawing.row(small[i : i + CROPS_PER_ROW]) for i in range(0, len(small), CROPS_PER_ROW)]
    return drawing.column(rows, gap=GAP)


def _view_panel(view: View, min_side: int) -> Image.Image:
    photo = Image.fromarray(view.image)
    scale = max(1.0, min_side / min(photo.size))
    photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BICUBIC)
    # The longest side is the canvas's side at every scale.
    boxes = Canvas(max(photo.size)).to_image(np.asarray(view.boxes, np.float32), *photo.size)
    cells = [tuple(round(float(v)) for v in box) for box in boxes]
    rows = [i for i in range(len(cells)) if view.kept is None or view.kept[i]]
    colours = [THING if view.thing[i] else STUFF for i in rows]
    shapes = [_shape(cell, view.masks[i] if view.masks else None, photo.size) for i, cell in enumerate(cells)]
    dropped = Image.new("L", photo.size)
    for i in set(range(len(cells))) - set(rows):
        dropped.paste(255, mask=shapes[i])
    photo = Image.composite(Image.blend(photo, Image.new("RGB", photo.size, PAPER), VEIL), photo, dropped)
    tint = photo.copy()
    for i, colour in zip(rows, colours, strict=True):
        tint.paste(colour, mask=shapes[i])
    photo = Image.blend(photo, tint, TINT)
    draw = ImageDraw.Draw(photo)
    shown = [cells[i] for i in rows]
    words = [[_label_words(view.labels[i]), [f"{view.confidence[i]:.0%}"]] for i in rows]
    rooms = [(x1 - x0 - 14, y1 - y0 - 12) for x0, y0, x1, y1 in shown]
    texts, size = drawing.fit_text(words, rooms, TYPE_SIZES)
    font, halo = ImageFont.load_default(size), round(size / 10)
    for i, colour in zip(rows, colours, strict=True):
        frame = 4 if colour == THING else 2
        # A white hairline, so that a frame shows on a photo of its own colour.
        for inner, outer, line in ((0, frame, colour), (frame, frame + 1, PAPER)):
            photo.paste(line, mask=ImageChops.subtract(_shrunk(shapes[i], inner), _shrunk(shapes[i], outer)))
    for (x0, y0, x1, y1), text in zip(shown, texts, strict=True):
        centre = ((x0 + x1) / 2, (y0 + y1) / 2)
        draw.multiline_text(centre, text, PAPER, font, "mm", 2, "center", stroke_width=halo, stroke_fill=INK)
    return drawing.titled(view.title, photo) if view.title else photo


def _shape(cell: tuple[int, ...], mask: np.ndarray | None, size: tuple[int, int]) -> Image.Image:
    """The pixels of a region: its mask, else its box."""
    if mask is not None:
        return Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)
    shape = Image.new("L", size)
    x0, y0, x1, y1 = cell
    ImageDraw.Draw(shape).rectangle((x0 + 1, y0 + 1, max(x0 + 1, x1 - 2), max(y0 + 1, y1 - 2)), fill=255)
    return shape


def _shrunk(shape: Image.Image, pixels: int) -> Image.Image:
    """A shape without its outermost pixels; the edge of the photo is an edge, too."""
    if not pixels:
        return shape
    padded = ImageOps.expand(shape, pixels).filter(ImageFilter.MinFilter(2 * pixels + 1))
    return padded.crop((pixels, pixels, pixels + shape.width, pixels + shape.height))


def _label_words(label: str) -> list[str]:
    """The words of a category's first name."""
    return plain(label).split(",")[0].replace("-", "- ").split()


def _legend(width: int, filtered: bool) -> Image.Image:
    legend = Image.new("RGB", (width, 26), PAPER)
    draw = ImageDraw.Draw(legend)
    font = ImageFont.load_default(16)
    x = 0
    for colour, line, text in ((THING, 4, "thing"), (STUFF, 2, "stuff")):
        faint = tuple(round(255 + TINT * (c - 255)) for c in colour)
        draw.rectangle((x, 2, x + 30, 22), fill=faint, outline=colour, width=line)
        draw.text((x + 38, 12), text, INK, font, "lm")
        x += 60 + round(font.getlength(text))
    text = "label and confidence of each region" + ("; faint ones are not used" if filtered else "")
    draw.text((x, 12), drawing.shorten(text, font, width - x), INK, font, "lm")
    return legend
