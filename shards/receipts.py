"""Receipts: what a finished shard holds. A shard exists if and only if its receipt does."""

import builtins
import re
import tarfile
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import Any

import numpy as np
import xxhash

from densecli.core.documents import check, parse_flat
from densecli.shards.keys import canonical_json

# How the build went, not what it made: a rebuild may change these, and nothing is checked against them.
RUN_FIELDS = ("seconds", "gpu_seconds")

# Members of a tar lie at multiples of it, each behind a header of one block, and two of zeros end the tar.
BLOCK = tarfile.BLOCKSIZE
# A USTAR header begins with the name, without a folder, and has the size in octal digits.
NAME_BYTES, SIZE_FIELD = tarfile.LENGTH_NAME, slice(124, 135)
_DIGEST = "digest"
_HEX = re.compile(r"[0-9a-f]+")
_FACTS = {"shard": str, "column": str, "samples": int, "keys_digest": str, "bytes": int, "xxh3": str}
_NUMBERS = {"skipped": int, "error": float, "seconds": float}


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """One finished shard of one column.

    Attributes:
        shard: Name of the shard.
        column: Full key of the column.
        samples: Number of samples.
        keys_digest: sha256 of the sample keys in order, see `keys_digest`.
        bytes: Size of the tar.
        xxh3: xxh3-64 of the tar, as hex.
        members: Offset of the first data byte and size of each tar member.
        skipped: Number of skipped samples by reason.
        error: The codec's error, measured on this shard.
        seconds: Seconds of the build by stage.
        gpu_seconds: Seconds of the build on a GPU.
    """

    shard: str
    column: str
    samples: int
    keys_digest: str
    bytes: int
    xxh3: str
    members: dict[str, tuple[int, int]]
    skipped: dict[str, int] = field(default_factory=dict)
    error: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    gpu_seconds: float = 0.0

    def to_json(self) -> builtins.bytes:
        """Canonical JSON. The fields that a rebuild may change are grouped under `run`.

        `digest` is the xxh3-64 of the canonical JSON of all the others.
        """
        facts = {f.name: getattr(self, f.name) for f in fields(self)}
        run = {name: facts.pop(name) for name in RUN_FIELDS}
        return canonical_json({**facts, _DIGEST: _digest(facts), "run": run})

    @classmethod
    def from_json(cls, data: builtins.bytes) -> "Receipt":
        """The receipt in a file. One that an earlier version wrote has no digest.

        Raises:
            ValueError: It is no receipt, not the one that was written, or no tar can be as it says.
        """
        document = parse_flat(data)
        check(document, dict[str, Any])
        run, digest = document.pop("run", {}), document.pop(_DIGEST, None)
        check(run, dict[str, Any], "run")
        members = document.get("members")
        flat = {**document, **run}
        if unknown := flat.keys() - {f.name for f in fields(cls)}:
            raise ValueError(f"it has the unknown entry {sorted(unknown)[0][:40]!r}")
        for name, kind in _FACTS.items():
            if name not in flat:
                raise ValueError(f"it lacks {name}")
            check(flat[name], kind, name)
        for name, kind in _NUMBERS.items():
            check(flat.get(name, {}), dict[str, kind], name)  # type: ignore[valid-type]
        check(flat.get("gpu_seconds", 0.0), float, "gpu_seconds")
        _check_members(members, flat["bytes"])
        if not 0 <= flat["samples"] <= len(flat["members"]):
            raise ValueError("it counts other samples than it lists")
        if not _HEX.fullmatch(flat["xxh3"]):
            raise ValueError("its checksum is none")
        if digest is not None and digest != _digest(document):
            raise ValueError("its own checksum is another")
        flat["members"] = {name: (offset, size) for name, (offset, size) in flat["members"].items()}
        return cls(**flat)


def _digest(facts: dict[str, Any]) -> str:
    return xxhash.xxh3_64_hexdigest(canonical_json(facts))


def _check_members(members: Any, size: int) -> None:
    """Raises ValueError for members that no tar of this size can have."""
    # `check` would look at the type of every name.
    if not isinstance(members, dict):
        raise ValueError("members is not an object")
    places = list(members.values())
    if set(map(type, places)) - {list} or set(map(len, places)) - {2}:
        raise ValueError("a member has no offset and size")
    if set(map(type, chain.from_iterable(places))) - {int}:
        raise ValueError("a member has no offset and size")
    for name in members:
        key, dot, extension = name.partition(".")
        if not (key and dot and extension):
            raise ValueError(f"its member {name[:40]!r} has no key or no extension")
    try:
        table = np.fromiter(chain.from_iterable(places), np.int64).reshape(-1, 2)
    except OverflowError:
        raise ValueError("a member lies outside of the tar") from None
    first, sizes = table[np.lexsort(table.T[::-1])].T
    if len(table) and (first.min() < BLOCK or sizes.min() < 0 or max(first.max(), sizes.max()) > size):
        raise ValueError("a member lies outside of the tar")
    ends = first + sizes
    if len(table) and ends.max() > size - 2 * BLOCK:
        raise ValueError("a member lies outside of the tar")
    if (first % BLOCK).any() or (first[1:] - BLOCK < ends[:-1]).any():
        raise ValueError("members lie over each other")
