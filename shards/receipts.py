"""Receipts: what a finished shard holds. A shard exists if and only if its receipt does."""

import builtins
import json
from dataclasses import dataclass, field, fields

from densecli.shards.keys import canonical_json

# How the build went, not what it made: a rebuild may change these, and nothing is checked against them.
RUN_FIELDS = ("seconds", "gpu_seconds")


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
        """Canonical JSON. The fields that a rebuild may change are grouped under `run`."""
        flat = {f.name: getattr(self, f.name) for f in fields(self)}
        run = {name: flat.pop(name) for name in RUN_FIELDS}
        return canonical_json({**flat, "run": run})

    @classmethod
    def from_json(cls, data: builtins.bytes) -> "Receipt":
        """The receipt in a file. Raises ValueError, KeyError or TypeError if `data` is not a receipt."""
        flat = json.loads(data)
        run = flat.pop("run")
        members = {name: (offset, size) for name, (offset, size) in flat.pop("members").items()}
        return cls(**flat, **run, members=members)
