"""Compares the labels of two P-VLMs: where they agree, how sure they are and what they cost."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from densecli.core.progress import Progress
from densecli.core.tables import table
from densecli.pipeline.mix import check_comparable, check_finished, find_labels
from densecli.pipeline.mixing import agreement, with_tail_spread
from densecli.shards.info import describe
from densecli.shards.joined import read_joined
from densecli.shards.parted_store import open_store
from densecli.shards.receipt_totals import describe_shards
from densecli.shards.store import Column, Store

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
        photo), and `classes`: for each category of the first column its name, regions, share of agreement
        and the category that the second column names most often where it disagrees.

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
    columns = [
        [
            column["name"] + (" (random weights)" if column["random_weights"] else ""),
            _percent(column["confidence"]),
            _percent(column["confidence_where_they_agree"]),
            _percent(column["share_of_things"]),
            f"{column['seconds_a_photo'] * 1e3:.1f} ms",
            f"{column['bytes_a_photo'] / 1e3:.1f} kB",
        ]
        for column in found["columns"]
    ]
    heads = ["column", "confidence", "where both agree", "things", "time a photo", "bytes a photo"]
    classes = [
        [each["name"], str(each["regions"]), _percent(each["agreement"]), each["mostly_called"] or ""]
        for each in found["classes"][:SHOWN]
    ]
    first, second = (column["name"] for column in found["columns"])
    more = len(found["classes"]) - len(classes)
    return "\n".join(
        [
            table([heads, *columns]),
            "",
            table([[first, "regions", "agreement", f"else {second} mostly says"], *classes]),
            *([f"and {more} more categories (--json has all)"] if more else []),
            "",
            f"The two agree on {_percent(found['agreement'])} of {found['regions']} regions of "
            f"{found['photos']} photos, and on thing or stuff on {_percent(found['thing_stuff_agreement'])}; "
            f"their mean total variation is {found['mean_total_variation']:.3f}."
            if found["regions"]
            else "The photos have no regions.",
        ]
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
