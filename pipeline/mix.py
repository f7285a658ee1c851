"""Makes a column of labels of several P-VLMs' columns, without a teacher."""

from dataclasses import dataclass
from threading import Event

import numpy as np

from densecli.core.errors import DenseCLIError
from densecli.core.prefetch import Stopped
from densecli.core.stage_timer import StageTimer
from densecli.models.teacher_names import find_teacher_column
from densecli.pipeline.fill_columns import fill_columns
from densecli.pipeline.mix_config import MixConfig
from densecli.pipeline.mixing import mix
from densecli.pipeline.part_sums import in_each_part
from densecli.pipeline.summary import Summary
from densecli.pipeline.teachers.labels import encode_labels
from densecli.pipeline.unit import Report, Unit
from densecli.shards.codecs import Errors, TopK, combine_errors
from densecli.shards.joined import read_joined
from densecli.shards.keys import canonical_json
from densecli.shards.kinds import KINDS
from densecli.shards.specs import ColumnInfo, MixSpec
from densecli.shards.store import Column, Store
from densecli.shards.writer import ShardWriter, npz_bytes

_BUILD_ANOTHER = "Build another with densecli build-shards --teacher MODEL."
MIXED = tuple(name for name, kind in KINDS.items() if "region_kl" in kind.read_by)
"""Kinds of target that are distributions over categories."""


def mix_labels(config: MixConfig) -> Summary:
    """Adds the column that `config` describes, or the shards that it lacks.

    Returns:
        A summary like that of `build_shards`; see `in_each_part` for a store of parts.

    Raises:
        DenseCLIError: The columns cannot be mixed. The same call continues where it stopped.
        Interrupted: SIGINT or SIGTERM stopped it in good order.
    """
    return in_each_part(config.store, lambda store: _mix_labels(Store.open(store), config))


def _mix_labels(store: Store, config: MixConfig) -> Summary:
    mixer = prepare(store, config)
    return fill_columns(
        store,
        [mixer.mixed],
        lambda: mixer,
        workers=config.workers,
        dry_run=config.dry_run,
        run="the mix",
    )


@dataclass(frozen=True, kw_only=True)
class Mixer:
    """Builds units of mixed labels. Nothing has to be loaded: every worker uses a copy.

    Attributes:
        columns: The finished columns of labels.
        weights: A weight for each, which sum to 1.
        rule: Key of `mixing.RULES`.
        mixed: The column to fill.
        codec: Its codec.
        device: Always the CPU.
    """

    columns: tuple[Column, ...]
    weights: tuple[float, ...]
    rule: str
    mixed: Column
    codec: TopK
    device: str = "cpu"

    def builder(self, threads: int = 1) -> "Mixer":
        """Returns itself."""
        return self

    def build(self, unit: Unit, stop: Event) -> Report:
        """Mixes the labels of the unit's shard. Its receipt has the regions' mean `agreement`.

        Raises:
            Stopped: `stop` was set.
        """
        writer, timer, errors = ShardWriter(self.mixed, unit.shard), StageTimer(), list[Errors]()
        # Each column by itself: joined, two of one name would be one part.
        shards = [read_joined([column], unit.shard) for column in self.columns]
        things, weights = np.array(self.codec.things), np.array(self.weights)
        for records in zip(*shards, strict=True):
            if stop.is_set():
                raise Stopped
            with timer("decode"):
                arrays = [r.arrays(c.part) for r, c in zip(records, self.columns, strict=True)]
                stored = [c.codec.decode(a) for a, c in zip(arrays, self.columns, strict=True)]
            with timer("encode"):
                p, same = mix(stored, weights, things, self.rule)
                encoded, error = encode_labels(self.codec, p)
                views = {"views": arrays[0]["views"]} if "views" in arrays[0] else {}
            writer.add(records[0].key, {"npz": npz_bytes({**encoded, **views})})
            errors.append({**error, "agreement": float(same.mean()) if len(same) else 1.0})
        receipt = writer.commit(seconds=timer.seconds, error=combine_errors(errors))
        return Report(shard=unit.shard, samples=receipt.samples, skipped={}, seconds=dict(receipt.seconds))


