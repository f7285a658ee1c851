"""Describes what a store holds and how it was built, from its receipts."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from densecli.core import fs
from densecli.core.find import find
from densecli.core.passed_over import PassedOver, in_words
from densecli.core.tables import counted, size, table
from densecli.shards.column import Column
from densecli.shards.keys import canonical_json
from densecli.shards.manifest import ErrorTotals
from densecli.shards.receipt_totals import describe_shards
from densecli.shards.store import Store

PASSED_OVER = "index/passed-over.json"
"""Where a store keeps what the listing of its photos left out."""

SHOWN = 5
"""Unfinished stores that are named."""

WITHOUT_MANIFEST = "The receipts were read one by one; running their build again writes a manifest."
"""What is said of finished columns that have none."""


def remember_passed_over(store: Store, document: Mapping[str, Any]) -> None:
    """Writes down what the listing of the photos left out, if it left out anything now or before.

    Args:
        store: Store of the photos.
        document: See `PassedOver.document`.
    """
    if document != passed_over(store):
        fs.write_atomic(fs.join(store.root, PASSED_OVER), canonical_json(document))


def passed_over(store: Store) -> dict[str, Any]:
    """The files that the listing of photos left out; see `PassedOver.document`."""
    try:
        found = PassedOver.from_json(fs.read_bytes(fs.join(store.root, PASSED_OVER)))
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        # The next build writes it again.
        return {"unknown: its list is damaged": {"count": 1, "first": [PASSED_OVER]}}
    return found.document()


def describe(
    store: Store,
    advance: Callable[[int], None] = lambda shards: None,
    *,
    columns: Sequence[Column] | None = None,
) -> dict[str, Any]:
    """Describes a store: from the manifests of its columns, or from the receipts where there is none.

    Args:
        store: To describe.
        advance: Called with the number of shards that were just counted.
        columns: All columns of the store, photos first, if they are open already.

    Returns:
        JSON values: `dataset`, `canvas`, `shards`, `planned` photos, photos `skipped` by reason, files
        that the listing has `passed_over`, `complete`,
        `bytes` on disk and of them the `index_bytes` that builds keep of the data's listing, and `columns`.
        Each column has kind, name, id, the teacher's `info`, samples, shards and missing shards, bytes,
        whether it has a `manifest`, whether it is `computed` and needs none, `seconds` by stage with their
        total, `gpu_seconds`, `images_per_second` of one worker, and the codec's `error`, the largest or the
        mean over its shards.

    Raises:
        DenseCLIError: A manifest or a receipt is damaged.
    """
    described: list[dict[str, Any]] = []
    skipped = Counter[str]()
    for column in columns or (store.images, *store.columns()):
        if column.computed:
            advance(len(column.shard_names))
            described.append(_describe_computed(column, described[0]["samples"]))
            continue
        each, lost = _describe(column, advance)
        described.append(each)
        skipped.update(lost)
    index = sum(entry.size for entry in find(fs.join(store.root, "index")).values() if not entry.is_folder)
    return {
        "store": store.root,
        "dataset": store.dataset,
        "canvas": store.canvas,
        "shards": len(store.shard_names),
        "planned": sum(store.shard_sizes),
        "skipped": dict(skipped),
        "passed_over": passed_over(store),
        "complete": not any(column["missing"] for column in described),
        "bytes": sum(c["bytes"] for c in described)
        + fs.file(fs.join(store.root, "store.json")).bytes
        + index,
        "index_bytes": index,
        "columns": described,
    }


def _describe(column: Column, advance: Callable[[int], None]) -> tuple[dict[str, Any], Mapping[str, int]]:
    there = describe_shards(column, advance)
    totals, samples = there.totals, int(there.samples.sum())
    run = totals["run"]
    total = sum(run["seconds"].values())
    described = {
        "kind": column.kind,
        "name": column.name,
        "id": column.id,
        **({"precision": column.precision} if column.kind == "targets" else {}),
        "info": column.info,
        "shards": len(column.shard_names),
        "missing": len(column.shard_names) - len(there.shards),
        "manifest": bool(there.file_bytes),
        "computed": False,
        "samples": samples,
        "bytes": int(there.tar_bytes.sum()) + run["receipt_bytes"] + there.file_bytes + _described_in(column),
        "seconds": {
            **{stage: round(s, 3) for stage, s in run["seconds"].items()},
            "total": round(total, 3),
        },
        "gpu_seconds": round(run["gpu_seconds"], 3),
        "images_per_second": round(samples / total, 2) if total else None,
        "error": totals["error"],
    }
    return described, totals["skipped"]


def _describe_computed(column: Column, samples: int) -> dict[str, Any]:
    """Boxes that readers compute: as many as there are photos, and no bytes but those of the description."""
    return {
        "kind": column.kind,
        "name": column.name,
        "id": column.id,
        "info": column.info,
        "shards": len(column.shard_names),
        "missing": 0,
        "manifest": False,
        "computed": True,
        "samples": samples,
        "bytes": _described_in(column),
        "seconds": {"total": 0.0},
        "gpu_seconds": 0.0,
        "images_per_second": None,
        "error": {},
    }


def _described_in(column: Column) -> int:
    """Bytes of a column's description; the photos have none."""
    return 0 if column.kind == "images" else fs.file(fs.join(column.url, "column.json")).bytes


