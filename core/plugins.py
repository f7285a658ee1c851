"""Plug-ins: modules that register names of their own, see `densecli.core.registry`.

One is loaded by `--plugin MODULE`, through the environment variable DENSECLI_PLUGINS (names separated by the
path separator), or through an entry point of the group `densecli` in an installed distribution.
"""

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from densecli.core.addresses import expanded
from densecli.core.errors import DenseCLIError

GROUP = "densecli"
"""Group of the entry points that name plug-in modules."""
VARIABLE = "DENSECLI_PLUGINS"
"""Environment variable with the plug-ins of this process and of those that it starts."""


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
    if name.endswith(".py"):
        return str(Path(name).absolute())
    path = Path(f"{name.replace('.', '/')}.py")
    return str(path.absolute()) if path.is_file() and not _installed(name) else name


def _installed(module: str) -> bool:
    top = module.partition(".")[0]
    return bool(top) and importlib.util.find_spec(top) is not None


@cache
def _load_installed() -> None:
    for point in entry_points(group=GROUP):
        origin = point.dist.name if point.dist else "another distribution"
        with _told(f"The plug-in {point.name} of {origin}", hint=f"Repair or uninstall {origin}."):
            point.load()


@cache
def _load(name: str) -> None:
    if name.endswith(".py"):
        _load_file(Path(name))
        return
    if not _installed(name):
        raise DenseCLIError(
            f"There is no plug-in called {name!r}.",
            hint="Name an importable module, or the path of a .py file.",
        )
    with _told(f"The plug-in {name}", hint="Correct the module."):
        importlib.import_module(name)


def _load_file(path: Path) -> None:
    """Imports a file under its own name, by which unpickling also finds what it defines."""
    name = path.stem
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == str(path):
        return
    if not path.is_file():
        raise DenseCLIError(f"There is no plug-in {path}.", hint="Name the path of a .py file.")
    if "." in name:
        raise DenseCLIError(
            f"The name of the plug-in {path} has a dot, which divides packages.", hint="Rename the file."
        )
    # A folder of that name, which is a namespace package, has no origin.
    other = None if name in sys.modules else importlib.util.find_spec(name)
    if name in sys.modules or (other and other.origin and Path(other.origin) != path):
        raise DenseCLIError(
            f"The plug-in {path} has the name of another module, {name}, which it would hide.",
            hint="Rename the file.",
        )
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader, path
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        with _told(f"The plug-in {path}", hint="Correct the file."):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


@contextmanager
def _told(plugin: str, *, hint: str) -> Iterator[None]:
    """Says which plug-in cannot be imported, why, and which of its lines is the cause."""
    try:
        yield
    except DenseCLIError as error:
        raise DenseCLIError(f"{plugin} cannot be used. {error}", hint=error.hint) from error
    # A plug-in is anybody's code; a script that was not meant to be one may end in sys.exit.
    except (Exception, SystemExit) as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise DenseCLIError(f"{plugin} cannot be imported: {what}{_line(error)}.", hint=hint) from error


def _line(error: BaseException) -> str:
    """Where the error was raised, unless that is within the import itself."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename != __file__ and "importlib" not in frame.filename]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
