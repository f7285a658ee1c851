"""Compares the labels of two P-VLMs: where they agree, how sure they are and what they cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from densecli.core.charts import WIDTH, Measured, line_chart
from densecli.core.page import RANDOM_WEIGHTS, Figure, Section, Table, write_page
from densecli.core.progress import Progress
from densecli.core.tables import size, table
from densecli.pipeline.mix import check_comparable, check_finished, find_labels
from densecli.pipeline.mixing import agreement, with_tail_spread
from densecli.shards.info import describe
from densecli.shards.joined import read_joined
from densecli.shards.parted_store import open_store
from densecli.shards.receipt_totals import describe_shards
from densecli.shards.store import Column, Store

PARTS = 10
"""Parts of the regions by confidence."""
CLASS_HEADS = ("category", "regions", "agreement", "else mostly")
SHOWN = 12
"""Classes that the text lists; the JSON has all."""


def compare_labels(root: str, one: str, other: str, samples: int) -> dict[str, Any]:
    """Compares two finished columns of labels on photos that are spread evenly over the store.

    Args:
        root: The store.
        one: Name of the first column, NAME or NAME-ID.
        other: Name of the second one.
        samples: Number of photos to compare.

    Returns:
        JSON values: `store`, `photos`, `regions`, `agreement` (share of the regions where both have the same
        most probable category), `mean_total_variation`, `thing_stuff_agreement`, `columns` (name, mean
        `confidence`, and `confidence_where_they_agree`, `share_of_things`, seconds of a photo, bytes a
        photo), `by_confidence` (for ten equal parts of the first column's regions by confidence: number,
        mean `confidence` and `agreement`), and `classes`: for each category of the first column its name,
        regions, share of agreement and the category that the second column names most often where it
        disagrees.

    Raises:
        DenseCLIError: A column is missing or not finished, or they are about different boxes or categories.
    """
    store = open_store(root)
    columns = [find_labels(store, name) for name in (one, other)]
    for column in columns:
        check_finished(column, store)
    check_comparable(*columns)
    names: list[str] = columns[0].spec["target"]["categories"]
    things = np.array(columns[0].spec["codec"]["things"])
    p = _distributions(columns, things, samples)
    photos, stacked = len(p), np.concatenate([np.zeros((2, 0, len(names))), *p], axis=1)
    best, top = stacked.argmax(axis=2), stacked.max(axis=2)
    same = agreement(stacked)
    count = np.zeros((len(names), len(names)), int)
    np.add.at(count, (best[0], best[1]), 1)
    return {
        "store": store.root,
        "photos": photos,
        "regions": len(same),
        "agreement": _mean(same),
        "thing_stuff_agreement": _mean(things[best[0]] == things[best[1]]),
        "mean_total_variation": _mean(np.abs(stacked[0] - stacked[1]).sum(axis=1) / 2),
        "columns": [
            {
                "name": column.full_name,
                "random_weights": column.random_weights,
                "confidence": _mean(top[i]),
                "confidence_where_they_agree": _mean(top[i][same]),
                "share_of_things": _mean(things[best[i]]),
                **_cost(store, column),
            }
            for i, column in enumerate(columns)
        ],
        "by_confidence": _by_confidence(top[0], same),
        "classes": [_class(names, number, count[number]) for number in _by_size(count)],
    }


def _distributions(columns: list[Column], things: np.ndarray, samples: int) -> list[np.ndarray]:
    """(2, R, D) for each of some photos."""
    there = describe_shards(columns[0])
    ends = np.cumsum(there.samples, dtype=int)
    total = int(ends[-1]) if len(ends) else 0
    places = np.unique(np.linspace(0, total - 1, min(samples, total)).round().astype(int))
    found, progress = [], Progress(len(places), "photos")
    shard_of = np.searchsorted(ends, places, side="right")
    for number in np.unique(shard_of):
        shard = columns[0].shard_names[there.shards[number]]
        opened = [read_joined([column], shard) for column in columns]
        for place in places[shard_of == number]:
            row = int(place - ends[number] + there.samples[number])
            stored = [c.codec.decode(o[row].arrays(c.part)) for o, c in zip(opened, columns, strict=True)]
            found.append(np.stack([with_tail_spread(each, things) for each in stored]))
            progress.advance(1)
    progress.close()
    return found


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _by_confidence(confidence: np.ndarray, same: np.ndarray) -> list[dict[str, Any]]:
    """Confidence and agreement of equal parts of the regions, least confident first."""
    order = np.argsort(confidence, kind="stable")
    return [
        {"regions": len(part), "confidence": _mean(confidence[part]), "agreement": _mean(same[part])}
        for part in np.array_split(order, PARTS)
        if len(part)
    ]


def write_comparison(found: Mapping[str, Any], folder: str) -> Path:
    """Writes a comparison as a page with a chart of agreement by confidence; returns its path."""
    first, second = (_name(found, i) for i in (0, 1))
    shares = found["by_confidence"]
    points = [Measured(str(n), *[100 * share["agreement"]] * 3) for n, share in enumerate(shares, start=1)]
    parts: list[Table | Figure] = [
        Table(title="The columns", columns=_column_heads(found), rows=_column_rows(found)),
        Table(
            title=f"By category of {first}",
            columns=CLASS_HEADS,
            rows=_class_rows(found["classes"]),
            note=f"The last column is what {second} says most often where it disagrees.",
        ),
    ]
    if points:
        chart = line_chart(
            {"agreement": points},
            x_label="tenth of the regions, least confident first",
            y_label=f"agreement with {second}, percent",
            full_scale=100,
            levels={"all regions": 100 * found["agreement"]},
        )
        confidence = ", ".join(f"{share['confidence']:.0%}" for share in shares)
        alt = "; ".join(f"tenth {point.setting}: {point.mean:.0f} %" for point in points)
        note = (
            f"Each point is a tenth of {found['regions']} regions of {found['photos']} photos; their mean "
            f"confidence by {first} is {confidence}. Where agreement is low is a place for theta."
        )
        parts.insert(1, Figure(title="Agreement by confidence", image=chart, alt=alt, note=note, width=WIDTH))
    random = any(column["random_weights"] for column in found["columns"])
    return write_page(
        Path(folder) / "index.html",
        f"{first} and {second}",
        [Section(title="Labels of two P-VLMs", parts=parts)],
        summary=_verdict(found),
        warning=RANDOM_WEIGHTS if random else "",
    )


def _by_size(count: np.ndarray) -> list[int]:
    """The classes that the first column names, most frequent first."""
    sizes = count.sum(axis=1)
    return [int(number) for number in np.argsort(-sizes, kind="stable") if sizes[number]]


def _class(names: list[str], number: int, row: np.ndarray) -> dict[str, Any]:
    others = row.copy()
    others[number] = 0
    return {
        "name": names[number],
        "regions": int(row.sum()),
        "agreement": float(row[number] / row.sum()),
        "mostly_called": names[int(others.argmax())] if others.any() else None,
    }


def _cost(store: Store, column: Column) -> Mapping[str, float | None]:
    [facts] = describe(store, columns=[column])["columns"]
    samples = facts["samples"] or 1
    return {"seconds_a_photo": facts["seconds"]["total"] / samples, "bytes_a_photo": facts["bytes"] / samples}


def report(found: Mapping[str, Any]) -> str:
    """Formats the result of `compare_labels` as text."""
    more = len(found["classes"]) - SHOWN
    return "\n".join(
        [
            table([_column_heads(found), *_column_rows(found)]),
            "",
            f"By category of {_name(found, 0)}, and what {_name(found, 1)} mostly says where it disagrees:",
            table([CLASS_HEADS, *_class_rows(found["classes"][:SHOWN])]),
            *([f"and {more} more categories (--json and --report have all)"] if more > 0 else []),
            "",
            _verdict(found),
        ]
    )


def _verdict(found: Mapping[str, Any]) -> str:
    if not found["regions"]:
        return "The photos have no regions."
    return (
        f"The two agree on {_percent(found['agreement'])} of {found['regions']} regions of {found['photos']} "
        f"photos, and on thing or stuff on {_percent(found['thing_stuff_agreement'])}; their mean total "
        f"variation is {found['mean_total_variation']:.3f}."
    )


def _column_heads(found: Mapping[str, Any]) -> list[str]:
    return ["", *(_name(found, i) for i in (0, 1))]


def _column_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """A row for each figure: with a column for each P-VLM it fits a phone."""
    columns = found["columns"]
    return [
        ["confidence", *(_percent(c["confidence"]) for c in columns)],
        ["confidence where both agree", *(_percent(c["confidence_where_they_agree"]) for c in columns)],
        ["called things", *(_percent(c["share_of_things"]) for c in columns)],
        ["time a photo", *(f"{c['seconds_a_photo'] * 1e3:.1f} ms" for c in columns)],
        ["bytes a photo", *(size(c["bytes_a_photo"]) for c in columns)],
    ]


def _name(found: Mapping[str, Any], i: int) -> str:
    """A column's name, with its id only where both have the same name."""
    column, other = found["columns"][i], found["columns"][1 - i]
    short = str(column["name"]).rpartition("-")[0]
    same = bool(short == other["name"].rpartition("-")[0])
    random = " (random weights)" if column["random_weights"] else ""
    return (str(column["name"]) if same else short) + random


def _class_rows(classes: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [each["name"], str(each["regions"]), _percent(each["agreement"]), each["mostly_called"] or ""]
        for each in classes
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
