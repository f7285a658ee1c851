"""Tables of region classification: several models, or one model before and after training."""

from collections.abc import Mapping, Sequence

import numpy as np

from densecli.core.metrics import COUPLING_METRICS, REGION_METRICS
from densecli.core.page import Table
from densecli.core.tables import plain
from densecli.evaluation.coupling import Coupling
from densecli.evaluation.panoptic import absent_text
from densecli.evaluation.region_counts import Classification

_BY_SIZE = {"Boxes": "boxes_top1", "Masks-T": "masks_thing_top1", "Masks-S": "masks_stuff_top1"}
Results = Mapping[str, Classification]


def regions_table(results: Results) -> Table:
    """One row for each result, in percent, top-1 unless the heading says otherwise."""
    rows = [
        [_titled(name, result), *(_number(getattr(result, metric.field)) for metric in REGION_METRICS)]
        for name, result in results.items()
    ]
    note = _counts(next(iter(results.values())))
    return Table(
        title="Region classification",
        columns=["model", *(metric.heading for metric in REGION_METRICS)],
        rows=rows,
        note=note,
    )


def comparison(before: Classification, after: Classification) -> Table:
    """One row for each figure: before, after, and the change in percentage points."""
    rows = []
    for metric in REGION_METRICS:
        old, new = getattr(before, metric.field), getattr(after, metric.field)
        rows.append([metric.heading, _number(old), _number(new), _change(old, new)])
    columns = ["", _titled("before", before), _titled("after", after), "change"]
    return Table(title="Before and after", columns=columns, rows=rows, note=_counts(after))


def size_table(results: Results) -> Table:
    """One row for each result and each of COCO's segment sizes: small, medium and large."""
    rows = [
        [
            _titled(name, result),
            row.name,
            str(row.things),
            str(row.stuffs),
            *(_number(getattr(row, field)) for field in _BY_SIZE.values()),
        ]
        for name, result in results.items()
        for row in result.sizes
        if row.things or row.stuffs
    ]
    return Table(
        title="By size of the segment",
        columns=["model", "size", "things", "stuff", *_BY_SIZE],
        rows=rows,
        note="Percent, top-1. Small: less than 32² pixels of the photo; large: 96² and more.",
    )


def block_table(results: Results) -> Table:
    """One row for each result and kind of mask: the share that is right, and the kinds of the mistakes."""
    rows = []
    for name, result in results.items():
        thing = result.categories.thing_flags()
        for kind, selected in (("things", thing), ("stuff", ~thing)):
            predicted = result.confusion[selected]
            if total := predicted.sum():
                right = result.confusion.diagonal()[selected].sum()
                parts = [
                    predicted[:, :-1][:, thing].sum(),
                    predicted[:, :-1][:, ~thing].sum(),
                    predicted[:, -1].sum(),
                ]
                parts[0 if kind == "things" else 1] -= right
                shares = [_number(100 * part / total) for part in (right, *parts)]
                rows.append([_titled(name, result), kind, str(total), *shares])
    return Table(
        title="Things and stuff taken for each other",
        columns=["model", "masks of", "segments", "right", "another thing", "another stuff", "no token"],
        rows=rows,
        note="Percent of segments, not of classes: unlike above, frequent classes count more.",
    )


def class_table(
    result: Classification, before: Classification | None = None, limit: int | None = None
) -> Table:
    """One row for each class present: the worst masks first, and the more frequent class first among equals.

    Args:
        result: The result.
        before: An earlier result, whose mask accuracy is shown too.
        limit: Number of rows, by default all.
    """
    worst = sorted(result.classes, key=lambda row: (row.masks_top1, -row.segments, row.name))[:limit]
    earlier = {row.name: row for row in before.classes} if before else {}
    rows = []
    for row in worst:
        figures = [_number(row.boxes_top1)]
        if before:
            figures.append(_number(earlier[row.name].masks_top1))
        figures += [_number(row.masks_top1), ", ".join(mistaken_for(result, row.name))]
        rows.append([plain(row.name), "thing" if row.thing else "stuff", str(row.segments), *figures])
    masks = ["masks before", "masks after"] if before else ["masks top-1"]
    return Table(
        title="Classes, the worst first" if limit is None else "The worst classes",
        columns=[_titled("class", result), "kind", "segments", "boxes top-1", *masks, "mostly mistaken for"],
        rows=rows,
    )


def mistaken_for(result: Classification, name: str, limit: int = 2) -> Sequence[str]:
    """The classes that a class is most often mistaken for, each with its share of the masks in percent."""
    true = result.categories.names.index(name)
    row = result.confusion[true]
    wrong = np.where(np.arange(len(row)) == true, 0, row)
    names = [*result.categories.names, "(no token)"]
    return [
        f"{plain(names[c])} {100 * wrong[c] / row.sum():.0f}%"
        for c in np.argsort(-wrong, kind="stable")[:limit]
        if wrong[c]
    ]


def coupling_table(found: Mapping[str, Coupling]) -> Table:
    """One row for each network; found: coupling by title."""
    rows = [
        [
            f"{title} (random weights)" if each.random_weights else title,
            *(f"{getattr(each, metric.field):.3f}" for metric in COUPLING_METRICS),
        ]
        for title, each in found.items()
    ]
    columns = ["model", *(metric.heading for metric in COUPLING_METRICS)]
    return Table(
        title="Coupling",
        columns=columns,
        rows=rows,
        note="Coupling ratio: R-SC's eq. 15 over all tokens. Cross-segment similarity: mean cosine of tokens"
        " of different segments over that of tokens of one segment. Lower is better.",
    )


def _titled(name: str, result: Classification) -> str:
    return f"{name} (random weights)" if result.random_weights else name


def _counts(result: Classification) -> str:
    return (
        f"Percent; top-1 unless top-5 is named. {result.things} thing and {result.stuffs} stuff segments,"
        f" {len(result.classes)} classes present; {result.skipped} left out because of the box area,"
        f" {result.vanished} without a token"
        + "."
        + (f" {absent_text(result.absent)}" if result.absent else "")
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _change(old: float | None, new: float | None) -> str:
    return "-" if old is None or new is None else f"{new - old:+.1f}"
