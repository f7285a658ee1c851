"""Describes what a store holds and how it was built, from its receipts."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from densecli.core import fs
from densecli.core.find import find
from densecli.core.passed_over import PassedOver, in_words
from densecli.core.tables import size, table
from densecli.shards.column import Column
from densecli.shards.keys import canonical_json
from densecli.shards.receipts import Receipt
from densecli.shards.store import Store

PASSED_OVER = "index/passed-over.json"
"""Where a store keeps what the listing of its photos left out."""


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


def describe(store: Store, advance: Callable[[int], None] = lambda shards: None) -> dict[str, Any]:
    """Describes a store, from its receipts alone.

    Args:
        store: To describe.
        advance: Called with the number of shards whose receipts were just read.

    Returns:
        JSON values: `dataset`, `canvas`, `shards`, `planned` photos, photos `skipped` by reason, files
        that the listing has `passed_over`, `complete`,
        `bytes` on disk and of them the `index_bytes` that builds keep of the data's listing, and `columns`.
        Each column has kind, name, id, the teacher's `info`, samples, shards and missing shards, bytes,
        `seconds` by stage with their total, `gpu_seconds`, `images_per_second` of one worker, and the codec's
        `error`, the largest or the mean over its shards.

    Raises:
        DenseCLIError: A receipt is damaged.
    """
    columns, skipped = [], Counter[str]()
    for column in (store.images, *store.columns()):
        described, lost = _describe(column, advance)
        columns.append(described)
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
        "complete": not any(column["missing"] for column in columns),
        "bytes": sum(c["bytes"] for c in columns) + fs.files(store.root)["store.json"].bytes + index,
        "index_bytes": index,
        "columns": columns,
    }


def _describe(column: Column, advance: Callable[[int], None]) -> tuple[dict[str, Any], Counter[str]]:
    samples, gpu_seconds = 0, 0.0
    seconds, skipped, weights = Counter[str](), Counter[str](), Counter[str]()
    errors: defaultdict[str, float] = defaultdict(float)
    missing = set(column.missing())
    for shard in column.shard_names:
        receipt = None if shard in missing else column.receipt(shard)
        if receipt:
            samples += receipt.samples
            gpu_seconds += receipt.gpu_seconds
            seconds.update(receipt.seconds)
            skipped.update(receipt.skipped)
            _fold(errors, receipt)
            # Some errors are measured on some of the shards alone.
            weights.update(dict.fromkeys(receipt.error, receipt.samples))
        advance(1)
    total = sum(seconds.values())
    described = {
        "kind": column.kind,
        "name": column.name,
        "id": column.id,
        **({"precision": column.precision} if column.kind == "targets" else {}),
        "info": column.info,
        "shards": len(column.shard_names),
        "missing": len(missing),
        "samples": samples,
        "bytes": sum(file.bytes for file in fs.files(column.url).values()),
        "seconds": {**{stage: round(s, 3) for stage, s in seconds.items()}, "total": round(total, 3)},
        "gpu_seconds": round(gpu_seconds, 3),
        "images_per_second": round(samples / total, 2) if total else None,
        "error": {
            name: value if name.startswith("max_") else value / max(weights[name], 1)
            for name, value in errors.items()
        },
    }
    return described, skipped


def _fold(errors: defaultdict[str, float], receipt: Receipt) -> None:
    """Adds a receipt's errors: the largest of every `max_NAME`, the sum over samples of every other."""
    for name, value in receipt.error.items():
        if name.startswith("max_"):
            errors[name] = max(errors[name], value)
        else:
            errors[name] += value * receipt.samples


def report(described: dict[str, Any]) -> str:
    """Formats the result of `describe` as text."""
    columns = described["columns"]
    dataset = described["dataset"]
    photos = f"{dataset['name']} {dataset.get('split', '')}".strip()
    lines = [
        f"{described['store']}: {photos}, canvas {described['canvas']}, "
        f"{described['planned']} photos planned in {described['shards']} shards, "
        f"{size(described['bytes'])}, {'complete' if described['complete'] else 'not finished'}",
        "",
        table([["column", "shards", "samples", "bytes", "a sample", "images/s"], *map(_row, columns)]),
    ]
    if described["index_bytes"]:
        lines += ["", f"Kept of the listing of the data: {size(described['index_bytes'])}"]
    stages = list(dict.fromkeys(stage for c in columns for stage in c["seconds"] if stage != "total"))
    if stages:
        rows = [
            [c["name"], *(f"{c['seconds'].get(stage, 0):.1f}" for stage in (*stages, "total"))]
            for c in columns
        ]
        lines += ["", "Seconds of all workers by stage:", table([["column", *stages, "total"], *rows])]
    errors = [f"{c['name']}: {_figures(c['error'])}" for c in columns if c["error"]]
    lines += ["", "Error of what is stored:", *errors] if errors else []
    skipped = ", ".join(f"{n} {reason}" for reason, n in described["skipped"].items())
    lines += ["", f"Skipped photos: {skipped or 'none'}"]
    if passed := in_words(described["passed_over"]):
        lines.append(f"Passed over in the listing: {passed}")
    return "\n".join(lines)


def _row(column: dict[str, Any]) -> list[str]:
    shards, rate = column["shards"], column["images_per_second"]
    random = " (random weights)" if column["info"].get("random_weights") else ""
    return [
        f"{column['name']}-{column['id']}{random}",
        f"{shards - column['missing']}/{shards}",
        str(column["samples"]),
        size(column["bytes"]),
        size(column["bytes"] / column["samples"]) if column["samples"] else "-",
        f"{rate:.1f}" if rate else "-",
    ]


def _figures(errors: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2g}" for name, value in errors.items())
