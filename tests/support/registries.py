"""Registry entries of a test's own."""

from typing import Any

import pytest

from densecli.core.registry import Entry, Registry


def put(monkeypatch: pytest.MonkeyPatch, registry: Registry[Any], name: str, value: object) -> None:
    """Adds a value, or puts it in the place of the registered one, until the test ends."""
    registry.load()
    monkeypatch.setitem(registry._entries, name, Entry(name=name, help="Of a test."))
    monkeypatch.setitem(registry._values, name, value)
