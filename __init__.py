"""densecli: run vision-language teachers once, then train dense CLIP students from what they said.

The names in `__all__` are the public interface and stay stable; everything else may change between releases.
Importing the package loads neither torch nor Ray: each name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Imported first of all: it remembers when the process began.
from densecli.core import startup as startup

if TYPE_CHECKING:
    from densecli.models import load as load
    from densecli.shards.store import Store as Store

_PUBLIC = {"Store": "densecli.shards.store", "load": "densecli.models"}

__all__ = ["Store", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("densecli")
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'densecli' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
