"""Content addresses: a column is named by what it was asked to be."""

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: one text for one value.

    Raises ValueError on NaN and infinities, TypeError on what JSON has no word for.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def column_key(spec: dict) -> str:
    """sha256 (64 hex) of the spec's canonical JSON."""
    return hashlib.sha256(canonical_json(spec)).hexdigest()


def short_id(key: str) -> str:
    """The first 12 hex of a column key, as it stands in folder names."""
    return key[:12]


def keys_digest(keys: list[str]) -> str:
    """sha256 (64 hex) of the sample keys in order, each followed by a newline."""
    return hashlib.sha256("".join(f"{key}\n" for key in keys).encode()).hexdigest()
