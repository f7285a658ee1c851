"""Verifies a store: compares stored targets with the outputs of live teachers for some photos."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from densecli.core import hub
from densecli.core.device import pick_device
from densecli.core.errors import DenseCLIError
from densecli.core.progress import Progress
from densecli.core.tables import table
from densecli.models.prompts import TEMPLATES
from densecli.models.teacher_names import find_teacher_column
from densecli.models.weights import given_for, is_random
from densecli.pipeline.batcher import live_targets
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.stored_error import of_full_precision, stored_error
from densecli.pipeline.teachers import Photo, TeacherConfig, teacher_config, weights_names
from densecli.pipeline.teachers.gram import with_method_of
from densecli.pipeline.verify_config import VerifyConfig
from densecli.shards.find_shard import find_shard
from densecli.shards.geometry import Canvas
from densecli.shards.joined import Record, read_joined
from densecli.shards.keys import canonical_json
from densecli.shards.parted_store import open_store
from densecli.shards.receipt_totals import describe_shards
from densecli.shards.specs import FULL_PRECISION, TargetSpec
from densecli.shards.store import Column, Store


def verify(config: VerifyConfig) -> dict[str, Any]:
    """Runs the teachers on some photos again, and compares their outputs with what is stored.

    Returns:
        `verified`, `store`, `tolerance` and `columns`, each with its name, id, samples, `random_weights`,
        `precision` and `figures`. A figure is one of the codec's maximum errors: `live`, between the stored
        target and the teacher's output now, for the worst sample; `recorded`, from the receipt of that
        sample's shard; and whether it `holds`. `against_full_precision` has the largest errors from the
        teacher in fp32, where the column was made in less.

    Raises:
        DenseCLIError: A teacher is not the one of the column, or its weights are missing.
    """
    store = open_store(config.store)
    # Columns made by relabel and mix have no teacher.
    taught = [c for c in store.columns("targets") if not {"features", "mixed"} & c.spec.keys()]
    columns = [find_teacher_column(store, name) for name in config.teachers] or taught
    if not columns:
        raise DenseCLIError(
            f"The store at {store.root} has no targets.",
            hint="Build some: densecli build-shards --teacher NAME.",
        )
    try:
        teachers = [_teacher(store, column, config) for column in columns]
    except DenseCLIError as error:
        if config.teachers or not columns[1:]:
            raise
        # Of an adopted column, nobody here may have the weights.
        hint = f"To verify other columns alone, name them with --teacher. {error.hint}"
        raise DenseCLIError(str(error), hint=hint, commands=error.commands) from error
    verified = [_verify(store, c, t, config) for c, t in zip(columns, teachers, strict=True)]
    holds = all(figure["holds"] for column in verified for figure in column["figures"].values())
    return {"store": store.root, "verified": holds, "tolerance": config.tolerance, "columns": verified}


def live_target(store: Store, column: Column, record: Record, config: VerifyConfig) -> np.ndarray:
    """Runs a column's teacher on one photo. Returns the target before any codec.

    Args:
        store: Store of the column.
        column: A column of targets.
        record: The photo, with the columns images and `regions_beside`.
        config: The weights, and how the teacher is run.

    Raises:
        DenseCLIError: The weights are missing, or are not those of the column.
    """
    teacher = _teacher(store, column, config).load(str(pick_device(config.device)))
    photo = _photo(store, record, _shard_of(store, record.key))
    return live_targets(teacher, [photo], precision=column.precision)[0]


def _shard_of(store: Store, key: str) -> Sequence[Record]:
    """The photos of the shard that a sample is in."""
    return read_joined([store.images], find_shard(store, key))


def _photo(store: Store, record: Record, shard: Sequence[Record]) -> Photo:
    return Photo(
        key=record.key,
        image=record.image(),
        canvas=Canvas(store.canvas),
        regions=record.regions(),
        shard=shard,
    )


def _verify(store: Store, column: Column, teacher: TeacherConfig, config: VerifyConfig) -> dict[str, Any]:
    chosen = _choose(column, config.samples)
    samples = sum(map(len, chosen.values()))
    loaded = teacher.load(str(pick_device(config.device)))
    figures: dict[str, dict[str, Any]] = {}
    against_full: dict[str, float] = {}
    progress = Progress(samples, "photos")
    for shard, rows in chosen.items():
        joined = read_joined([store.images, regions_beside(store, column), column], shard)
        records = [joined[row] for row in rows]
        photos = [_photo(store, record, joined) for record in records]
        receipt = column.receipt(shard)
        assert receipt is not None
        if column.precision != FULL_PRECISION:
            exact = live_targets(loaded, photos, config.batch_size)
            for record, target in zip(records, exact, strict=True):
                errors = of_full_precision(stored_error(column, record.arrays(column.part), target))
                for name, value in errors.items():
                    if name.startswith("max_"):
                        against_full[name] = max(value, against_full.get(name, 0.0))
        live = live_targets(loaded, photos, config.batch_size, column.precision)
        for record, target in zip(records, live, strict=True):
            error = stored_error(column, record.arrays(column.part), target)
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
        "precision": column.precision,
        "against_full_precision": against_full,
    }


def _choose(column: Column, samples: int) -> dict[str, list[int]]:
    """The rows to check in each shard, spread evenly over all finished shards."""
    there = describe_shards(column)
    ends = np.cumsum(there.samples, dtype=int)
    n = int(ends[-1]) if len(ends) else 0
    if not n:
        raise DenseCLIError(
            f"The column {column.url} has no photos yet.",
            hint="Run its build: it continues where it stopped.",
        )
    chosen: dict[str, list[int]] = {}
    for place in np.unique(np.linspace(0, n - 1, min(samples, n)).round().astype(int)):
        i = int(np.searchsorted(ends, place, side="right"))
        shard = column.shard_names[there.shards[i]]
        chosen.setdefault(shard, []).append(int(place - ends[i] + there.samples[i]))
    return chosen


def regions_beside(store: Store, column: Column) -> Column:
    """Returns the column of boxes of a column's targets. For maps, which have no boxes, returns any."""
    return store.regions_of(column) if column.regions_key else store.columns("regions")[0]


