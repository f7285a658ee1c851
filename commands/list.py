"""The command `list`: the names that options take, and what each needs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType

import click

from densecli.commands.options import Options, command
from densecli.core.errors import DenseCLIError
from densecli.core.registry import Entry, registry, unknown_name
from densecli.core.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of names.

    Attributes:
        help: What the names are for.
        module: Its import makes the registry of the kind.
        entries: Lists the names, where the kind has no registry.
        missing: What of a name is missing here, or nothing.
    """

    help: str
    module: str = ""
    entries: Callable[[], Iterable[Entry]] | None = None
    missing: Callable[[str], str] = lambda name: ""

    def names(self, kind: str) -> Sequence[dict[str, str]]:
        """What there is to say of each name."""
        if self.module:
            import_module(self.module)
        found = self.entries() if self.entries else registry(kind).entries()
        return [
            {"name": each.name, "help": each.help, "needs": each.needs, "missing": self.missing(each.name)}
            for each in found
        ]


def no_weights(name: str) -> str:
    """Says that no weights are found for a model, or nothing."""
    from densecli.models.checkpoints import find_weights

    try:
        find_weights(name)
    except DenseCLIError:
        return "weights not found"
    return ""


def no_package(name: str) -> str:
    """Says that a logger's package is not installed, or nothing."""
    return f"{name} is not installed" if name in ("wandb", "mlflow") and find_spec(name) is None else ""


def teachers() -> Iterable[Entry]:
    """The names of teachers by kind of target."""
    from densecli.shards.kinds import KINDS

    for entry in KINDS.entries():
        prefix = KINDS[entry.name].prefix
        name = f"{prefix}MODEL" if prefix else "VFM" if entry.name == "gram" else "MODEL"
        needs = "weights of a VFM" if name == "VFM" else "weights of a model"
        yield Entry(name=name, help=entry.help, needs=needs)


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "teachers": Kind(help="What build-shards --teacher runs.", entries=teachers),
        "models": Kind(
            help="CLIPs: students, and models of teachers.",
            module="densecli.models.registry",
            missing=no_weights,
        ),
        "vfms": Kind(help="Vision foundation models.", module="densecli.models.vfms", missing=no_weights),
        "datasets": Kind(help="Photos for build-shards --dataset.", module="densecli.pipeline.sources"),
        "categories": Kind(help="Category sets for --categories.", module="densecli.models.categories"),
        "families": Kind(help="Families of CLIPs that are read.", module="densecli.models.registry"),
        "kinds": Kind(help="Kinds of target that teachers write.", module="densecli.shards.kinds"),
        "codecs": Kind(help="How targets are stored.", module="densecli.shards.codecs"),
        "methods": Kind(help="Presets for train --method.", module="densecli.train.methods"),
        "losses": Kind(help="Loss terms for train --loss.", module="densecli.train.terms"),
        "schedules": Kind(
            help="Learning-rate schedules for train --schedule.", module="densecli.train.schedules"
        ),
        "loggers": Kind(
            help="Loggers for train --logger.", module="densecli.train.loggers", missing=no_package
        ),
        "exports": Kind(help="Formats for export --layout.", module="densecli.train.exports"),
        "benchmarks": Kind(
            help="Segmentation data sets for evaluate --dataset.", module="densecli.evaluation.benchmarks"
        ),
        "commands": Kind(help="Commands of plug-ins."),
    }
)


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
    densecli list teachers
    """
    kind = options.make(ListSettings).kind
    if kind is None:
        rows = [(name, each.help) for name, each in KINDS.items()]
        options.say(_columns(rows), dict(rows))
        return
    if kind not in KINDS:
        raise unknown_name("kind of name", kind, KINDS)
    names = KINDS[kind].names(kind)
    lines = []
    for each in names:
        needs = f" Needs {each['needs']}." if each["needs"] else ""
        missing = f" [{each['missing']}]" if each["missing"] else ""
        lines.append((each["name"], f"{each['help']}{needs}{missing}"))
    options.say(_columns(lines), {"kind": kind, "names": names})


def _columns(rows: Iterable[tuple[str, str]]) -> str:
    """Names and lines, as `--help` aligns them."""
    formatter = click.HelpFormatter(width=110)
    formatter.write_dl([*rows])
    return formatter.getvalue().rstrip()
