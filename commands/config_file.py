"""Configuration files: the options of a command by name, from TOML or from the config.json of a run."""

import difflib
import json
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from densecli.core.errors import DenseCLIError
from densecli.core.setting import Setting


class Configurable(Protocol):
    """Anything with options: a command; see `densecli.commands.command.Command`."""

    @property
    def name(self) -> str | None:
        """Name of the command."""
        ...

    @property
    def settings(self) -> Mapping[str, Setting]:
        """Its settings by name."""
        ...

    @property
    def resolved(self) -> Collection[str]:
        """Keys that a file may hold although they are no options."""
        ...

    @property
    def upgrade(self) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        """Puts values of an earlier version into those of this one."""
        ...


def read_config(path: str, command: Configurable) -> dict[str, Any]:
    """The values of a configuration file by the name of their setting, as click takes them.

    Raises DenseCLIError for a file that cannot be read, an unknown key, and a value that is not allowed.
    """
    read = {".toml": tomllib.loads, ".json": json.loads}.get(Path(path).suffix)
    if read is None:
        raise DenseCLIError(f"{path} is not a .toml or .json file.", hint="Give such a file as --config.")
    try:
        document = read(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DenseCLIError(
            f"The configuration {path} cannot be read: {error}.", hint="Correct the file."
        ) from None
    if not isinstance(document, dict):
        raise DenseCLIError(
            f"The configuration {path} is not a table of options.", hint="Write lines NAME = VALUE."
        )
    if not document.keys().isdisjoint(command.resolved):
        document = command.upgrade(document)
    keys = {each.option.replace("-", "_"): name for name, each in command.settings.items()}
    keys |= {name: name for name in command.settings}
    # A file names no other file.
    keys.pop("config", None)
    values: dict[str, Any] = {}
    for key, value in document.items():
        name = keys.get(key.replace("-", "_"))
        if name is None and key in command.resolved:
            continue
        if name is None:
            near = difflib.get_close_matches(key.replace("-", "_"), keys, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"See densecli {command.name} --help."
            raise DenseCLIError(f"{path}: densecli {command.name} has no option {key!r}.", hint=hint)
        if value is None:
            continue
        if name in values:
            raise DenseCLIError(f"{path} sets {command.settings[name].flag} twice.", hint="Leave one out.")
        of = command.settings[name]
        try:
            checked = of.checked(value)
        except ValueError as error:
            raise DenseCLIError(f"{path}: {key} {error}.", hint=f"It is the value of {of.flag}.") from None
        if of.named:
            checked = [("", checked)]
        values[name] = list(checked.items()) if isinstance(checked, dict) else checked
    return values
