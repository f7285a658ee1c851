"""Commands made from configuration classes: each of their settings is an option."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource

from densecli.commands.config_file import read_config
from densecli.commands.name_kinds import KINDS
from densecli.commands.option_rows import Row, groups_of, row_of
from densecli.commands.options import Options
from densecli.commands.results import Result
from densecli.core.errors import DenseCLIError
from densecli.core.hub import set_offline
from densecli.core.plugins import use_plugins
from densecli.core.progress import set_quiet
from densecli.core.setting import Setting
from densecli.core.settings import Settings, setting, settings_of

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    # Older releases of click give it no type arguments.
    ParamType = click.ParamType


@dataclass(frozen=True, kw_only=True)
class CommonSettings(Settings):
    """The options of every command."""

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
    quiet: bool = setting(
        False, help="Shows the result and errors alone: no progress, no notes.", group="general"
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "warning",
        help="Lowest level of the log of densecli and its libraries that is shown.",
        group="general",
    )
    offline: bool = setting(
        False, help="Downloads nothing: weights are files or in the hub's cache.", group="general"
    )
    json: str | None = setting(
        None,
        help="Writes the result as JSON; - is standard output.",
        group="general",
        metavar="FILE",
        default_text="none",
        path=True,
    )


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

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """See click.Parameter; where a name is required, the error lists those that there are.

        Weights may be separated by commas; each name has one.
        """
        weights = self.setting.shape == "mapping" and self.setting.type is float
        if weights and value and all(isinstance(text, str) for text in value):
            value = [word for text in value for word in text.split(",")]
        try:
            found = super().process_value(ctx, value)
        except click.MissingParameter:
            if not self.setting.registry:
                raise
            raise click.UsageError(_missing(self.setting), ctx) from None
        names = [name for name, _ in found] if weights and found else []
        if twice := [name for name in names if names.count(name) > 1]:
            raise click.BadParameter(f"{twice[0]!r} has two weights", ctx, self)
        return found

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """The option and its help with range and default."""
        row = row_of(self.setting)
        return f"{row.flag} {row.values}".strip(), row.text


class ByPosition(click.Argument):
    """The place of a setting that may be given without its option."""

    def __init__(self, of: Setting) -> None:
        self.setting = of
        several = of.shape == "list"
        super().__init__(
            [f"{of.name}_by_position"],
            type=SettingType(of),
            required=False,
            nargs=-1 if several else 1,
            metavar=f"[{of.name.upper()}]{'...' if several else ''}",
        )


class Command(click.Command):
    """A command whose options are the settings of configuration classes."""

    def __init__(
        self,
        name: str,
        *,
        settings: Sequence[Setting],
        resolved: Collection[str],
        upgrade: Callable[[Mapping[str, Any]], dict[str, Any]],
        results: Sequence[Result],
        callback: Callable[..., Any],
        help: str,
    ) -> None:
        self.settings = {each.name: each for each in settings}
        self.resolved, self.upgrade, self.results = resolved, upgrade, results
        params: list[click.Parameter] = [
            click.Argument(
                [each.name],
                type=SettingType(each),
                required=_required(each),
                nargs=-1 if each.repeatable else 1,
            )
            if each.argument
            else SettingOption(each)
            for each in settings
        ]
        params += [ByPosition(each) for each in settings if each.by_position]
        super().__init__(name, params=params, callback=callback, help=help)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options under the heading of their group."""
        if arguments := [each for each in self.settings.values() if each.argument]:
            with formatter.section("Arguments"):
                formatter.write_dl([(each.name.upper(), row_of(each).text) for each in arguments])
        for group, heading in groups_of(self.settings.values()):
            params = [p for p in self.params if isinstance(p, SettingOption) and p.setting.group == group]
            records = [param.get_help_record(ctx) for param in params]
            with formatter.section(heading):
                formatter.write_dl([*records, *([HELP] if group == "general" else [])])

    def options_of(self, ctx: click.Context) -> Options:
        """The values that the user gave, by the name of their setting."""
        given = {
            name: _collected(self.settings[name], value)
            for name, value in ctx.params.items()
            if name in self.settings
            and ctx.get_parameter_source(name) in (ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP)
        }
        if given.pop("offline", False):
            set_offline()
        if given.pop("quiet", False):
            set_quiet()
        if level := given.pop("log_level", None):
            logging.basicConfig(level=level.upper(), format="%(levelname)s %(name)s: %(message)s", force=True)
        for param in self.params:
            if isinstance(param, ByPosition) and (value := ctx.params.get(str(param.name))):
                if param.setting.name in given and _is_typed(ctx, param.setting.name):
                    flag = param.setting.flag
                    raise click.UsageError(f"{flag} is given twice: with and without its name.", ctx)
                given[param.setting.name] = value
        file = given.pop("json", None)
        # Asked before the work is done, not after it.
        if file and Path(file).is_dir():
            raise DenseCLIError(f"{file} is a folder.", hint="Name a file with --json.")
        return Options(given=given, json=file)

    def parse(self, words: Sequence[str]) -> Options:
        """Parses the words of a command line. Raises DenseCLIError if they are not valid."""
        try:
            with self.make_context(self.name, list(words)) as ctx:
                return self.options_of(ctx)
        except click.UsageError as error:
            raise DenseCLIError(
                f"densecli {self.name} refuses these options: {error.format_message()}",
                hint=f"See densecli {self.name} --help.",
            ) from None


