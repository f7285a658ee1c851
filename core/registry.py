"""Registries: what the names on the command line stand for, ours and those of plug-ins.

A room has one registry for each kind of thing that can be added to it, and names the package whose modules
register the built-in ones. A plug-in is any module that registers more:

    from densecli.core.registry import registry

    @registry("schedules").register("constant", help="The peak rate throughout.")
    def constant(step, *, peak, warmup_steps, total_steps): ...

It is loaded by `--plugin MODULE`, by the environment variable DENSECLI_PLUGINS (names separated by the path
separator), or by an entry point of the group `densecli` in an installed distribution.
"""

import difflib
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from densecli.core.errors import DenseCLIError

T = TypeVar("T")
GROUP = "densecli"
"""Group of the entry points that name plug-in modules."""
VARIABLE = "DENSECLI_PLUGINS"
"""Environment variable with the plug-ins of this process and of those that it starts."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What `densecli list` shows of a name: one line of help, and what it needs beside densecli itself.

    target: "module:attribute" of a value that is imported when it is first looked up.
    """

    name: str
    help: str
    needs: str = ""
    target: str = ""


class Registry(Generic[T]):
    """The values of one kind by name. Built-in modules and plug-ins are imported at the first look-up."""

    def __init__(self, kind: str) -> None:
        """kind: as in `densecli list KIND`, a plural: losses."""
        self.kind = kind
        self.noun = kind.removesuffix("s")
        self.package: str | None = None
        self._entries: dict[str, Entry] = {}
        self._values: dict[str, T] = {}

    def register(self, name: str, *, help: str, needs: str = "") -> Callable[[T], T]:
        """A decorator that registers its value under a name. Raises DenseCLIError where the name is taken."""

        def decorate(value: T) -> T:
            self._claim(Entry(name=name, help=help, needs=needs), value)
            self._values[name] = value
            return value

        return decorate

    def add(self, name: str, value: T, *, help: str, needs: str = "") -> None:
        """Registers a value as `register` does."""
        self.register(name, help=help, needs=needs)(value)

    def add_lazy(self, name: str, target: str, *, help: str, needs: str = "") -> None:
        """Registers "module:attribute", which is imported when the name is first looked up."""
        self._claim(Entry(name=name, help=help, needs=needs, target=target), target)

    def _claim(self, entry: Entry, value: object) -> None:
        # Importing a module twice under two names (by path and by name) registers equal things twice.
        if entry.name in self._entries and self._entries[entry.name] != entry:
            raise DenseCLIError(
                f"There are two {self.kind} called {entry.name!r}.",
                hint="Register the second one under another name.",
            )
        self._entries[entry.name] = entry

    def __getitem__(self, name: str) -> T:
        """The value of a name. Raises DenseCLIError with the nearest names for an unknown one."""
        self.load()
        if name not in self._entries:
            raise self.unknown(name)
        if name not in self._values:
            module, _, attribute = self._entries[name].target.partition(":")
            self._values[name] = getattr(importlib.import_module(module), attribute)
        return self._values[name]

    def unknown(self, name: str, *, noun: str | None = None) -> DenseCLIError:
        """The error for a name that is not registered: it suggests the nearest, or lists them all."""
        return unknown_name(noun or self.noun, name, self, more=f"densecli list {self.kind} describes them.")

    def __contains__(self, name: object) -> bool:
        self.load()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self.load()
        return iter(list(self._entries))

    def __len__(self) -> int:
        self.load()
        return len(self._entries)

    def items(self) -> Iterator[tuple[str, T]]:
        """Names and values, the built-in ones first."""
        return ((name, self[name]) for name in self)

    def entries(self) -> list[Entry]:
        """What there is to say of each name; imports no lazy value."""
        self.load()
        return list(self._entries.values())

    def load(self) -> None:
        """Imports the built-in modules of the registry's package, then the plug-ins; once."""
        package, self.package = self.package, None
        if package:
            for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
                importlib.import_module(f"{package}.{module.name}")
        load_plugins()


_REGISTRIES: dict[str, Registry[Any]] = {}


def registry(kind: str, *, package: str | None = None, noun: str | None = None) -> Registry[Any]:
    """The one registry of a kind, made when it is first asked for.

    package: whose modules register the built-in values, said by the room that owns the kind. noun: one of the
    kind, for error messages.
    """
    found = _REGISTRIES.setdefault(kind, Registry(kind))
    found.package = package or found.package
    found.noun = noun or found.noun
    return found


def unknown_name(noun: str, name: str, known: Iterable[str], *, more: str = "") -> DenseCLIError:
    """The error for a name that is none of `known`: its hint is the nearest of them, or all."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(names) or 'none'}."
    return DenseCLIError(f"There is no {noun} called {name!r}.", hint=f"{hint} {more}".strip())


def load_plugins() -> None:
    """Imports the plug-ins of installed distributions and those that the environment names; each once.

    Raises DenseCLIError for one that cannot be imported.
    """
    _load_installed()
    use_plugins([])


def plugins() -> list[str]:
    """The plug-ins that the environment names."""
    return [name for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]


def use_plugins(names: Iterable[str]) -> None:
    """Adds plug-ins to this process and to those that it starts.

    A name is a dotted module, or the path of a .py file. A module that is not installed is also looked for as
    a file in the working folder; that folder is not put on Python's path.
    """
    # Located now: a later look-up may come from another working folder.
    wanted = dict.fromkeys(_located(name) for name in [*plugins(), *names])
    if wanted:
        os.environ[VARIABLE] = os.pathsep.join(wanted)
    for name in wanted:
        _load(name)


def _located(name: str) -> str:
    path = Path(name if name.endswith(".py") else f"{name.replace('.', '/')}.py")
    installed = not name.endswith(".py") and importlib.util.find_spec(name.partition(".")[0]) is not None
    return name if installed or not path.is_file() else str(path.absolute())


@cache
def _load_installed() -> None:
    for point in entry_points(group=GROUP):
        _imported(point.value, point.load)


@cache
def _load(name: str) -> None:
    if name.endswith(".py"):
        _imported(name, lambda: _load_file(Path(name)))
    else:
        _imported(name, lambda: importlib.import_module(name))


def _load_file(path: Path) -> ModuleType:
    """Imports a file under its own name, by which what it defines is also found when it is unpickled."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"no Python file at {path}")
    if path.stem in sys.modules:
        raise DenseCLIError(
            f"The plug-in {path} has the name of another module, {path.stem}.", hint="Rename the file."
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


def _imported(name: str, load: Callable[[], object]) -> None:
    try:
        load()
    except DenseCLIError:
        raise
    except Exception as error:  # a plug-in is anybody's code
        raise DenseCLIError(
            f"The plug-in {name} cannot be imported: {type(error).__name__}: {error}.",
            hint="Name an importable module, or the path of a .py file.",
        ) from error
