"""Whether a store says what its teachers say: some of its photos, asked again, live."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from densecli.core.device import pick_device
from densecli.core.errors import DenseCLIError
from densecli.core.progress import Progress
from densecli.core.tables import table
from densecli.models.text import TEMPLATES
from densecli.pipeline.config import BuildConfig, VerifyConfig
from densecli.pipeline.teachers import Photo, TeacherConfig, live, models_of, teacher_config
from densecli.shards.codecs import Errors, combine_errors
from densecli.shards.geometry import Canvas
from densecli.shards.keys import canonical_json
from densecli.shards.reader import Record, decode_image, decode_npz, read_joined
from densecli.shards.regions import Regions
from densecli.shards.store import Column, Store


def verify(config: VerifyConfig) -> dict[str, Any]:
    """`verified`, and `columns`: each with its name, id, samples, `random_weights`, and `figures`.

    A figure is one of the codec's largest errors: `live`, of what is stored from what the teacher says now,
    the worst of the samples; `recorded`, by the receipt of that sample's shard; and whether it `holds`.
    Raises DenseCLIError where a teacher would not be the column's own.
    """
    store = Store.open(config.store)
    # What relabel made has no teacher: it follows from a column that has.
    told = [column for column in store.columns("targets") if "features" not in column.spec]
    columns = [store.find("targets", name) for name in config.teachers] or told
    if not columns:
        raise DenseCLIError(
            f"The store at {store.root} has no targets.",
            hint="Build some: densecli build-shards --teacher NAME.",
        )
    teachers = [_teacher(store, column, config) for column in columns]
    verified = [_verify(store, c, t, config) for c, t in zip(columns, teachers, strict=True)]
    holds = all(figure["holds"] for column in verified for figure in column["figures"].values())
    return {"store": store.root, "verified": holds, "tolerance": config.tolerance, "columns": verified}


def live_target(store: Store, column: Column, record: Record, config: VerifyConfig) -> np.ndarray:
    """What the column's teacher says now of one photo, before any codec.

    record: its images and `regions_beside`. Raises DenseCLIError where the weights are missing or others.
    """
    network = _teacher(store, column, config).load(str(pick_device(config.device)))
    return live(network, [_photo(store, record)])[0]


def _photo(store: Store, record: Record) -> Photo:
    return Photo(
        key=record.key,
        image=decode_image(record.parts["images"]["jpg"]),
        canvas=Canvas(store.canvas),
        regions=Regions(**decode_npz(record.parts["regions"]["npz"])),
    )


def _verify(store: Store, column: Column, teacher: TeacherConfig, config: VerifyConfig) -> dict[str, Any]:
    chosen = _choose(column, config.samples)
    samples = sum(map(len, chosen.values()))
    network = teacher.load(str(pick_device(config.device)))
    figures: dict[str, dict[str, Any]] = {}
    progress = Progress(samples, "photos")
    for shard, rows in chosen.items():
        records = [
            read_joined([store.images, regions_beside(store, column), column], shard)[row] for row in rows
        ]
        photos = [_photo(store, record) for record in records]
        receipt = column.receipt(shard)
        assert receipt is not None
        for record, target in zip(records, live(network, photos, config.batch_size), strict=True):
            error = _error(column, decode_npz(record.parts[column.part]["npz"]), target)
            for name in sorted(error):
                if name.startswith("max_"):
                    found = {"live": error[name], "recorded": receipt.error[name]}
                    found["holds"] = bool(error[name] <= receipt.error[name] + config.tolerance)
                    worst = figures.setdefault(name, found)
                    if found["live"] - found["recorded"] > worst["live"] - worst["recorded"]:
                        figures[name] = found
        progress.advance(len(records))
    progress.close()
    return {
        "name": column.name,
        "id": column.id,
        "samples": samples,
        "random_weights": column.random_weights,
        "figures": figures,
    }


def _choose(column: Column, samples: int) -> dict[str, list[int]]:
    """Rows by shard, evenly over what is built."""
    missing = set(column.missing())
    found = [column.receipt(shard) for shard in column.shard_names if shard not in missing]
    receipts = [receipt for receipt in found if receipt is not None]
    ends = np.cumsum([receipt.samples for receipt in receipts], dtype=int)
    n = int(ends[-1]) if receipts else 0
    if not n:
        raise DenseCLIError(
            f"The column {column.url} has no photos yet.",
            hint="Run its build: it continues where it stopped.",
        )
    chosen: dict[str, list[int]] = {}
    for place in np.unique(np.linspace(0, n - 1, min(samples, n)).round().astype(int)):
        i = int(np.searchsorted(ends, place, side="right"))
        chosen.setdefault(receipts[i].shard, []).append(int(place - ends[i] + receipts[i].samples))
    return chosen


def regions_beside(store: Store, column: Column) -> Column:
    """The boxes of a column's targets; any for a map."""
    # A map is the same whatever the boxes.
    return store.regions_of(column) if column.regions_key else store.columns("regions")[0]


