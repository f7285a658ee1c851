"""Registries: the values that names on the command line stand for, built-in ones and those of plug-ins.

There is one registry for each kind of thing that can be added. The room that owns the kind names the package
whose modules register the built-in values. A plug-in is any module that registers more:

    from densecli.core.registry import registry

    @registry("schedules").register("constant", help="The peak rate throughout.")
    def constant(step, *, peak, warmup_steps, total_steps): ...

It is loaded by `--plugin MODULE`, through the environment variable DENSECLI_PLUGINS (names separated by the
path separator), or through an entry point of the group `densecli` in an installed distribution.
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
from typing import Any, Generic, TypeVar, cast

from densecli.core.addresses import expanded
from densecli.core.errors import DenseCLIError

T = TypeVar("T")
V = TypeVar("V")
GROUP = "densecli"
"""Group of the entry points that name plug-in modules."""
VARIABLE = "DENSECLI_PLUGINS"
"""Environment variable with the plug-ins of this process and of those that it starts."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What `densecli list` shows about a name.

    Attributes:
        name: The registered name.
        help: One line.
        needs: What it needs beside densecli itself, such as a package or weights.
        target: "module:attribute" of a value that is imported when it is first looked up.
    """

    name: str
    help: str
    needs: str = ""
    target: str = ""


class Registry(Generic[T]):
    """The values of one kind by name. Built-in modules and plug-ins are imported at the first look-up."""

    def __init__(self, kind: str) -> None:
        """See `registry`, which makes them."""
        self.kind = kind
        self.noun = kind.removesuffix("s")
        self.package: str | None = None
        self._entries: dict[str, Entry] = {}
        self._values: dict[str, T] = {}

    def register(self, name: str, *, help: str, needs: str = "") -> Callable[[V], V]:
        """A decorator that registers a class or function under a name.

        Args:
            name: What users write.
            help: One line for `densecli list`.
            needs: What it needs beside densecli itself.

        Raises:
            DenseCLIError: The name is taken.
        """

        def decorate(value: V) -> V:
            # Not typed as T: a decorated class keeps its own type.
            self.add(name, cast(T, value), help=help, needs=needs)
            return value

        return decorate

    def add(self, name: str, value: T, *, help: str, needs: str = "") -> None:
        """Registers a value as `register` does."""
        self._claim(Entry(name=name, help=help, needs=needs))
        self._values[name] = value

    def add_lazy(self, name: str, target: str, *, help: str, needs: str = "") -> None:
        """Registers "module:attribute", which is imported when the name is first looked up."""
        self._claim(Entry(name=name, help=help, needs=needs, target=target))

    def _claim(self, entry: Entry) -> None:
        # Importing a module twice under two names (by path and by name) registers equal things twice.
        if entry.name in self._entries and self._entries[entry.name] != entry:
            raise DenseCLIError(
                f"There are two {self.kind} called {entry.name!r}.",
                hint="Register the second one under another name.",
            )
        self._entries[entry.name] = entry

    def __getitem__(self, name: str) -> T:
        """The value of a name. Raises DenseCLIError for an unknown one, with the nearest names."""
        self.load()
        if name not in self._entries:
            raise self.unknown(name)
        if name not in self._values:
            module, _, attribute = self._entries[name].target.partition(":")
            self._values[name] = getattr(importlib.import_module(module), attribute)
        return self._values[name]

    def unknown(self, name: str, *, noun: str | None = None) -> DenseCLIError:
        """The error for a name that is not registered: it suggests the nearest names, or lists all."""
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
        """What `densecli list` shows about each name; imports no lazy value."""
        self.load()
        return list(self._entries.values())

    def load(self) -> None:
        """Imports the modules of the registry's package, then the plug-ins, each once."""
        package, self.package = self.package, None
        if package:
            for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
                importlib.import_module(f"{package}.{module.name}")
        load_plugins()


_REGISTRIES: dict[str, Registry[Any]] = {}


def registry(kind: str, *, package: str | None = None, noun: str | None = None) -> Registry[Any]:
    """The registry of a kind, made at the first call.

    Args:
        kind: A plural, as in `densecli list KIND`.
        package: Package whose modules register the built-in values; given by the room that owns the kind.
        noun: What one of them is called in error messages. By default `kind` without its s.
    """
    found = _REGISTRIES.setdefault(kind, Registry(kind))
    found.package = package or found.package
    found.noun = noun or found.noun
    return found


def unknown_name(noun: str, name: str, known: Iterable[str], *, more: str = "") -> DenseCLIError:
    """The error for a name that is not among `known`: its hint names the nearest of them, or all."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(names) or 'none'}."
    return DenseCLIError(f"There is no {noun} called {name!r}.", hint=f"{hint} {more}".strip())


def load_plugins() -> None:
    """Imports the plug-ins of installed distributions and those that the environment names, each once.

    Raises:
        DenseCLIError: One cannot be imported.
    """
    _load_installed()
    use_plugins([])


def plugins() -> list[str]:
    """The plug-ins that the environment names."""
    return [expanded(name) for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]


def use_plugins(names: Iterable[str]) -> None:
    """Adds plug-ins to this process and to those that it starts.

    Args:
        names: Dotted modules, or paths of .py files. A module that is not installed is also looked for as a
            file in the working folder; that folder is not put on Python's path.

    Raises:
        DenseCLIError: One cannot be imported.
    """
    # Located now: a later look-up may come from another working folder.
    wanted = dict.fromkeys(_located(name) for name in [*plugins(), *names])
    for name in wanted:
        _load(name)
    if wanted:
        os.environ[VARIABLE] = os.pathsep.join(wanted)


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
    """Imports a file under its own name, by which unpickling also finds what it defines."""
    name = path.stem
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == str(path):
        return sys.modules[name]
    # A folder of that name, which is a namespace package, has no origin.
    other = None if name in sys.modules else importlib.util.find_spec(name)
    if name in sys.modules or (other and other.origin and Path(other.origin) != path):
        raise DenseCLIError(
            f"The plug-in {path} has the name of another module, {name}, which it would hide.",
            hint="Rename the file.",
        )
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"no Python file at {path}")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
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
