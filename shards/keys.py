"""Content addresses: a column's name follows from all that its bytes depend on."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: equal values give equal bytes.

    Raises:
        ValueError: The value has NaN or infinities.
        TypeError: The value has something that JSON cannot express.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def column_key(spec: Mapping[str, object]) -> str:
    """sha256 of the spec's canonical JSON, 64 hex digits."""
    return hashlib.sha256(canonical_json(spec)).hexdigest()


def short_id(key: str) -> str:
    """The first 12 hex digits of a column key, as in folder names."""
    return key[:12]


def keys_digest(keys: list[str]) -> str:
    """sha256 of the sample keys in order, each followed by a newline, 64 hex digits."""
    return hashlib.sha256("".join(f"{key}\n" for key in keys).encode()).hexdigest()
