"""The command `list`: the names that options take, and what each needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType

from densecli.commands.options import Options, command
from densecli.core.registry import registry, unknown_name
from densecli.core.settings import Settings, setting
from densecli.core.tables import table


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of names. module: whose import makes the registry of that kind."""

    help: str
    module: str


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "datasets": Kind(help="Photos for build-shards --dataset.", module="densecli.shards.datasets"),
        "kinds": Kind(help="Kinds of target that teachers write.", module="densecli.shards.kinds"),
        "commands": Kind(help="Commands of plug-ins.", module="densecli.cli"),
    }
)

MISSING: Mapping[str, Callable[[str], str]] = {}
"""By kind, a function that says what of a name is missing here, or nothing."""


@dataclass(frozen=True, kw_only=True)
class ListSettings(Settings):
    """The settings of list."""

    kind: str | None = setting(
        None, help="What to list.", group="data", argument=True, default_text="lists the kinds"
    )


@command(ListSettings)
def list(options: Options) -> None:
    """List names that options take, each with what it needs and what of that is missing here.

    \b
    densecli list
    densecli list datasets
    """
    kind = options.make(ListSettings).kind
    if kind is None:
        rows = [(name, each.help) for name, each in KINDS.items()]
        options.say(table([["kind", "what"], *rows]), dict(rows))
        return
    if kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    import_module(KINDS[kind].module)
    missing = MISSING.get(kind, lambda name: "")
    found = [
        {"name": entry.name, "help": entry.help, "needs": entry.needs, "missing": missing(entry.name)}
        for entry in registry(kind).entries()
    ]
    rows = [(each["name"], each["help"], each["needs"], each["missing"]) for each in found]
    options.say(table([["name", "what", "needs", "missing here"], *rows]), {"kind": kind, "names": found})
