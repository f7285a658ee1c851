"""README and docs: their Python runs, and their commands, options and links exist."""

import ast
import importlib.util
import re
import shlex
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import click
import pytest

from densecli.cli import main
from densecli.models.checkpoints import load_model
from densecli.scenes.coco import write_coco
from densecli.train.averaging import export_student

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN = [page for page in PAGES if not page.stem.endswith("-transcript")]
"""All but the transcripts, whose commands are those of the tutorials."""
# Options of other programs that the pages name in running text.
OF_OTHERS = {"--run-path", "--size", "--gpus", "--user", "--torch-backend"}


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def fences(page: Path) -> Iterator[tuple[str, str]]:
    """(language, text) of every fenced block."""
    yield from re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def inline(page: Path) -> list[str]:
    """Every `code` in the text around the fenced blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", text)


def command_lines(page: Path) -> Iterator[list[str]]:
    """The words after `densecli` of every such line, in blocks and in running text."""
    blocks = [text for language, text in fences(page) if language in ("", "sh", "console")]
    lines = [line for text in blocks for line in text.replace("\\\n", " ").splitlines()]
    for line in [*lines, *inline(page)]:
        started = re.match(r"(?:\$ )?(?:torchrun .* -- |python -m )?densecli (.+)", line)
        if started:
            yield [word for word in shlex.split(started[1], comments=True) if word != "..."]


def test_readme__is_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= 8192


def test_readme__links_to_what_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / "README.md").read_text())
    local = [link for link in links if "://" not in link]
    assert local
    assert not [link for link in local if not (ROOT / link).exists()]


@pytest.mark.parametrize("page", WRITTEN, ids=names(WRITTEN))
def test_page__its_commands_parse(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DENSECLI_PLUGINS", "")
    # Those of the pages are loaded by other tests.
    monkeypatch.setattr("densecli.commands.command.use_plugins", lambda names: None)
    context = click.Context(main, info_name="densecli")
    for words in command_lines(page):
        if words[0].startswith("-"):
            continue
        for option, file in pairwise(words):
            if option == "--config":
                Path(file).touch()
        command = main.get_command(context, words[0])
        assert command is not None, words
        if len(words) > 1:
            with command.make_context(words[0], words[1:], parent=context):
                pass


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_page__its_options_exist(page: Path) -> None:
    context = click.Context(main, info_name="densecli")
    commands = [main, *(main.get_command(context, name) for name in main.list_commands(context))]
    params = [option for command in commands for option in command.params]
    known = {name for option in params for name in (*option.opts, *option.secondary_opts)}
    named = {
        option for code in inline(page) if re.match(r"--|densecli|[a-z-]+ --", code)
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", code)
        if not re.match(r"(pip|uv|docker|pytest|ruff|make|python|ray|torchrun) ", code)
    }  # fmt: skip
    assert named - OF_OTHERS <= known | {"--help"}


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_page__its_python_imports_what_there_is(page: Path) -> None:
    for language, text in fences(page):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(textwrap.dedent(text))):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(
                    hasattr(module, alias.name) or importlib.util.find_spec(f"{node.module}.{alias.name}")
                    for alias in node.names
                )
            elif isinstance(node, ast.Import):
                assert all(importlib.util.find_spec(alias.name) for alias in node.names)


@pytest.mark.parametrize("name", ["README.md", "docs/how-to/python.md"])
def test_page__its_python_runs_and_prints_what_it_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Further blocks need a store, or packages that are not installed.
    code, *_ = [text for language, text in fences(ROOT / name) if language == "python"]
    monkeypatch.chdir(tmp_path)
    write_coco(Path("runs/demo/data"), seed=0, split="test", count=1)
    clip = load_model("scenes-pvlm")[0].clip
    export_student(
        clip,
        clip.state_dict(),
        alpha=1.0,
        folder="runs/demo/train-0-480/export",
        card={
            "student": "scenes-pvlm",
            "image_size": 96,
            "mode": "value",
            "random_weights": False,
            "initial_weights": {"source": "scenes-pvlm.safetensors"},
        },
    )
    exec(code, {})
    printed = re.search(r"# (\w+), (\w+)\n\Z", code)
    assert printed
    assert capsys.readouterr().out.split() == list(printed.groups())
