"""densecli: run vision-language teachers once, then train dense CLIP students from their stored outputs.

The names in `__all__` are the public interface and stay stable; everything else may change between releases.

- `Store`: opens a store and reads its columns and samples.
- `SampleDataset`, `SampleStream`, `collate`: a store as torch data sets, decoded, for a loop of your own.
- `load`: loads a student, one of the models that ship with densecli, or an export of a training.
- `registry`: the registry of one kind of thing that plug-ins can add, such as teachers or codecs.
- `TargetKind`: describes a new kind of target, for plug-ins.
- `DenseCLIError`: the error for everything that users can correct; its `hint` says how.

Importing the package loads neither torch nor numpy nor Ray: each name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Imported first of all: it remembers when the process began.
from densecli.core import startup as startup

if TYPE_CHECKING:
    from densecli.core.errors import DenseCLIError as DenseCLIError
    from densecli.core.registry import registry as registry
    from densecli.models import load as load
    from densecli.shards.kinds import TargetKind as TargetKind
    from densecli.shards.store import Store as Store
    from densecli.train.datasets import SampleDataset as SampleDataset
    from densecli.train.datasets import SampleStream as SampleStream
    from densecli.train.datasets import collate as collate

    __version__: str

_PUBLIC = {
    "DenseCLIError": "densecli.core.errors",
    "SampleDataset": "densecli.train.datasets",
    "SampleStream": "densecli.train.datasets",
    "Store": "densecli.shards.store",
    "TargetKind": "densecli.shards.kinds",
    "collate": "densecli.train.datasets",
    "load": "densecli.models",
    "registry": "densecli.core.registry",
}

__all__ = [
    "DenseCLIError",
    "SampleDataset",
    "SampleStream",
    "Store",
    "TargetKind",
    "__version__",
    "collate",
    "load",
    "registry",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("densecli")
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'densecli' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
