"""How an option is described, in `--help` and on the reference page."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from densecli.core.setting import Setting

GROUPS: Mapping[str, str] = {
    "measure": "Measure",
    "data": "Data",
    "store": "Store",
    "source": "What is exported",
    "export": "The file",
    "teachers": "Teachers",
    "labels": "Labels",
    "regions": "Regions",
    "targets": "Stored targets",
    "method": "Method",
    "model": "Model",
    "optimisation": "Optimisation",
    "watch": "Measured during the training",
    "plan": "Estimate",
    "segmentation": "Segmentation",
    "knn": "Nearest neighbours",
    "detection": "Detection on given boxes",
    "picture": "Picture",
    "run": "Run",
    "speed": "Speed",
    "output": "Output",
    "general": "General",
}
"""Headings of `--help` by group, in order."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """An option as a reference page shows it.

    Attributes:
        group: Heading.
        flag: Such as --batch-size; of a switch --[no-]compile; of an argument its name in capitals.
        values: Placeholder for its value, or its choices; empty for a switch.
        help: One line.
        range: Such as "from 0 to 1"; empty if any value will do.
        default: What happens without the option; empty if it is required.
        name: Its key in a configuration file.
    """

    group: str
    flag: str
    values: str
    help: str
    range: str
    default: str
    name: str

    @property
    def text(self) -> str:
        """The help line with range and default."""
        default = f"default: {self.default}" if self.default else "required"
        return f"{self.help} [{'; '.join(part for part in (self.range, default) if part)}]"


def row_of(of: Setting) -> Row:
    """How a setting is described."""
    switch = of.type is bool
    values = f"[{'|'.join(map(str, of.choices))}]" if of.choices else of.metavar or _NOUNS.get(of.type, "")
    return Row(
        group="Arguments" if of.argument else GROUPS.get(of.group, of.group.capitalize()),
        flag=of.name.upper() if of.argument else f"--[no-]{of.option}" if switch else of.flag,
        values="" if switch or of.argument else values,
        help=f"{of.help} The option's name may be left out." if of.by_position else of.help,
        range=of.range,
        default=of.shown(),
        name=of.name,
    )


def groups_of(settings: Iterable[Setting]) -> list[tuple[str, str]]:
    """The groups of some settings with their headings, in order; the general one comes last."""
    used = dict.fromkeys(each.group for each in settings if not each.argument)
    known = [group for group in GROUPS if group in used and group != "general"]
    others = [group for group in used if group not in GROUPS]
    return [(group, GROUPS.get(group, group.capitalize())) for group in (*known, *others, "general")]


_NOUNS: Mapping[type, str] = {int: "N", float: "X", str: "TEXT"}
