"""A hook of mkdocs: the pages of the reference, made from the commands, the registries and the docstrings."""

import html
import shutil
import tomllib
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, get_args, get_origin

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import densecli
from densecli.cli import main
from densecli.commands.command import Command, describe
from densecli.commands.name_kinds import KINDS
from densecli.commands.result_fields import Field, fields_of, type_text
from densecli.commands.results import Result

ROOT = Path(__file__).parents[1]
FOLDER = "reference/commands"


def on_config(config: MkDocsConfig) -> None:
    """Adds the pages of the commands to the menu, and copies the package to where its docstrings are read."""
    pages = [f"{FOLDER}/index.md", *(f"{FOLDER}/{name}.md" for name in commands())]
    config.nav = _replaced(config.nav, f"{FOLDER}/", pages)
    copy = ROOT / "build" / "reference" / "densecli"
    shutil.rmtree(copy, ignore_errors=True)
    package_dir = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    for folder in package_dir.values():
        (copy / folder).mkdir(parents=True, exist_ok=True)
        for file in (ROOT / folder).glob("*.py"):
            shutil.copy(file, copy / folder / file.name)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the generated pages."""
    pages = {f"{FOLDER}/{name}.md": command_page(name, command) for name, command in commands().items()}
    pages |= {
        f"{FOLDER}/index.md": commands_page(),
        "reference/python.md": python_page(),
        "reference/names.md": names_page(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))


def commands() -> dict[str, click.Command]:
    """The commands by name, in the order of `densecli --help`."""
    context = click.Context(main, info_name="densecli")
    found = {name: main.get_command(context, name) for name in main.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


def commands_page() -> str:
    """The list of all commands."""
    rows = [
        f"| [`{name}`]({name}.md) | {_cell(c.get_short_help_str(200))} |" for name, c in commands().items()
    ]
    return "\n".join(["# Commands", "", "| command | |", "|---|---|", *rows, ""])


def command_page(name: str, command: click.Command) -> str:
    """One command: what it does, its examples, and every option with its key in a configuration file."""
    description, examples = _help(command)
    lines = [f"# densecli {name}", "", description, ""]
    if examples:
        lines += ["```", examples, "```", ""]
    rows = describe(command)
    if not rows:
        rows_of_others = [p.get_help_record(click.Context(command)) for p in command.params]
        lines += ["| option | |", "|---|---|"]
        lines += [f"| {_code(record[0])} | {_cell(record[1])} |" for record in rows_of_others if record]
    for group, of_group in groupby(rows, key=lambda row: row.group):
        lines += [f"## {group}", "", "| option | in a file | | default |", "|---|---|---|---|"]
        for row in of_group:
            flag = _code(f"{row.flag} {row.values}".strip())
            text = _cell(f"{row.help} ({row.range})" if row.range else row.help)
            lines.append(f"| {flag} | {_code(row.name)} | {text} | {_cell(row.default) or 'required'} |")
        lines.append("")
    for number, result in enumerate(command.results if isinstance(command, Command) else ()):
        lines += ["## What --json writes", ""] if not number else []
        lines += result_lines(result)
    return "\n".join([*lines, ""])


def result_lines(result: Result) -> list[str]:
    """A form of a command's result: a table of its fields, and of those of the objects in it."""
    about = f"An object by {result.by}. Each value" if result.by else "An object"
    when = f"**{_cell(result.when[0].upper() + result.when[1:])}:** " if result.when else ""
    fields = fields_of(result.fields)
    if not fields:
        return [f"{when}{about} is a {type_text(result.fields)}.", ""]
    lines = [f"{when}{about}{' has' if result.by else ' with'} these fields.", ""]
    lines += ["| field | type | |", "|---|---|---|"]
    lines += [row for field in fields for row in _field_rows(field)]
    if result.more:
        lines.append(f"| ... | | {_cell(result.more)} |")
    return [*lines, ""]


def _field_rows(field: Field, within: str = "") -> Iterator[str]:
    """The row of a field, and those of the fields of the objects that it holds."""
    name = f"{within}{field.name}"
    help = field.help if field.always else f"{field.help} Not always there."
    yield f"| {_code(name)} | {_cell(type_text(field.type))} | {_cell(help)} |"
    for inner in (field.type, *get_args(field.type)):
        mark = "[]." if inner is not field.type and get_origin(field.type) is list else "."
        for each in fields_of(inner):
            yield from _field_rows(each, f"{name}{mark}")


def python_page() -> str:
    """The public names with their docstrings, and the registry that plug-ins use."""
    names = [name for name in densecli.__all__ if name != "__version__"]
    targets = [getattr(densecli, name) for name in names]
    lines = ["# Python", "", "These names are stable; everything else may change between releases.", ""]
    for name, target in zip(names, targets, strict=True):
        lines += [f"## densecli.{name}", "", _rendered(f"{target.__module__}.{target.__qualname__}"), ""]
    lines += ["## densecli.load returns", "", _rendered("densecli.models.encoder.Encoder"), ""]
    lines += [_rendered("densecli.models.prediction.Prediction"), ""]
    lines += [_rendered("densecli.models.prediction.NamedRegion"), ""]
    lines += ["## For plug-ins", "", _rendered("densecli.core.registry.registry")]
    return "\n".join([*lines, "", _rendered("densecli.core.registry.Registry"), ""])


def names_page() -> str:
    """Every registered name, as `densecli list` shows them."""
    lines = [
        "# Names",
        "",
        "Names that options take. A plug-in may add more; `densecli list` shows those too.",
        "",
    ]
    for name, kind in KINDS.items():
        lines += [f"## {name.capitalize()}", "", kind.help, "", "| name | | needs |", "|---|---|---|"]
        lines += [
            f"| {_code(each['name'])} | {_cell(each['help'])} | {_cell(each['needs'])} |"
            for each in kind.names(name)
        ]
        lines.append("")
    return "\n".join(lines)


def _replaced(nav: Any, name: str, pages: list[str]) -> Any:
    if isinstance(nav, list):
        return [_replaced(item, name, pages) for item in nav]
    if isinstance(nav, dict):
        return {title: pages if item == name else _replaced(item, name, pages) for title, item in nav.items()}
    return nav


def _help(command: click.Command) -> tuple[str, str]:
    """The description, and the examples: what stands after click's mark for text that is not wrapped."""
    text = (command.help or "").partition("\f")[0]
    description, _, examples = text.partition("\b\n")
    return "\n".join(line.strip() for line in description.splitlines()).strip(), examples.strip()


def _rendered(name: str) -> str:
    return f"::: {name}\n    options:\n      heading_level: 3"


def _code(text: str) -> str:
    return f"<code>{_cell(text)}</code>"


def _cell(text: str | None) -> str:
    """Text as it is, for a cell of a table."""
    return (
        html.escape(" ".join((text or "").split()), quote=False).replace("|", "&#124;").replace("*", "&#42;")
    )