def _missing(of: Setting) -> str:
    """What there is to choose from, for an option that is required."""
    there = KINDS[of.registry].lines(KINDS[of.registry].names(of.registry))
    width = max(len(name) for name, _ in there)
    lines = [f"  {name:{width}}  {help}" for name, help in there]
    return "\n".join([f"Missing option '{of.flag}'. There are:", *lines])


HELP = ("-h, --help", "Shows this text.")


def command(
    *configs: type[Settings] | Sequence[Setting],
    name: str = "",
    resolved: Collection[str] = (),
    upgrade: Callable[[Mapping[str, Any]], dict[str, Any]] = dict,
    results: Sequence[Result] = (),
) -> Callable[[Callable[[Options], int | None]], Command]:
    """Makes a command of a function that takes `Options` and returns the exit code.

    Args:
        configs: Configuration classes, or some settings of one (see `only`). Of settings of one name the
            first counts.
        name: Name of the command, else that of the function.
        resolved: Keys that a configuration file may hold although they are no options: they are left out.
        upgrade: Applied to a file with such keys, the config.json of a run: values of an earlier version in
            those of this one.
        results: The forms of what --json writes.
    """

    def decorate(function: Callable[[Options], int | None]) -> Command:
        found: dict[str, Setting] = {}
        for config in (*configs, CommonSettings):
            for each in settings_of(config).values() if isinstance(config, type) else config:
                found.setdefault(each.name, each)
        if any(each.argument for each in found.values()):
            # Where something else is typed by position, nobody could tell the two apart.
            found = {name: replace(each, by_position=False) for name, each in found.items()}

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
            results=results,
            callback=callback,
            help=function.__doc__ or "",
        )

    return decorate


def only(config: type[Settings], *names: str, **facts: Any) -> list[Setting]:
    """Some settings of a configuration class, perhaps with other facts."""
    return [replace(settings_of(config)[name], **facts) for name in names]


def describe(command: click.Command) -> list[Row]:
    """The options of a command in the order of its help; none of a command that is not made of settings."""
    if not isinstance(command, Command):
        return []
    arguments = [row_of(each) for each in command.settings.values() if each.argument]
    options = [
        row_of(each)
        for group, _ in groups_of(command.settings.values())
        for each in command.settings.values()
        if each.group == group and not each.argument
    ]
    return [*arguments, *options]


def _is_typed(ctx: click.Context, name: str) -> bool:
    """Whether a value is from the command line, not from a configuration file."""
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _required(of: Setting) -> bool:
    return not of.shown() and not of.optional and of.type is not bool


def _collected(of: Setting, value: Any) -> Any:
    """The pairs of a mapping as one."""
    return dict(value) if of.shape == "mapping" else value


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
