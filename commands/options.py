"""Options made from configuration classes: their help, their values, and the configuration file."""

import difflib
import json
import sys
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from densecli.core.errors import DenseCLIError
from densecli.core.registry import use_plugins
from densecli.core.settings import Setting, Settings, setting, settings_of

S = TypeVar("S", bound=Settings)
if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    # Older releases of click give it no type arguments.
    ParamType = click.ParamType
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
    "plan": "Estimate",
    "segmentation": "Segmentation",
    "knn": "Nearest neighbours",
    "picture": "Picture",
    "run": "Run",
    "speed": "Speed",
    "output": "Output",
    "general": "General",
}
"""Headings of `--help` by group, in order."""


@dataclass(frozen=True, kw_only=True)
class CommonSettings(Settings):
    """What every command takes."""

    config: str | None = setting(
        None,
        help="Options by name, from a .toml file or a run's config.json; the command line wins.",
        group="general",
        metavar="FILE",
        default_text="none",
        path=True,
    )
    plugin: tuple[str, ...] = setting(
        (),
        help="Module or .py file that registers more names. May be given several times.",
        group="general",
        metavar="MODULE",
        default_text="none",
        path=True,
    )
    json: str | None = setting(
        None,
        help="Writes the result as JSON; - is standard output.",
        group="general",
        metavar="FILE",
        default_text="none",
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a command was given.

    Attributes:
        given: Values by the name of their setting: those of the command line and of the configuration file.
        json: File for the result, `-` for standard output.
    """

    given: Mapping[str, Any]
    json: str | None = None

    def make(self, config: type[S], **others: Any) -> S:
        """A configuration of the given values; `others` take their place. Raises DenseCLIError.

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
        """The store that was given, else the newest. Raises DenseCLIError if there is none."""
        return self.given.get("store") or newest_store()

    def say(self, text: str, value: Any) -> None:
        """Prints the text and writes the value; where that goes to standard output, it goes there alone."""
        self.write(value)
        click.echo(text, err=self.json == "-")

    def write(self, value: Any) -> None:
        """Writes the value as JSON where --json says."""
        if self.json == "-":
            json.dump(value, sys.stdout, indent=1)
            sys.stdout.write("\n")
        elif self.json:
            Path(self.json).parent.mkdir(parents=True, exist_ok=True)
            Path(self.json).write_text(json.dumps(value, indent=1) + "\n")


class SettingType(ParamType):
    """The values of a setting: a word of the command line is parsed and checked."""

    def __init__(self, of: Setting) -> None:
        self.of = of
        self.name = of.metavar or of.type.__name__

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click.ParamType."""
        try:
            return self.of.parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class SettingOption(click.Option):
    """The option of a setting."""

    def __init__(self, of: Setting) -> None:
        self.setting = of
        switch = of.type is bool
        unset: dict[str, Any] = {} if _required(of) else {"default": None}
        super().__init__(
            [f"{of.flag}/--no-{of.option}" if switch else of.flag, of.name],
            type=None if switch else SettingType(of),
            multiple=of.repeatable,
            nargs=of.length,
            required=_required(of),
            is_eager=of.name in ("plugin", "config"),
            callback={"plugin": _load_plugins, "config": _load_config}.get(of.name),
            expose_value=of.name not in ("plugin", "config"),
            **unset,
        )

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """The option and its help with range and default."""
        row = row_of(self.setting)
        return f"{row.flag} {row.values}".strip(), row.text


class Command(click.Command):
    """A command whose options are the settings of configuration classes."""

    def __init__(
        self,
        name: str,
        *,
        settings: Sequence[Setting],
        resolved: Collection[str],
        upgrade: Callable[[Mapping[str, Any]], dict[str, Any]],
        callback: Callable[..., Any],
        help: str,
    ) -> None:
        self.settings = {each.name: each for each in settings}
        self.resolved, self.upgrade = resolved, upgrade
        params: list[click.Parameter] = [
            click.Argument([each.name], type=SettingType(each), required=_required(each))
            if each.argument
            else SettingOption(each)
            for each in settings
        ]
        super().__init__(name, params=params, callback=callback, help=help)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options under the heading of their group."""
        if arguments := [each for each in self.settings.values() if each.argument]:
            with formatter.section("Arguments"):
                formatter.write_dl([(each.name.upper(), row_of(each).text) for each in arguments])
        for group, heading in _groups(self):
            params = [p for p in self.params if isinstance(p, SettingOption) and p.setting.group == group]
            records = [param.get_help_record(ctx) for param in params]
            with formatter.section(heading):
                formatter.write_dl([*records, *([HELP] if group == "general" else [])])

    def options_of(self, ctx: click.Context) -> Options:
        """What was given: each value by the name of its setting."""
        given = {
            name: _collected(self.settings[name], value)
            for name, value in ctx.params.items()
            if ctx.get_parameter_source(name) in (ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP)
        }
        return Options(given=given, json=given.pop("json", None))

    def parse(self, words: Sequence[str]) -> Options:
        """What the words of a command line mean. Raises DenseCLIError if they mean nothing."""
        try:
            with self.make_context(self.name, list(words)) as ctx:
                return self.options_of(ctx)
        except click.UsageError as error:
            raise DenseCLIError(
                f"densecli {self.name} refuses these options: {error.format_message()}",
                hint=f"See densecli {self.name} --help.",
            ) from None


HELP = ("-h, --help", "Shows this text.")


def command(
    *configs: type[Settings] | Sequence[Setting],
    name: str = "",
    resolved: Collection[str] = (),
    upgrade: Callable[[Mapping[str, Any]], dict[str, Any]] = dict,
) -> Callable[[Callable[[Options], int | None]], Command]:
    """Makes a command of a function that takes `Options`; what it returns is the exit code.

    Args:
        configs: Configuration classes, or some settings of one (see `only`). Of settings of one name the
            first counts.
        name: Name of the command, else that of the function.
        resolved: Keys that a configuration file may hold although they are no options: they are left out.
        upgrade: Applied to a file with such keys, the config.json of a run: values of an earlier version in
            those of this one.
    """

    def decorate(function: Callable[[Options], int | None]) -> Command:
        found: dict[str, Setting] = {}
        for config in (*configs, CommonSettings):
            for each in settings_of(config).values() if isinstance(config, type) else config:
                found.setdefault(each.name, each)

        @click.pass_context
        def callback(ctx: click.Context, /, **_: Any) -> None:
            assert isinstance(ctx.command, Command)
            if code := function(ctx.command.options_of(ctx)):
                ctx.exit(code)

        return Command(
            name or function.__name__.replace("_", "-"),
            settings=list(found.values()),
            resolved=frozenset(resolved) - found.keys(),
            upgrade=upgrade,
            callback=callback,
            help=function.__doc__ or "",
        )

    return decorate


def only(config: type[Settings], *names: str, **facts: Any) -> list[Setting]:
    """Some settings of a configuration class, perhaps with other facts."""
    return [replace(settings_of(config)[name], **facts) for name in names]


@dataclass(frozen=True, kw_only=True)
class Row:
    """An option as a reference page shows it.

    Attributes:
        group: Heading.
        flag: Such as --batch-size; of a switch --[no-]compile; of an argument its name in capitals.
        values: Placeholder for its value, or its choices; empty for a switch.
        help: One line.
        range: Such as "from 0 to 1"; empty where any value will do.
        default: What leaving it out amounts to; empty where it has to be given.
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


def describe(command: click.Command) -> list[Row]:
    """The options of a command in the order of its help; none of a command that is not made of settings."""
    if not isinstance(command, Command):
        return []
    arguments = [row_of(each) for each in command.settings.values() if each.argument]
    options = [
        row_of(each)
        for group, _ in _groups(command)
        for each in command.settings.values()
        if each.group == group and not each.argument
    ]
    return [*arguments, *options]


def row_of(of: Setting) -> Row:
    """How a setting is described."""
    switch = of.type is bool
    values = f"[{'|'.join(map(str, of.choices))}]" if of.choices else of.metavar or _NOUNS.get(of.type, "")
    return Row(
        group="Arguments" if of.argument else GROUPS.get(of.group, of.group.capitalize()),
        flag=of.name.upper() if of.argument else f"--[no-]{of.option}" if switch else of.flag,
        values="" if switch or of.argument else values,
        help=of.help,
        range=of.range,
        default=of.shown(),
        name=of.name,
    )


def newest_store() -> str:
    """The store of stores/ that was made last, said on standard error; DenseCLIError where there is none."""
    stores = sorted(Path("stores").glob("*/store.json"), key=lambda path: path.stat().st_mtime)
    if not stores:
        raise DenseCLIError(
            "There is no store in stores/.",
            hint="Build one with densecli build-shards, or name it with --store.",
        )
    click.echo(f"The newest store is taken, {stores[-1].parent}.", err=True)
    return str(stores[-1].parent)


def read_config(path: str, command: Command) -> dict[str, Any]:
    """The values of a configuration file by the name of their setting, as click takes them.

    Raises DenseCLIError for a file that cannot be read, an unknown key, and a value that is not allowed.
    """
    read = {".toml": tomllib.loads, ".json": json.loads}.get(Path(path).suffix)
    if read is None:
        raise DenseCLIError(f"{path} is no .toml or .json file.", hint="Name one with --config.")
    try:
        document = read(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DenseCLIError(
            f"The configuration {path} cannot be read: {error}.", hint="Correct it."
        ) from None
    if not isinstance(document, dict):
        raise DenseCLIError(f"The configuration {path} is no table of options.", hint="Write NAME = VALUE.")
    if not document.keys().isdisjoint(command.resolved):
        document = command.upgrade(document)
    keys = {each.option.replace("-", "_"): name for name, each in command.settings.items()}
    keys |= {name: name for name in command.settings if name != "config"}
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
        of = command.settings[name]
        try:
            checked = of.checked(value)
        except ValueError as error:
            raise DenseCLIError(f"{path}: {key} {error}.", hint=f"It is the value of {of.flag}.") from None
        if of.named:
            checked = [("", checked)]
        values[name] = list(checked.items()) if isinstance(checked, dict) else checked
    return values


_NOUNS: Mapping[type, str] = {int: "N", float: "X", str: "TEXT"}


def _required(of: Setting) -> bool:
    return not of.shown() and not of.optional and of.type is not bool


def _collected(of: Setting, value: Any) -> Any:
    """The pairs of a mapping as one."""
    return dict(value) if of.shape == "mapping" else value


def _groups(command: Command) -> list[tuple[str, str]]:
    used = dict.fromkeys(each.group for each in command.settings.values() if not each.argument)
    known = [group for group in GROUPS if group in used and group != "general"]
    others = [group for group in used if group not in GROUPS]
    return [(group, GROUPS.get(group, group.capitalize())) for group in (*known, *others, "general")]


def _load_plugins(_ctx: click.Context, _param: click.Parameter, value: Sequence[str]) -> None:
    if value:
        use_plugins(value)


def _load_config(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    assert isinstance(ctx.command, Command)
    values = read_config(value, ctx.command)
    use_plugins(values.pop("plugin", ()))
    ctx.default_map = values
