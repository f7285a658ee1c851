"""JSON files that somebody else may have written, or a disk damaged: read strictly, and checked for types."""

import codecs
import json
import math
import os
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from densecli.core import fs
from densecli.core.errors import DenseCLIError

MAX_DEPTH = 64
"""Maximum depth of nested lists and objects."""


def read_document(url: str | os.PathLike[str], of: Any, *, noun: str, hint: str) -> Any:
    """Reads a JSON file.

    Args:
        url: Address of the file.
        of: What it holds: a type annotation of JSON values, such as a TypedDict or list[str].
        noun: What the file is, to begin a sentence: "The run's configuration".
        hint: What to do about a damaged one.

    Raises:
        FileNotFoundError: There is no such file.
        NotADirectoryError: What should be its folder is a file.
        DenseCLIError: It cannot be read, is no JSON, or its values have other types.
    """
    try:
        value = parse(fs.read_bytes(os.fspath(url)))
        check(value, of)
    except ValueError as error:
        raise DenseCLIError(f"{noun} {os.fspath(url)} is damaged: {error}.", hint=hint) from error
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise DenseCLIError(
            f"{noun} {os.fspath(url)} cannot be read: {error.strerror}.", hint="Check its permissions."
        ) from error
    return value


def parse(data: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        ValueError: It is no JSON. NaN, infinite numbers, a key twice, halves of characters and values deeper
            than `MAX_DEPTH` are none either.
    """
    value = parse_flat(data)
    left = [(value, 0)]
    while left:
        each, depth = left.pop()
        if depth > MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        if isinstance(each, list | dict):
            inner = each.values() if isinstance(each, dict) else each
            left += [(item, depth + 1) for item in inner if isinstance(item, list | dict)]
    return value


def parse_flat(data: bytes) -> Any:
    """Like `parse`, but faster and for any depth, for callers that check every type."""
    return _loads(data, parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_object)


def parse_foreign(data: bytes) -> Any:
    """As `parse_flat`, for other programs' files: accepts NaN, infinite numbers and a key twice.

    Where a file is large, the caller can name the place of such a number, as the error here could not.
    """
    # Editors on Windows begin a text with a mark.
    return _loads(data.removeprefix(codecs.BOM_UTF8))


def _loads(data: bytes, **how: Any) -> Any:
    try:
        value = json.loads(data.decode(), **how)
        if b"\\ud" in data or b"\\uD" in data:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        empty = "" if data.strip() else "; it is empty"
        raise ValueError(f"it is no JSON (line {error.lineno}, column {error.colno}){empty}") from None
    except UnicodeError:
        raise ValueError("it is no text in UTF-8") from None
    return value


def _no_number(word: str) -> None:
    raise ValueError(f"it has {word}, which is no number of JSON")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"it has a number that is too large, {text[:20]}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it has a key twice")
    return found


def check(value: Any, of: Any, name: str = "") -> None:
    """Checks a JSON value against a type annotation. Keys that a TypedDict does not name may hold anything.

    Raises:
        ValueError: It has another type. The text names the place, such as `shards[3]`.
    """
    origin, args = get_origin(of) or of, get_args(of)
    if origin is Any:
        return
    if origin in (Union, UnionType):
        if not any(_fits(value, each) for each in args):
            raise _wrong(name, args[0])
    elif origin is Literal:
        if value not in args:
            raise ValueError(f"{name or 'it'} is none of {', '.join(map(str, args))}")
    elif is_typeddict(origin):
        check(value, dict[str, Any], name)
        for key, each in get_type_hints(origin).items():
            if key in value:
                check(value[key], each, f"{name}.{key}" if name else key)
            elif key in origin.__required_keys__:
                raise ValueError(f"it lacks {f'{name}.{key}' if name else key}")
    elif origin is list:
        if not isinstance(value, list):
            raise _wrong(name, list)
        for place, item in enumerate(value):
            check(item, args[0], f"{name}[{place}]")
    elif origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise _wrong(name, dict)
        for key, item in value.items():
            check(item, args[1], f"{name}.{key}" if name else key)
    elif not _is(value, origin):
        raise _wrong(name, origin)


_NOUNS = {
    int: "a whole number", float: "a number", str: "a text", bool: "true or false", list: "a list",
    dict: "an object", type(None): "null",
}  # fmt: skip


def _wrong(name: str, of: Any) -> ValueError:
    return ValueError(f"{name[:60] or 'it'} is not {_NOUNS.get(get_origin(of) or of, 'an object')}")


def _fits(value: Any, of: Any) -> bool:
    try:
        check(value, of)
    except ValueError:
        return False
    return True


def _is(value: Any, of: type) -> bool:
    """Whether a value has a plain type; a whole number is a number too, and no truth value is one."""
    if isinstance(value, bool):
        return of is bool
    # Larger ones fit into no array.
    if isinstance(value, int):
        return of in (int, float) and abs(value) < 2**63
    return isinstance(value, of)


def finite(value: Any) -> Any:
    """A value with None for each number that is not finite, because JSON has no such numbers."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return value
