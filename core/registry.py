"""Registries: the values that names on the command line stand for, built-in ones and those of plug-ins.

There is one registry for each kind of thing that can be added. The room that owns the kind names the package
whose modules register the built-in values. A plug-in is any module that registers more:

    from densecli.core.registry import registry

    @registry("schedules").register("constant", help="The peak rate throughout.")
    def constant(step, *, peak, warmup_steps, total_steps): ...

`densecli.core.plugins` says how it is found.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from densecli.core.errors import DenseCLIError
from densecli.core.plugins import load_plugins

T = TypeVar("T")
V = TypeVar("V")
KINDS = (
    *("ablations", "benchmarks", "categories", "codecs", "commands", "datasets", "exports", "families"),
    *("kinds", "loggers", "losses", "methods", "models", "schedules", "teachers", "vfms"),
)
"""Kinds whose names densecli reads; others are refused, because a plug-in may have misspelt one."""


SHOWN = 40
"""Names that an error lists: there may be thousands."""


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
    """The values of one kind by name. The first look-up imports the built-in modules and plug-ins."""

    def __init__(self, kind: str) -> None:
        """Use `registry` instead, which returns the same registry for the same kind."""
        self.kind = kind
        self.noun = kind.removesuffix("s")
        self.package: str | None = None
        self.of: type[Any] = object
        self.reserved: frozenset[str] = frozenset()
        self._entries: dict[str, Entry] = {}
        self._values: dict[str, T] = {}

    def register(self, name: str, *, help: str, needs: str = "") -> Callable[[V], V]:
        """Returns a decorator that registers a class or function.

        Args:
            name: The name that users write.
            help: One line for `densecli list`.
            needs: What it needs besides densecli itself, such as a package.

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
        other = entry.name in self._entries and self._entries[entry.name] != entry
        if other or entry.name in self.reserved:
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
            self._values[name] = self._imported(self._entries[name])
        value = self._values[name]
        if not isinstance(value, self.of):
            raise DenseCLIError(
                f"The {self.noun} {name} is registered as {type(value).__name__}, not as {self.of.__name__}.",
                hint="Correct the plug-in that registers it.",
            )
        return value

    def _imported(self, entry: Entry) -> T:
        """Imports the value of a lazy entry."""
        module, _, attribute = entry.target.partition(":")
        try:
            value: T = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise DenseCLIError(
                f"The {self.noun} {entry.name} cannot be imported from {entry.target}: {error}.",
                hint="Install what is missing, or correct the plug-in that registers it.",
            ) from error
        return value

    def unknown(self, name: str, *, noun: str | None = None) -> DenseCLIError:
        """The error for a name that is not registered: it suggests the nearest names, or lists all."""
        more = f"densecli list {self.kind} describes them; --plugin MODULE loads those of a plug-in."
        return unknown_name(noun or self.noun, name, self, more=more)

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


def registry(
    kind: str,
    *,
    package: str | None = None,
    noun: str | None = None,
    of: Any = None,
    reserved: Iterable[str] = (),
) -> Registry[Any]:
    """Returns the registry of a kind, and makes it at the first call.

    A plug-in gives only the kind. The other arguments are for the module that owns the kind.

    Args:
        kind: A plural, as in `densecli list KIND`.
        package: Package whose modules register the built-in values.
        noun: Singular for error messages, by default `kind` without its s.
        of: Class of the values, checked at look-up.
        reserved: Names that cannot be registered.

    Returns:
        The registry, whose `register` and `add` take new names.

    Raises:
        DenseCLIError: There is no such kind.
    """
    if kind not in _REGISTRIES and kind not in KINDS and not (package or noun):
        raise unknown_name("kind of name", kind, KINDS)
    found = _REGISTRIES.setdefault(kind, Registry(kind))
    found.package = package or found.package
    found.noun = noun or found.noun
    found.of = of or found.of
    found.reserved |= frozenset(reserved)
    return found


def unknown_name(noun: str, name: str, known: Iterable[str], *, more: str = "") -> DenseCLIError:
    """The error for a name that is not among `known`: its hint names the nearest, or the first of them."""
    return DenseCLIError(
        f"There is no {noun} called {name!r}.", hint=f"{suggestion(name, known)} {more}".strip()
    )


def suggestion(name: str, known: Iterable[str]) -> str:
    """A hint for a name that is not among `known`: the nearest ones, or the first where none is near."""
    names = list(known)
    if near := difflib.get_close_matches(name, names, n=3, cutoff=0.6):
        return f"Did you mean {' or '.join(near)}?"
    others = f" and {len(names) - SHOWN} others" if len(names) > SHOWN else ""
    return f"Known: {', '.join(names[:SHOWN]) or 'none'}{others}."
