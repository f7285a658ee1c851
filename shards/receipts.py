"""Receipts: what a finished shard holds, written after it. A shard exists if and only if its receipt does."""

import builtins
import json
from dataclasses import dataclass, field, fields

from densecli.shards.keys import canonical_json

# How a build went rather than what it made: a rebuild may change these, and nothing is checked against them.
RUN_FIELDS = ("seconds", "gpu_seconds")


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """One shard of one column.

    `column` is the column's full key; `keys_digest` and `xxh3` are hex digests; `members` maps each tar
    member to (offset of its first data byte, bytes); `skipped` counts samples by reason; `error` is the
    codec's error measured on this shard; `seconds` is by stage.
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
        """Canonical JSON; the fields that a rebuild may change stand together under `run`."""
        flat = {f.name: getattr(self, f.name) for f in fields(self)}
        run = {name: flat.pop(name) for name in RUN_FIELDS}
        return canonical_json({**flat, "run": run})

    @classmethod
    def from_json(cls, data: builtins.bytes) -> "Receipt":
        """Raises ValueError, KeyError or TypeError when `data` is not a receipt."""
        flat = json.loads(data)
        run = flat.pop("run")
        members = {name: (offset, size) for name, (offset, size) in flat.pop("members").items()}
        return cls(**flat, **run, members=members)
