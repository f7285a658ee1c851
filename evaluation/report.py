"""Region classification in print: one row a model, or one model before and after."""

from collections.abc import Mapping

from evaluation.classify import Classification
from shards.table import table

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


def report(results: Mapping[str, Classification]) -> str:
    """A table with one row for each named result: percent, top-1 where not said otherwise."""
    rows = [["model", *FIGURES]]
    for name, result in results.items():
        rows.append([_titled(name, result), *(_number(getattr(result, field)) for field in FIGURES.values())])
    return table(rows) + "\n" + _counts(next(iter(results.values())))


def comparison(before: Classification, after: Classification) -> str:
    """A table with one row for each figure: before, after and the change in points."""
    rows = [["", _titled("before", before), _titled("after", after), "change"]]
    for heading, field in FIGURES.items():
        old, new = getattr(before, field), getattr(after, field)
        change = "-" if old is None or new is None else f"{new - old:+.1f}"
        rows.append([heading, _number(old), _number(new), change])
    return table(rows) + "\n" + _counts(after)


def class_table(result: Classification) -> str:
    """A table with one row for each class present, the worst masks first."""
    rows = [[_titled("class", result), "kind", "segments", "boxes top-1", "masks top-1"]]
    for row in sorted(result.classes, key=lambda row: (row.masks_top1, row.name)):
        figures = [_number(row.boxes_top1), _number(row.masks_top1)]
        rows.append([row.name, "thing" if row.thing else "stuff", str(row.segments), *figures])
    return table(rows)


def coupling_table(ratios: Mapping[str, float]) -> str:
    """A table of coupling ratios by title."""
    return table([["", "coupling ratio"], *([title, f"{ratio:.3f}"] for title, ratio in ratios.items())])


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
