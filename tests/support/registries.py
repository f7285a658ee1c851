"""Registry entries of a test's own."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from densecli.commands.name_kinds import KINDS
from densecli.core import plugins
from densecli.core.registry import _REGISTRIES, Entry, Registry, registry


def put(monkeypatch: pytest.MonkeyPatch, registry: Registry[Any], name: str, value: object) -> None:
    """Adds a value, or puts it in the place of the registered one, until the test ends."""
    registry.load()
    monkeypatch.setitem(registry._entries, name, Entry(name=name, help="Of a test."))
    monkeypatch.setitem(registry._values, name, value)


@contextmanager
def plugins_of_its_own() -> Iterator[None]:
    """What plug-ins register in the block is forgotten after it, as with a process of its own."""
    for name, kind in KINDS.items():
        import_module(kind.module)
        registry(name).load()
    kept = [(found, dict(found._entries), dict(found._values)) for found in _REGISTRIES.values()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(plugins.VARIABLE, "")
        try:
            yield
        finally:
            for name in plugins.plugins():
                sys.modules.pop(Path(name).stem, None)
            plugins._load.cache_clear()
            for found, entries, values in kept:
                found._entries, found._values = entries, values
