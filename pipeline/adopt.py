"""Adds shared columns to a store of the same photos: targets without a teacher."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Any

import numpy as np

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.prefetch import Stopped
from densecli.pipeline.fill_columns import fill_columns
from densecli.pipeline.photo_digests import FOLDER, digest_of, read_digests
from densecli.pipeline.share_config import AdoptConfig
from densecli.pipeline.summary import Summary
from densecli.pipeline.unit import Report, Unit
from densecli.shards.codecs import Errors
from densecli.shards.joined import Record, read_joined
from densecli.shards.key_index import key_hashes
from densecli.shards.manifest import ErrorTotals
from densecli.shards.store import Column, Store
from densecli.shards.tars import index_of
from densecli.shards.writer import ShardWriter

SAMPLED = 16
"""Shards whose photos are compared before anything is written."""


def adopt(config: AdoptConfig) -> Summary:
    """Adds shared columns, or the shards of them that a store lacks, after comparing the photos.

    Returns:
        A summary like that of `build_shards`.

    Raises:
        DenseCLIError: The photos are not those that the columns are about, or the shared store is damaged.
            The same call continues where it stopped.
        Interrupted: SIGINT or SIGTERM stopped it in good order.
    """
    store = Store.open(fs.absolute(config.store))
    adopter = prepare(store, config)
    adopter.compare(store.shard_names)
    return fill_columns(
        store,
        adopter.columns,
        lambda: adopter,
        workers=config.workers,
        dry_run=config.dry_run,
        run="the adoption",
    )


@dataclass(frozen=True, kw_only=True)
class SharedPhotos:
    """Where the shared store has a photo.

    Attributes:
        root: The shared store.
        key_column: A shared column that is stored: its receipts have all keys.
        entries: Sorted entries of `key_hashes`; None if both stores have the same photos in the same shards.
    """

    root: str
    key_column: Column
    entries: np.ndarray | None

    def shards_of(self, keys: Sequence[str], shard: str) -> list[str]:
        """Names of the shared shards that may hold the keys of a shard of the store, each once."""
        if self.entries is None:
            return [shard]
        names = self.key_column.shard_names
        found: dict[str, None] = {}
        for first in np.unique(key_hashes(keys, 0)):
            # 40 bits of the hash, then 24 of the shard.
            low, high = np.searchsorted(self.entries, [first, first + np.uint64(1 << 24)])
            found |= dict.fromkeys(names[int(each & np.uint64(2**24 - 1))] for each in self.entries[low:high])
        return list(found)


@dataclass(frozen=True, kw_only=True)
class Adopter:
    """Builds units of shared columns. Nothing has to be loaded: every worker uses a copy.

    Attributes:
        images: The store's column of photos.
        photos: Where the shared store has a photo.
        shared: The shared columns that are stored.
        adopted: The store's column for each shared one, by the key of that; also those of computed boxes.
        device: Always the CPU.
    """

    images: Column
    photos: SharedPhotos
    shared: tuple[Column, ...]
    adopted: Mapping[str, Column]
    device: str = "cpu"

    @property
    def columns(self) -> list[Column]:
        """The columns of the store, those before that others name."""
        return list(self.adopted.values())

    def builder(self, threads: int = 1) -> "Adopter":
        """Returns itself."""
        return self

    def compare(self, shards: Sequence[str]) -> None:
        """Compares the photos of some shards, spread evenly, with the shared digests.

        Raises:
            DenseCLIError: Some are other photos, or the shared store does not have them.
        """
        places = np.unique(np.linspace(0, len(shards) - 1, min(SAMPLED, len(shards))).round().astype(int))
        for place in places:
            self.find(read_joined([self.images], shards[place]), shards[place])

    def find(self, records: Sequence[Record], shard: str) -> list[tuple[str, int]]:
        """Finds the photos of a shard of the store in the shared one.

        Args:
            records: The photos.
            shard: Name of their shard.

        Returns:
            The shared shard and the row there, for each photo.

        Raises:
            DenseCLIError: Some are other photos, or the shared store does not have them.
        """
        there: dict[str, tuple[str, int, bytes]] = {}
        for name in self.photos.shards_of([record.key for record in records], shard):
            with _of_a_copy():
                receipt = self.photos.key_column.receipt(name)
            if receipt is None:
                raise DenseCLIError(
                    f"The shared column {self.photos.key_column.url} lacks the shard {name}.",
                    hint="The copy is not whole: fetch it again.",
                )
            with _of_a_copy():
                keys = index_of(self.photos.key_column, name, receipt).samples
            digests = read_digests(self.photos.root, name, len(keys))
            there |= {key: (name, row, digests[row]) for row, key in enumerate(keys)}
        found, missing, other = [], [], []
        for record in records:
            if (place := there.get(record.key)) is None:
                missing.append(record.key)
            elif place[2] != digest_of(record.parts["images"]["jpg"]):
                other.append(record.key)
            else:
                found.append(place[:2])
        if missing:
            raise DenseCLIError(
                f"The shared columns are not about {len(missing)} of the {len(records)} photos of shard "
                f"{shard}, such as {missing[0]}.",
                hint="They were made of another data set or split, or your photos have other names."
                if len(missing) == len(records)
                else "Build a store of no more photos than they are about, or run the teacher on yours.",
            )
        if other:
            raise DenseCLIError(
                f"{len(other)} of the {len(records)} photos of shard {shard} are not those that the shared "
                f"columns are about, such as {other[0]}: their pixels differ.",
                hint="Take the same files. If they are the same, another version of Pillow or libjpeg has "
                "decoded them otherwise.",
            )
        return found

    def build(self, unit: Unit, stop: Event) -> Report:
        """Writes the unit's shard of every column that lacks it.

        Raises:
            Stopped: `stop` was set.
            DenseCLIError: See `find`.
        """
        records = read_joined([self.images], unit.shard)
        places = self.find(records, unit.shard)
        seconds = 0.0
        for shared in self.shared:
            column = self.adopted[shared.key]
            if column.has(unit.shard):
                continue
            writer = ShardWriter(column, unit.shard)
            with _of_a_copy():
                opened = {name: read_joined([shared], name) for name, _ in dict.fromkeys(places)}
            for record, (name, row) in zip(records, places, strict=True):
                if stop.is_set():
                    raise Stopped
                members = opened[name][row].parts[shared.part]
                writer.add(record.key, {extension: bytes(data) for extension, data in members.items()})
            names = [name for name, _ in places]
            spent, on_gpu = _spent(shared, names)
            start = time.perf_counter()
            writer.commit(error=_errors(shared, names), seconds=spent, gpu_seconds=on_gpu)
            seconds += time.perf_counter() - start
        return Report(shard=unit.shard, samples=len(records), skipped={}, seconds={"write": seconds})


@contextmanager
def _of_a_copy() -> Iterator[None]:
    """Hints at what helps with a damaged copy, which nobody can build again here."""
    try:
        yield
    except DenseCLIError as error:
        raise DenseCLIError(
            str(error), hint="The copy is damaged: fetch the file again, or have it shared again."
        ) from error


def _errors(shared: Column, shards: Sequence[str]) -> Errors:
    """The errors of the samples that these shards gave; a maximum is that of the whole shard."""
    counted = {name: shards.count(name) for name in dict.fromkeys(shards)}
    receipts = {name: shared.receipt(name) for name in counted}
    errors = {name: receipt.error for name, receipt in receipts.items() if receipt}
    if len(errors) == 1:
        return dict(next(iter(errors.values())))
    totals = ErrorTotals()
    for name, error in errors.items():
        totals.add(error, counted[name])
    return totals.totals()


def _spent(shared: Column, shards: Sequence[str]) -> tuple[dict[str, float], float]:
    """The seconds that the samples of these shards took where their teacher ran, by stage, and those of GPUs.

    A sample took as long as the mean of its shard. Copying it here cost nothing of a teacher.
    """
    seconds, on_gpu = Counter[str](), 0.0
    for name in dict.fromkeys(shards):
        if (receipt := shared.receipt(name)) and receipt.samples:
            share = shards.count(name) / receipt.samples
            seconds.update({stage: spent * share for stage, spent in receipt.seconds.items()})
            on_gpu += receipt.gpu_seconds * share
    return dict(seconds), on_gpu


def prepare(store: Store, config: AdoptConfig) -> Adopter:
    """Finds the shared columns and what they will be in the store; writes nothing.

    Raises:
        DenseCLIError: One of the stores is none, or they have another canvas or storage of photos.
    """
    root = fs.absolute(config.shared)
    if not fs.listdir(fs.join(root, FOLDER)):
        raise DenseCLIError(
            f"{fs.shown(root)} is no shared store: it has no digests of photos.",
            hint="Make one with densecli share, or name another folder.",
        )
    with _of_a_copy():
        shared = Store.open(root)
        every = shared.columns("targets")
    if (store.canvas, store.photos) != (shared.canvas, shared.photos):
        raise DenseCLIError(
            f"The store at {fs.shown(store.root)} has photos of {store.canvas} px, stored as "
            f"{dict(store.photos)}; the shared columns are about photos of {shared.canvas} px, "
            f"stored as {dict(shared.photos)}.",
            hint=f"Build a store of your photos with --canvas {shared.canvas}.",
        )
    if missing := store.images.missing():
        raise DenseCLIError(
            f"The store at {fs.shown(store.root)} lacks the photos of {len(missing)} shards.",
            hint="Run its build-shards command again: it continues where it stopped.",
        )
    targets = [shared.find("targets", name) for name in config.columns] or every
    regions = list({c.regions_key: shared.regions_of(c) for c in targets if c.regions_key}.values())
    theirs = [*regions, *targets]
    stored = tuple(column for column in theirs if not column.computed)
    if not stored:
        raise DenseCLIError(
            f"{fs.shown(root)} has no columns of targets.", hint="Fetch it again: it is not whole."
        )
    if any(column.computed for column in theirs) and store.format == 1:
        raise DenseCLIError(
            f"The store at {fs.shown(store.root)} has format 1, and "
            "the boxes of the shared columns are computed.",
            hint="Build a new store of your photos.",
        )
    adopted: dict[str, Column] = {}
    # Other columns are named by keys, and a key depends on the store: those first that others name.
    for column in sorted(theirs, key=lambda c: ("mixed" in c.spec, "features" in c.spec)):
        spec: dict[str, Any] = {k: v for k, v in column.spec.items() if k not in ("kind", "name", "data")}
        for name in ("regions", "features"):
            if spec.get(name) in adopted:
                spec[name] = adopted[spec[name]].key
        if "mixed" in spec:
            parts = spec["mixed"].items()
            spec["mixed"] = {adopted[k].key if k in adopted else k: weight for k, weight in parts}
        adopted[column.key] = store.column(column.kind, column.name, spec, column.info)
    same_cut = store.data == shared.data
    return Adopter(
        images=store.images,
        photos=SharedPhotos(
            root=root, key_column=stored[-1], entries=None if same_cut else _entries(stored[-1])
        ),
        shared=stored,
        adopted=adopted,
    )


def _entries(column: Column) -> np.ndarray:
    """Sorted entries of `key_hashes` for all keys of a column."""
    hashes = [np.empty(0, np.uint64)]
    with _of_a_copy():
        for number, shard in enumerate(column.shard_names):
            if receipt := column.receipt(shard):
                hashes.append(key_hashes(index_of(column, shard, receipt).samples, number))
    return np.sort(np.concatenate(hashes))