def prepare(store: Store, config: MixConfig) -> Mixer:
    """Resolves the settings of a mix; writes nothing.

    Raises:
        DenseCLIError: There are not two columns, one is not finished, or they are about different things.
    """
    there = [column for column in store.columns("targets") if is_labels(column) and not is_mixed(column)]
    given = dict(config.teacher_mix) or {column.full_name: 1.0 for column in there}
    columns = [find_labels(store, name) for name in given]
    if len(columns) < 2:
        raise DenseCLIError(
            f"A mix needs two columns of labels, not {len(columns)}.",
            hint=f"The store has: {', '.join(c.full_name for c in there) or 'none'}. "
            + ("Choose with --teacher-mix A=WEIGHT,B=WEIGHT." if len(there) > 1 else _BUILD_ANOTHER),
        )
    if twice := [c.full_name for i, c in enumerate(columns) if c.key in [each.key for each in columns[:i]]]:
        raise DenseCLIError(
            f"{twice[0]} is given twice, by two names.", hint="Give each column once in --teacher-mix."
        )
    for column in columns:
        check_finished(column, store)
        check_comparable(columns[0], column, mixing=True)
    total = sum(given.values())
    if min(given.values()) <= 0:
        raise DenseCLIError("A weight of a mix is not above 0.", hint="Leave that column out.")
    # Sorted, so that the order on the command line makes no other column.
    pairs = sorted(
        zip(columns, (w / total for w in given.values()), strict=True), key=lambda p: (p[0].name, p[0].key)
    )
    columns, weights = [c for c, _ in pairs], [w for _, w in pairs]
    first = columns[0].spec
    codec = columns[0].codec
    assert isinstance(codec, TopK)
    spec: MixSpec = {
        "producer": "mix/1",
        "mixed": {column.key: weight for column, weight in pairs},
        "rule": config.rule,
        "regions": first["regions"],
        "target": first["target"],
        "codec": codec.spec,
    }
    info: ColumnInfo = {
        "mixed": ", ".join(f"{column.full_name} {weight:.3g}" for column, weight in pairs),
        "random_weights": any(column.random_weights for column in columns),
        "categories": columns[0].info.get("categories", ""),
    }
    name = "-".join(["mix", config.rule, *dict.fromkeys(column.name for column in columns)])
    return Mixer(
        columns=tuple(columns),
        weights=tuple(weights),
        rule=config.rule,
        mixed=store.column("targets", name, spec, info),
        codec=codec,
    )


def is_labels(column: Column) -> bool:
    """Whether a column holds distributions over categories."""
    return column.target_kind in MIXED


def is_mixed(column: Column) -> bool:
    """Whether a column is a mix of others."""
    return "mixed" in column.spec


def find_labels(store: Store, name: str) -> Column:
    """Finds a column of labels.

    Args:
        store: The store.
        name: NAME or NAME-ID.

    Raises:
        DenseCLIError: There is none of this name, or it holds no labels.
    """
    column = find_teacher_column(store, name)
    if not is_labels(column):
        raise DenseCLIError(
            f"{column.full_name} holds {column.target_kind}, not labels.",
            hint="Make labels of a column of features or crops with densecli relabel.",
        )
    return column


def check_finished(column: Column, store: Store) -> None:
    """Raises DenseCLIError for a column with missing shards."""
    if missing := column.missing():
        raise DenseCLIError(
            f"The column {column.full_name} lacks {len(missing)} of {len(store.shard_names)} shards.",
            hint="Run its build again: it continues where it stopped.",
        )


def check_comparable(one: Column, other: Column, *, mixing: bool = False) -> None:
    """Raises DenseCLIError unless two columns of labels are about the same boxes, views and categories.

    Args:
        one: A column.
        other: Another.
        mixing: Whether their labels will be one column, which has one temperature.
    """
    target, theirs = one.spec["target"], other.spec["target"]
    differ: list[tuple[str, object, object]] = [
        ("kinds of target", one.target_kind, other.target_kind),
        ("region plans", one.regions_key, other.regions_key),
        ("categories", target["categories"], theirs["categories"]),
        ("things", one.spec["codec"]["things"], other.spec["codec"]["things"]),
        ("views", (target.get("views"), target.get("seed")), (theirs.get("views"), theirs.get("seed"))),
    ]
    choose = "Choose others"
    if mixing:
        differ.append(("temperatures", target["tau"], theirs["tau"]))
        choose += " with --teacher-mix A=WEIGHT,B=WEIGHT"
    for what, a, b in differ:
        if canonical_json(a) != canonical_json(b):
            raise DenseCLIError(
                f"{one.full_name} and {other.full_name} have different {what}.",
                hint=f"{choose}, or build one of them again with the same --regions, --categories, --views "
                "and --tau; relabel does it from stored features.",
            )
