"""Odd values, texts and bytes: what fuzzers put into files."""

import random
from collections.abc import Sequence
from typing import Any

TEXTS = (
    "", " ", "0", "-1", "nan", "inf", "1e999", "null", "true", "\0", "a\0b", "\n", "\r\n", "\t", "\ufeff",
    "\u202ecod.exe", "\u200b", "\u2028", "é", "e\u0301", "💥", "\x1b[31mred", "\x1b]0;title\x07", "\x9b31m",
    "=1+1", "+cmd|' /C calc'!A0", "@SUM(A1)", "a|b", "`a`", "<script>alert(1)</script>", "{{7*7}}", "%s%n",
    "$(id)", "`id`", "; id", "../../outside/secret.txt", "/etc/passwd", "~", "~root", ".", "..", "CON", "a/b",
    "x" * 300, "x" * 10_000,
)  # fmt: skip
"""Texts that something might take for more than text."""
NUMBERS = (
    0, -1, 1, 2, 255, 256, -(2**31), 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**30, 10**400,
    0.0, -0.0, 0.1, 1e-320, 1e308, float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
"""Numbers at the ends of their types."""


def odd_text(rng: random.Random) -> str:
    """One of TEXTS, two of them, or characters at random."""
    match rng.randrange(4):
        case 0 | 1:
            return rng.choice(TEXTS)
        case 2:
            return rng.choice(TEXTS) + rng.choice(TEXTS)
        case _:
            high = rng.choice((0x7F, 0x7FF, 0xD7FF, 0x10FFFF))
            return "".join(_char(rng, high) for _ in range(rng.randrange(20)))


def odd_value(rng: random.Random, depth: int = 2) -> Any:
    """A value of any of JSON's types."""
    match rng.randrange(8 if depth else 5):
        case 0:
            return rng.choice((None, True, False))
        case 1 | 2:
            return rng.choice(NUMBERS)
        case 3 | 4:
            return odd_text(rng)
        case 5 | 6:
            return [odd_value(rng, depth - 1) for _ in range(rng.randrange(4))]
        case _:
            return {odd_text(rng): odd_value(rng, depth - 1) for _ in range(rng.randrange(4))}


def mutated_value(rng: random.Random, value: Any, changes: int = 1) -> Any:
    """A copy of a JSON value in which some places hold another value, are gone, or are there twice."""
    for _ in range(changes):
        value = _mutated_once(rng, value)
    return value


def mutated(rng: random.Random, data: bytes, changes: int | None = None) -> bytes:
    """Bytes with some of them changed, cut out, put in, repeated or moved.

    Args:
        rng: Decides.
        data: What to begin with.
        changes: How many; None for a few.
    """
    data = bytes(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8)) if changes is None else changes):
        at = rng.randrange(len(data) + 1)
        size = min(rng.choice((1, 1, 2, 4, 8, 64, 512)), len(data) - at)
        part = data[at : at + size]
        match rng.randrange(8):
            case 0:
                part = bytes(byte ^ (1 << rng.randrange(8)) for byte in part)
            case 1:
                part = rng.randbytes(size)
            case 2:
                part = b""
            case 3:
                part = part * rng.choice((2, 3, 50))
            case 4:
                part += rng.choice((b"\0" * 8, b"\xff" * 8, b"\n", b"\r", b'"', b",", b"{", b"[" * 10**5))
            case 5:
                part = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * size
            case 6:
                other = rng.randrange(len(data) + 1)
                part = data[other : other + size]
            case _:
                return data[:at]
        data = data[:at] + part + data[at + size :]
    return data


def one_of(rng: random.Random, *choices: Any) -> Any:
    """One of the choices, called where it is a function."""
    chosen = rng.choice(choices)
    return chosen() if callable(chosen) else chosen


def _mutated_once(rng: random.Random, value: Any) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        match rng.randrange(10):
            case 0:
                return {name: each for name, each in value.items() if name != key}
            case 1:
                return {**value, odd_text(rng): odd_value(rng)}
            case _:
                return {**value, key: _mutated_once(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        match rng.randrange(10):
            case 0:
                return [*value[:at], *value[at + 1 :]]
            case 1:
                return [*value, value[at]]
            case _:
                return [*value[:at], _mutated_once(rng, value[at]), *value[at + 1 :]]
    return odd_value(rng)


def _char(rng: random.Random, high: int) -> str:
    code = rng.randrange(high + 1)
    return chr(code if not 0xD800 <= code <= 0xDFFF else 0xFFFD)


def sample(rng: random.Random, choices: Sequence[Any], most: int) -> list[Any]:
    """Up to `most` of the choices, with repetitions."""
    return [rng.choice(choices) for _ in range(rng.randrange(most + 1))]
