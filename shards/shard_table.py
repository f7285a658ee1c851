"""What a reader keeps of the shards of joined columns: two numbers of each, and the seals of their tars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.key_share import KeyRange, hashes_of_keys, within_all
from densecli.shards.column import Column, check_photos
from densecli.shards.joined import JoinedShard
from densecli.shards.key_ranges import count_within
from densecli.shards.manifest import Manifest, manifest_url, read_manifest
from densecli.shards.receipt_totals import count_receipts
from densecli.shards.tars import Seal


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardTable:
    """The shards of finished columns that can be joined.

    Attributes:
        samples: (n,) int32, number of samples in every shard.
        tar_bytes: (n,) int64, size of the first column's tars; of boxes only if there is no other column.
        seals: By a column's key, sizes (n,) int64 and xxh3-64 (n,) uint64 of its tars, where it has a
            manifest.
        ranges: Only samples with keys in all of these ranges are read.
        kept: (n,) int32, number of these samples in every shard.
    """

    samples: np.ndarray
    tar_bytes: np.ndarray
    seals: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    ranges: tuple[KeyRange, ...] = ()
    kept: np.ndarray

    @classmethod
    def of(cls, columns: Sequence[Column], ranges: Sequence[KeyRange] = ()) -> "ShardTable":
        """The table of some columns of one store: from manifests, or else from the first one's receipts.

        Args:
            columns: The columns.
            ranges: Ranges of the keys of the samples to read; none for all samples.

        Raises:
            DenseCLIError: The columns cannot be joined, or one is not finished, or a manifest or a receipt is
                damaged.
        """
        _check_joinable(columns)
        stored = [column for column in columns if not column.computed]
        # Of boxes, the parts of a store may have some computed.
        lead, *rest = sorted(stored, key=lambda column: column.kind == "regions")
        first, *others = [_finished(column) for column in (lead, *rest)]
        found = first or count_receipts(lead)
        for column, other in zip(rest, others, strict=True):
            # Without a manifest, the reader finds out when it opens the shard.
            if other is not None:
                _check_same_keys(lead, found, column, other)
        sealed = {c.key: m for c, m in zip((lead, *rest), (first, *others), strict=True) if m is not None}
        seals = {key: (manifest.tar_bytes, manifest.xxh3) for key, manifest in sealed.items()}
        return cls(
            samples=found.samples,
            tar_bytes=found.tar_bytes,
            seals=seals,
            ranges=tuple(ranges),
            kept=count_within(lead, ranges) if ranges else found.samples,
        )

    def seal(self, column: Column, shard: int) -> Seal | None:
        """What the column's manifest says of a shard's tar; None without a manifest."""
        if column.key not in self.seals:
            return None
        sizes, digests = self.seals[column.key]
        return Seal(int(sizes[shard]), int(digests[shard]))

    def kept_of(self, shard: JoinedShard) -> JoinedShard:
        """The samples of an open shard that are read."""
        if not self.ranges:
            return shard
        within = within_all(hashes_of_keys(shard.keys), self.ranges)
        return replace(shard, rows=np.flatnonzero(within).tolist())

    def check(self, column: Column, shard: int, samples: int) -> None:
        """Raises DenseCLIError if a shard, when it is opened, has another number of samples than here."""
        if samples == self.samples[shard]:
            return
        column, name = column.locate(column.shard_names[shard])
        tar, manifest = column.tar_url(name), manifest_url(column)
        raise DenseCLIError(
            f"The shard {tar} holds {samples} samples, and {self.samples[shard]} were counted when the store "
            "was opened.",
            hint=f"{manifest} is out of date: delete it and run the build again, which writes it anew."
            if fs.exists(manifest)
            else "Something writes to the store: run the command again once it has finished.",
        )


def _finished(column: Column) -> Manifest | None:
    """The column's manifest, if there is one. Raises DenseCLIError if the column is not finished."""
    manifest = read_manifest(column)
    # A manifest is of a finished column. A local folder also tells at once whether a shard was deleted since.
    if (manifest is None or fs.is_local(column.url)) and (missing := column.missing()):
        raise DenseCLIError(
            f"The column {column.url} is not finished: {len(missing)} of {len(column.shard_names)} "
            f"shards are missing, the first is {missing[0]}.",
            hint="Run its build again: it continues where it stopped.",
        )
    return manifest


def _check_same_keys(first: Column, found: Manifest, column: Column, other: Manifest) -> None:
    differ = (found.keys_digest != other.keys_digest).any(axis=1) | (found.samples != other.samples)
    if differ.any():
        shard = column.shard_names[int(differ.argmax())]
        raise DenseCLIError(
            f"Shard {shard} of {column.url} holds other samples than shard {shard} of {first.url}.",
            hint="Run densecli lint: it names what to delete and to build again.",
        )


def _check_joinable(columns: Sequence[Column]) -> None:
    check_photos(columns)
    first = columns[0]
    for i, column in enumerate(columns):
        canvases = [c.spec["data"]["canvas"] for c in (first, column)]
        if canvases[0] != canvases[1]:
            raise DenseCLIError(
                f"{first.url} was made for canvas {canvases[0]}, but {column.url} for canvas {canvases[1]}.",
                hint="Take columns of one store: cached maps cannot be resized.",
            )
        if column.spec["data"] != first.spec["data"]:
            raise DenseCLIError(
                f"{first.url} and {column.url} belong to different stores.",
                hint="Take columns of one store: only those hold the same samples.",
            )
        if column.part in [c.part for c in columns[:i]]:
            raise DenseCLIError(
                f"Two of the columns to read are called {column.part}.", hint="Choose one of them by its id."
            )
