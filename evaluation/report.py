"""Region classification in tables: one row a model, or one model before and after."""

from collections.abc import Mapping, Sequence

import numpy as np

from densecli.evaluation.page import Table
from densecli.evaluation.region_counts import Classification

# Heading -> field of Classification, in the papers' order.
FIGURES = {
    "Boxes": "boxes_top1",
    "Boxes top-5": "boxes_top5",
    "Masks-T": "masks_thing_top1",
    "Masks-T top-5": "masks_thing_top5",
    "Masks-S": "masks_stuff_top1",
    "Masks-S top-5": "masks_stuff_top5",
    "stuff as thing": "stuff_as_thing",
}
# Heading -> field of Segmentation or ZeroShot.
OTHER_FIGURES = {
    "mIoU": "miou",
    "pixel accuracy": "pixel_accuracy",
    "mean accuracy": "mean_accuracy",
    "top-1": "top1",
    "top-5": "top5",
}
_BY_SIZE = {"Boxes": "boxes_top1", "Masks-T": "masks_thing_top1", "Masks-S": "masks_stuff_top1"}
Results = Mapping[str, Classification]


def regions_table(results: Results) -> Table:
    """One row for each named result: percent, top-1 where not said otherwise."""
    rows = [
        [_titled(name, result), *(_number(getattr(result, field)) for field in FIGURES.values())]
        for name, result in results.items()
    ]
    note = _counts(next(iter(results.values())))
    return Table(title="Region classification", columns=["model", *FIGURES], rows=rows, note=note)


def comparison(before: Classification, after: Classification) -> Table:
    """One row for each figure: before, after and the change in points."""
    rows = []
    for heading, field in FIGURES.items():
        old, new = getattr(before, field), getattr(after, field)
        rows.append([heading, _number(old), _number(new), _change(old, new)])
    columns = ["", _titled("before", before), _titled("after", after), "change"]
    return Table(title="Before and after", columns=columns, rows=rows, note=_counts(after))


def size_table(results: Results) -> Table:
    """One row for each result and size of segment: COCO's small, medium and large."""
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
    """One row for each result and kind of mask: how many are called right, and of which kind the others."""
    rows = []
    for name, result in results.items():
        thing = result.categories.thing_flags()
        for kind, of in (("things", thing), ("stuff", ~thing)):
            called = result.confusion[of]
            if total := called.sum():
                right = result.confusion.diagonal()[of].sum()
                parts = [called[:, :-1][:, thing].sum(), called[:, :-1][:, ~thing].sum(), called[:, -1].sum()]
                parts[0 if kind == "things" else 1] -= right
                shares = [_number(100 * part / total) for part in (right, *parts)]
                rows.append([_titled(name, result), kind, str(total), *shares])
    return Table(
        title="Things and stuff taken for each other",
        columns=["model", "masks of", "segments", "right", "another thing", "another stuff", "no token"],
        rows=rows,
        note="Percent of the segments, each counted once: classes with many segments count more than above.",
    )


def class_table(
    result: Classification, before: Classification | None = None, limit: int | None = None
) -> Table:
    """One row for each class present, the worst masks first, of equals the most frequent: the first `limit`,
    and `before` beside them."""
    worst = sorted(result.classes, key=lambda row: (row.masks_top1, -row.segments, row.name))[:limit]
    earlier = {row.name: row for row in before.classes} if before else {}
    rows = []
    for row in worst:
        figures = [_number(row.boxes_top1)]
        if before:
            figures.append(_number(earlier[row.name].masks_top1))
        figures += [_number(row.masks_top1), ", ".join(mistaken_for(result, row.name))]
        rows.append([row.name, "thing" if row.thing else "stuff", str(row.segments), *figures])
    masks = ["masks before", "masks after"] if before else ["masks top-1"]
    return Table(
        title="Classes, the worst first" if limit is None else "The worst classes",
        columns=[_titled("class", result), "kind", "segments", "boxes top-1", *masks, "mostly mistaken for"],
        rows=rows,
    )


def mistaken_for(result: Classification, name: str, limit: int = 2) -> Sequence[str]:
    """The classes that most of a class's masks are called wrongly, with their share in percent."""
    true = result.categories.names.index(name)
    row = result.confusion[true]
    wrong = np.where(np.arange(len(row)) == true, 0, row)
    names = [*result.categories.names, "(no token)"]
    return [
        f"{names[c]} {100 * wrong[c] / row.sum():.0f}%"
        for c in np.argsort(-wrong, kind="stable")[:limit]
        if wrong[c]
    ]


def coupling_table(ratios: Mapping[str, float]) -> Table:
    """Coupling ratios by title."""
    rows = [[title, f"{ratio:.3f}"] for title, ratio in ratios.items()]
    return Table(title="Coupling", columns=["", "coupling ratio"], rows=rows)


def _titled(name: str, result: Classification) -> str:
    return f"{name} (random weights)" if result.random_weights else name


def _counts(result: Classification) -> str:
    return (
        f"Percent, top-1 where not said. {result.things} thing and {result.stuffs} stuff segments,"
        f" {len(result.classes)} classes present; {result.skipped} left out by box area,"
        f" {result.vanished} without a token."
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _change(old: float | None, new: float | None) -> str:
    return "-" if old is None or new is None else f"{new - old:+.1f}"
