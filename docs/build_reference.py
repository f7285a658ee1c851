"""A hook of mkdocs: the pages of the reference, made from the commands, the registries and the docstrings."""

import html
import importlib
import pkgutil
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import densecli
from densecli.cli import main
from densecli.core import registry

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
    """One command: what it does, its examples, and every option with its default."""
    description, examples = _help(command)
    lines = [f"# densecli {name}", "", description, ""]
    if examples:
        lines += ["```", examples, "```", ""]
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    usage = " ".join(["densecli", name, "[OPTIONS]", *(p.make_metavar(_context(command)) for p in arguments)])
    lines += ["## Options", "", f"`{usage}`", "", "| option | | default |", "|---|---|---|"]
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            lines.append(
                f"| {_names(option, command)} | {_cell(option.help)} | {_default(option, command)} |"
            )
    return "\n".join([*lines, ""])


def python_page() -> str:
    """The public names with their docstrings, and the registry that plug-ins use."""
    names = [name for name in densecli.__all__ if name != "__version__"]
    targets = [getattr(densecli, name) for name in names]
    lines = ["# Python", "", "These names are stable; everything else may change between releases.", ""]
    for name, target in zip(names, targets, strict=True):
        lines += [f"## densecli.{name}", "", _rendered(f"{target.__module__}.{target.__qualname__}"), ""]
    lines += ["## densecli.load returns", "", _rendered("densecli.models.encoder.Encoder"), ""]
    lines += ["## For plug-ins", "", _rendered("densecli.core.registry.registry")]
    return "\n".join([*lines, "", _rendered("densecli.core.registry.Registry"), ""])


def names_page() -> str:
    """Every registered name: what the options of the command line may be given."""
    lines = ["# Names", "", "What can be named on the command line. A plug-in may add more.", ""]
    for kind, names in sorted(registries()):
        entries = names.entries()
        if kind == "commands" or not entries:
            continue
        lines += [f"## {kind.capitalize()}", "", "| name | | needs |", "|---|---|---|"]
        lines += [f"| `{e.name}` | {_cell(e.help)} | {_cell(e.needs)} |" for e in entries]
        lines.append("")
    return "\n".join(lines)


def registries() -> Iterator[tuple[str, registry.Registry[Any]]]:
    """All registries; a room's registry exists once the room's modules are imported."""
    for module in pkgutil.iter_modules(densecli.__path__):
        if module.ispkg and (ROOT / module.name / "__init__.py").is_file():
            importlib.import_module(f"densecli.{module.name}")
    yield from registry._REGISTRIES.items()


def _replaced(nav: Any, name: str, pages: list[str]) -> Any:
    if isinstance(nav, list):
        return [_replaced(item, name, pages) for item in nav]
    if isinstance(nav, dict):
        return {title: pages if item == name else _replaced(item, name, pages) for title, item in nav.items()}
    return nav


def _context(command: click.Command) -> click.Context:
    return click.Context(command, info_name=command.name)


def _help(command: click.Command) -> tuple[str, str]:
    """The description, and the examples: what stands after click's mark for text that is not wrapped."""
    text = (command.help or "").partition("\f")[0]
    description, _, examples = text.partition("\b\n")
    return "\n".join(line.strip() for line in description.splitlines()).strip(), examples.strip()


def _names(option: click.Option, command: click.Command) -> str:
    names = ", ".join(_code(name) for name in (*option.opts, *option.secondary_opts))
    if option.is_flag:
        return names
    value = option.make_metavar(_context(command))
    return f"{names} {_code(value)}" + (" (may repeat)" if option.multiple else "")


def _default(option: click.Option, command: click.Command) -> str:
    value = option.to_info_dict()["default"]
    if option.is_flag or value in (None, (), "") or callable(value):
        return ""
    return _code(str(value))


def _rendered(name: str) -> str:
    return f"::: {name}\n    options:\n      heading_level: 3"


def _code(text: str) -> str:
    return f"<code>{_cell(text)}</code>"


def _cell(text: str | None) -> str:
    """Text as it is, for a cell of a table."""
    return (
        html.escape(" ".join((text or "").split()), quote=False).replace("|", "&#124;").replace("*", "&#42;")
    )