def _error(column: Column, stored: Mapping[str, np.ndarray], target: np.ndarray) -> Errors:
    """The codec's errors of the stored arrays from a live target: of one box at a time where each has factors
    of its own, else of all rows at once."""
    codec, side = column.codec, column.side
    rows = target.reshape(-1, target.shape[-1])
    arrays = {name: stored[name] for name in codec.blank(rows.shape)}
    if len(next(iter(arrays.values()))) != len(rows):
        raise DenseCLIError(
            f"The column {column.url} has targets of another shape than its teacher gives.",
            hint="Run densecli lint; if that finds nothing, build the column again with this release.",
        )
    if not side:
        return codec.error(arrays, rows)
    size = side**2
    return combine_errors(
        [
            codec.error({name: array[i : i + size] for name, array in arrays.items()}, rows[i : i + size])
            for i in range(0, len(rows), size)
        ]
    )


def _teacher(store: Store, column: Column, config: VerifyConfig) -> TeacherConfig:
    """The teacher that a column's spec tells of, with weights; DenseCLIError where it would be another."""
    spec, target, codec = column.spec, column.spec["target"], column.spec["codec"]
    # A Refiner's own weights go by its name.
    names = models_of(column.name)
    said = dict(zip(names, (column.info["weights"], column.info.get("refiner", "")), strict=False))
    there = {name: at for name, at in said.items() if at.startswith("random:") or os.path.isfile(at)}
    given = {name: at for name, at in config.weights.items() if name in names}
    options = {
        "seed": target.get("seed"),
        "views": target.get("views"),
        "side": target.get("side"),
        "tau": target.get("tau"),
        "templates": _templates(target),
        "categories": config.categories or column.info.get("categories"),
        "text_embeddings": config.text_embeddings if "sha256" in target.get("text", {}) else None,
        "student_patch": target.get("student_patch"),
        "codec": codec["dtype"],
        "rank": codec.get("rank"),
        "gram_rmse": codec.get("rmse"),
    }
    teacher = teacher_config(
        column.name,
        BuildConfig(
            dataset=store.dataset["name"],
            regions=regions_beside(store, column).name,
            weights={**there, **given},
            **{name: value for name, value in options.items() if value is not None},
        ),
    )
    asked = teacher.spec()
    others = [name for name in asked if canonical_json(asked[name]) != canonical_json(spec.get(name))]
    for name, part in zip(names, ("weights", "refiner"), strict=False):
        if part in others:
            raise DenseCLIError(
                f"{column.full_name} was made with other weights, not {teacher.info()[part]}.",
                hint=f"Give those of sha256 {spec[part][:16]} with --weights {name}=PATH.",
            )
    if others:
        raise DenseCLIError(
            f"The teacher of the column {column.full_name} would have another {' and '.join(others)}.",
            hint="Give --categories and --text-embeddings as at its build; a producer is that of a release.",
        )
    return teacher


def _templates(target: Mapping[str, Any]) -> str | None:
    """The name of the prompts."""
    prompts = target.get("text", {}).get("templates")
    return next((name for name, texts in TEMPLATES.items() if list(texts) == prompts), None)


def report(verified: dict[str, Any]) -> str:
    """`verify` in print."""
    rows = [
        [
            f"{c['name']}-{c['id']}" + (" (random weights)" if c["random_weights"] else ""),
            str(c["samples"]),
            name,
            f"{figure['live']:.4g}",
            f"{figure['recorded']:.4g}",
            "holds" if figure["holds"] else "PAST",
        ]
        for c in verified["columns"]
        for name, figure in c["figures"].items()
    ]
    verdict = "as the teachers say" if verified["verified"] else "not what the teachers say: build them again"
    head = ["column", "photos", "error", "live", "recorded", f"within {verified['tolerance']:g}"]
    return f"{table([head, *rows])}\n{verified['store']}: {verdict}"
