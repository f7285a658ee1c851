"""The values of a command's options, and where its result goes."""

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from densecli.core import fs
from densecli.core.documents import finite
from densecli.core.errors import DenseCLIError
from densecli.core.setting import Setting
from densecli.core.settings import Settings, settings_of
from densecli.core.tables import printable

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options that a command was given.

    Attributes:
        given: Values by the name of their setting: those of the command line and of the configuration file.
        json: File for the result, `-` for standard output.
    """

    given: Mapping[str, Any]
    json: str | None = None

    def make(self, config: type[S], **others: Any) -> S:
        """Makes a configuration of the given values; `others` override them. Raises DenseCLIError.

        A setting that is given as NAME=VALUE is left to `others`: the command knows which NAME is meant.
        """
        settings = settings_of(config).values()
        given = {each.name: self.given[each.name] for each in settings if self._has(each)}
        return config(**{**given, **others})

    def _has(self, of: Setting) -> bool:
        return of.name in self.given and not of.named

    def get(self, name: str, default: Any = None) -> Any:
        """A value, or `default` where it was not given."""
        return self.given.get(name, default)

    @property
    def store(self) -> str:
        """The store that was given, else the newest. Raises DenseCLIError if there is none.

        Several are one address, with ` + ` between them; see `Store.open`.
        """
        from densecli.shards.parted_store import JOIN

        given = self.given.get("store") or newest_store()
        return given if isinstance(given, str) else JOIN.join(given)

    def with_run(self, *others: str) -> "Options":
        """These options, with the newest run where neither a run nor one of `others` is given.

        Raises:
            DenseCLIError: There is no run.
        """
        if any(self.given.get(name) for name in ("run", *others)):
            return self
        return replace(self, given={**self.given, "run": newest_run(*others)})

    def say(self, text: str, value: Any) -> None:
        """Prints the text and writes the value; where that goes to standard output, it goes there alone."""
        self.write(value)
        click.echo(printable(text), err=self.json == "-")

    def write(self, value: Any) -> None:
        """Writes the value as JSON where --json says, with null for numbers that are not finite."""
        value = finite(value)
        if self.json == "-":
            json.dump(value, sys.stdout, indent=1)
            sys.stdout.write("\n")
        elif self.json:
            fs.write_text(self.json, json.dumps(value, indent=1) + "\n")


def newest_store() -> str:
    """The newest store in stores/, shown on standard error. Raises DenseCLIError if there is none."""
    stores = [path for name in ("store.json", "parts.json") for path in Path("stores").glob(f"*/{name}")]
    if not stores:
        raise DenseCLIError(
            "There is no store in stores/.",
            hint="Build one with densecli build-shards, or give it as --store.",
        )
    return str(_newest(stores, "store").parent)


def newest_run(*others: str) -> str:
    """The newest run in runs/, at any depth, that has exported a student, shown on standard error.

    Args:
        others: Options that could be given in place of --run, without the dashes.

    Raises:
        DenseCLIError: There is none.
    """
    from densecli.models.model_card import CARD, WEIGHTS

    cards = [path for path in Path("runs").glob(f"**/export/{CARD}") if path.with_name(WEIGHTS).is_file()]
    if not cards:
        flags = "".join(f" or --{name}" for name in others)
        raise DenseCLIError(
            "There is no finished run in runs/.",
            hint=f"Train a student with densecli train, or name one with --run{flags}.",
        )
    return str(_newest(cards, "run").parents[1])


def _newest(files: Iterable[Path], noun: str) -> Path:
    found = max(files, key=lambda path: path.stat().st_mtime)
    folder = found.parents[1] if noun == "run" else found.parent
    click.echo(f"The newest {noun} is taken, {folder}.", err=True)
    return found
