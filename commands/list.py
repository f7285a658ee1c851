"""The command `list`: the names that options take, and what each needs."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import click

from densecli.commands.command import command
from densecli.commands.name_kinds import KINDS
from densecli.commands.options import Options
from densecli.commands.results import Result
from densecli.core.registry import unknown_name
from densecli.core.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class ListSettings(Settings):
    """The settings of list."""

    kind: str | None = setting(
        None, help="What to list.", group="data", argument=True, default_text="lists the kinds"
    )


class Names(TypedDict):
    """The names of one kind."""

    kind: Annotated[str, "The kind."]
    names: Annotated[list[dict[str, Any]], "Each: name, help, needs, missing; of models also the weights."]


@command(
    ListSettings,
    results=(
        Result(fields=Names),
        Result(fields=str, when="without KIND", by="kind"),
    ),
)
def list(options: Options) -> None:
    """List the names that options accept, what each needs, and what is missing on this machine.

    \b
    densecli list
    densecli list teachers
    densecli list models
    """
    kind = options.make(ListSettings).kind
    if kind is None:
        rows = [(name, each.help) for name, each in KINDS.items()]
        options.say(_columns(rows), dict(rows))
        return
    if kind not in KINDS:
        raise unknown_name("kind of name", kind, KINDS)
    names = KINDS[kind].names(kind)
    options.say(_columns(KINDS[kind].lines(names)), {"kind": kind, "names": names})


def _columns(rows: Iterable[tuple[str, str]]) -> str:
    """Names and lines, as `--help` aligns them."""
    formatter = click.HelpFormatter(width=110)
    formatter.write_dl([*rows] or [("none", "A plug-in may register some.")])
    return formatter.getvalue().rstrip()