def _teacher(store: Store, column: Column, config: VerifyConfig) -> TeacherConfig:
    """Configures the teacher of a column. Raises DenseCLIError if its spec would differ from the column's."""
    spec, target, codec = column.spec, column.spec["target"], column.spec["codec"]
    digests: Mapping[str, object] = spec
    info: Mapping[str, object] = column.info
    names = weights_names(column.name)
    recorded = {name: str(info[part]) for part, name in names.items() if part in info}
    found = {
        name: at for name, at in recorded.items() if is_random(at) or hub.is_hub(at) or os.path.isfile(at)
    }
    given = {name: at for name in names.values() if (at := given_for(name, config.weights))}
    options: dict[str, Any] = {
        "seed": target.get("seed"),
        "views": target.get("views"),
        "contexts": target.get("contexts"),
        "side": target.get("side"),
        "tau": target.get("tau"),
        "templates": config.templates or _templates(target),
        "categories": config.categories or column.info.get("categories"),
        "text_embeddings": config.text_embeddings if "sha256" in target.get("text", {}) else None,
        "resample": spec.get("preprocessing", {}).get("input") != "canvas",
        "student_patch": target.get("student_patch"),
        "codec": codec.get("dtype"),
        "rank": codec.get("rank"),
        "gram_rmse": codec.get("rmse"),
    }
    teacher = teacher_config(
        column.name,
        BuildConfig(
            dataset=store.dataset["name"],
            regions=regions_beside(store, column).name,
            weights={**found, **given},
            **{name: value for name, value in options.items() if value is not None},
        ),
    )
    teacher = with_method_of(teacher, codec)
    now: Mapping[str, object] = teacher.spec()
    places: Mapping[str, object] = teacher.info()
    changed = [part for part in now if canonical_json(now[part]) != canonical_json(spec.get(part))]
    for part, name in names.items():
        if part in changed:
            raise DenseCLIError(
                f"{column.full_name} was made with other weights, not {places[part]}.",
                hint=f"Give those of sha256 {str(digests[part])[:16]} with --weights {name}=PATH.",
            )
    if changed:
        raise DenseCLIError(
            f"The teacher of {column.full_name} would now have a different {' and '.join(changed)}.",
            hint="Give --categories, --templates and --text-embeddings as at the build; releases may differ.",
        )
    return teacher


def _templates(target: TargetSpec) -> str | None:
    """The name of the prompt templates."""
    prompts = target.get("text", {}).get("templates")
    return next((name for name, texts in TEMPLATES.items() if list(texts) == prompts), None)


def report(verified: dict[str, Any]) -> str:
    """Formats the result of `verify` as text."""
    rows = [
        [
            f"{c['name']}-{c['id']}" + (" (random weights)" if c["random_weights"] else ""),
            str(c["samples"]),
            name,
            f"{figure['live']:.4g}",
            f"{figure['recorded']:.4g}",
            "holds" if figure["holds"] else "EXCEEDED",
        ]
        for c in verified["columns"]
        for name, figure in c["figures"].items()
    ]
    differs = "differs from the live teachers: build it again"
    verdict = "equals the live teachers" if verified["verified"] else differs
    rows += [
        [
            f"{c['name']}-{c['id']}",
            str(c["samples"]),
            name,
            f"{error:.4g}",
            "",
            f"teacher in {c['precision']}",
        ]
        for c in verified["columns"]
        for name, error in c["against_full_precision"].items()
    ]
    head = ["column", "photos", "error", "live", "recorded", f"within {verified['tolerance']:g}"]
    return f"{table([head, *rows])}\n{verified['store']}: {verdict}"