def combined(root: str, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several stores, or the parts of one, hold together: as `describe` says it of one.

    Columns of the same kind, name, precision and random weights are added up: the ids of parts differ, so
    they have none here. `error` has the largest of maxima, and of other figures the mean over samples. A
    column that a part lacks counts as missing all its shards there.

    Args:
        root: Their address.
        parts: What `describe` says of each.
    """
    columns: dict[tuple[Any, ...], dict[str, Any]] = {}
    errors: dict[tuple[Any, ...], ErrorTotals] = {}
    skipped, passed = Counter[str](), PassedOver()
    shards = sum(part["shards"] for part in parts)
    without: dict[tuple[Any, ...], int] = {}
    for part in parts:
        skipped.update(part["skipped"])
        passed.update(PassedOver.from_json(canonical_json(part["passed_over"])))
        here = set()
        for column in part["columns"]:
            random = bool(column["info"].get("random_weights"))
            place = (column["kind"], column["name"], column.get("precision"), random)
            empty = {"shards": 0, "missing": 0, "samples": 0, "bytes": 0, "gpu_seconds": 0.0}
            here.add(place)
            without.setdefault(place, shards)
            sums = columns.setdefault(
                place, {**column, "id": "", "seconds": Counter(), "manifest": True, **empty}
            )
            for name in empty:
                sums[name] += column[name]
            sums["seconds"].update(column["seconds"])
            sums["manifest"] = sums["manifest"] and column["manifest"]
            errors.setdefault(place, ErrorTotals()).add(column["error"], column["samples"])
        for place in here:
            without[place] -= part["shards"]
    for place, column in columns.items():
        seconds = column["seconds"]["total"]
        column |= {
            "shards": column["shards"] + without[place],
            "missing": column["missing"] + without[place],
            "seconds": {stage: round(spent, 3) for stage, spent in column["seconds"].items()},
            "images_per_second": round(column["samples"] / seconds, 2) if seconds else None,
            "error": errors[place].totals(),
        }
    names = list(dict.fromkeys(_data(part["dataset"]) for part in parts))
    return {
        "store": root,
        "dataset": parts[0]["dataset"] if len(names) == 1 else {"name": " + ".join(names)},
        "canvas": parts[0]["canvas"],
        "shards": shards,
        "planned": sum(part["planned"] for part in parts),
        "skipped": dict(skipped),
        "passed_over": passed.document(),
        "complete": not any(column["missing"] for column in columns.values()),
        "bytes": sum(part["bytes"] for part in parts),
        "index_bytes": sum(part["index_bytes"] for part in parts),
        "columns": list(columns.values()),
    }


def parts_text(parts: Sequence[Mapping[str, Any]]) -> str:
    """How many stores there are, and which of them are not finished."""
    left = [part["store"] for part in parts if not part["complete"]]
    more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    finished = f"not finished: {', '.join(left[:SHOWN])}{more}" if left else "all finished"
    return f"{len(parts)} stores, {finished}. densecli info {parts[0]['store']} shows the first alone."


def report(described: dict[str, Any]) -> str:
    """Formats the result of `describe` as text."""
    columns = described["columns"]
    lines = [
        f"{described['store']}: {_data(described['dataset'])}, canvas {described['canvas']}, "
        f"{counted(described['planned'], 'photo')} planned in {counted(described['shards'], 'shard')}, "
        f"{size(described['bytes'])}, {'complete' if described['complete'] else 'not finished'}",
        "",
        table([["column", "shards", "samples", "bytes", "a sample", "images/s"], *map(_row, columns)]),
    ]
    if described["index_bytes"]:
        lines += ["", f"Kept of the listing of the data: {size(described['index_bytes'])}"]
    if without := [c["name"] for c in columns if not (c["manifest"] or c["computed"] or c["missing"])]:
        lines += ["", f"Without a manifest: {', '.join(without)}. {WITHOUT_MANIFEST}"]
    stages = list(dict.fromkeys(stage for c in columns for stage in c["seconds"] if stage != "total"))
    if stages:
        rows = [
            [c["name"], *(f"{c['seconds'].get(stage, 0):.1f}" for stage in (*stages, "total"))]
            for c in columns
        ]
        lines += ["", "Seconds of all workers by stage:", table([["column", *stages, "total"], *rows])]
    lines += [_masks(c) for c in columns if c["kind"] == "regions" and c["error"]]
    errors = [
        f"{c['name']}: {_figures(c['error'])}" for c in columns if c["error"] and c["kind"] == "targets"
    ]
    lines += ["", "Error of what is stored:", *errors] if errors else []
    skipped = ", ".join(f"{n} {reason}" for reason, n in described["skipped"].items())
    lines += ["", f"Skipped photos: {skipped or 'none'}"]
    if passed := in_words(described["passed_over"]):
        lines.append(f"Passed over in the listing: {passed}")
    return "\n".join(lines)


def _data(dataset: Mapping[str, Any]) -> str:
    return f"{dataset['name']} {dataset.get('split', '')}".strip()


def _masks(column: dict[str, Any]) -> str:
    """What became of the masks of a column of regions."""
    of_photo = column["error"]
    return (
        f"{column['name']}: {of_photo['masks']:.1f} masks a photo, {of_photo['masks_left_out']:.1f} left "
        f"out; {of_photo['on_grids']:.1%} of the photos have none, but grids"
    )


def _row(column: dict[str, Any]) -> list[str]:
    name = f"{column['name']}-{column['id']}" if column["id"] else column["name"]
    shards, rate = column["shards"], column["images_per_second"]
    random = " (random weights)" if column["info"].get("random_weights") else ""
    return [
        f"{name}{random}",
        "computed" if column["computed"] else f"{shards - column['missing']}/{shards}",
        str(column["samples"]),
        size(column["bytes"]),
        size(column["bytes"] / column["samples"]) if column["samples"] else "-",
        f"{rate:.1f}" if rate else "-",
    ]


def _figures(errors: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2g}" for name, value in errors.items())
