"""The import rule, in every file, and what belongs to the package."""

import ast
import graphlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]

BELOW_MIDDLE = {"models", "shards", "core"}
MIDDLE = ("pipeline", "train", "evaluation", "ablation")
# Room: the rooms that it may import from. Nothing may import from scenes, which is a plug-in.
ALLOWED = {
    "core": set[str](),
    "shards": {"core"},
    "models": {"shards", "core"},
    **dict.fromkeys(MIDDLE, BELOW_MIDDLE),
    "commands": {*MIDDLE, *BELOW_MIDDLE},
    "scenes": {"commands", *MIDDLE, *BELOW_MIDDLE},
}
# A store is read without torch, and only the build needs Ray.
WITHOUT = {
    "shards": {"click", "ray", "torch"},
    "models": {"ray"},
    "train": {"ray"},
    "evaluation": {"ray"},
    "ablation": {"ray"},
}
TEXTS = {".py", ".toml", ".json", ".html"}
FILES = sorted(file.relative_to(ROOT) for room in ALLOWED for file in (ROOT / room).rglob("*.py"))


def imported(file: Path) -> Iterator[str]:
    """Dotted names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level or file.parts[0] == "tests", f"{file}: relative import"
            module = node.module or ""
            # `from densecli import models` imports a room as well.
            yield from (f"densecli.{a.name}" for a in node.names) if module == "densecli" else (module,)


def modules(file: Path) -> Iterator[str]:
    """Modules that a file may load: `from package import name` may mean the module package.name."""
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in NAMES else node.module


def name_of(file: Path) -> str:
    return ".".join(("densecli", *(part for part in file.with_suffix("").parts if part != "__init__")))


def top(name: str) -> str:
    return name.partition(".")[0]


NAMES = {name_of(file) for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_rooms__import_only_from_rooms_below(file: Path) -> None:
    room = file.parts[0]
    names = [name.split(".")[1] for name in imported(file) if name.startswith("densecli.")]
    refused = [name for name in names if name in ALLOWED and name not in {room, *ALLOWED[room]}]
    assert not refused
    assert "cli" not in names


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms__have_no_circle_of_imports(room: str) -> None:
    """Neither at import nor later: a function's import counts as well."""
    files = {name_of(file): file for file in FILES if file.parts[0] == room}
    graph = {name: {each for each in modules(file) if each in files} - {name} for name, file in files.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(files)


def test_scenes__are_named_by_no_other_room() -> None:
    """Not even in a text: they come and go as any plug-in does."""
    folders = [ROOT / room for room in ALLOWED if room != "scenes"]
    texts = [file for folder in folders for file in folder.rglob("*") if file.suffix in TEXTS]
    texts += ROOT.glob("*.py")
    assert len(texts) > len(FILES) / 2
    assert not [file for file in texts if "scenes" in file.read_text()]


def test_cli__imports_from_commands_and_core_alone() -> None:
    names = {name.split(".")[1] for name in imported(Path("cli.py")) if name.startswith("densecli.")}
    assert names <= {"commands", "core"}


@pytest.mark.parametrize("room", WITHOUT)
def test_rooms__do_without_some_packages(room: str) -> None:
    files = [file for file in FILES if file.parts[0] == room]
    assert files
    assert not [(file, name) for file in files for name in imported(file) if top(name) in WITHOUT[room]]


def test_files__import_no_bare_room() -> None:
    """From the repository's root, `import models` would find a second copy of a room."""
    others = [
        file.relative_to(ROOT) for folder in ("tests", "benchmarks") for file in (ROOT / folder).rglob("*.py")
    ]
    files = [*FILES, *others, Path("__init__.py"), Path("__main__.py"), Path("cli.py")]
    assert not [(file, name) for file in files for name in imported(file) if top(name) in {"cli", *ALLOWED}]


def test_benchmarks__import_what_is_there() -> None:
    """No type checker reads them, and no test runs them all."""

    def names_in(module: str) -> set[str]:
        path = ROOT.joinpath(*module.split(".")[1:])
        file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
        found = {child.stem for child in path.glob("*")}
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(name, ctx=ast.Store()):
                    found.add(name)
                case ast.Import(names=names) | ast.ImportFrom(names=names):
                    found.update(each.asname or each.name for each in names)
        return found

    asked = [
        (file.name, node.module, each.name)
        for file in (ROOT / "benchmarks").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and top(node.module or "") == "densecli"
        for each in node.names
    ]
    assert asked
    assert [each for each in asked if each[2] not in names_in(each[1])] == []


def test_root__has_no_other_python_file() -> None:
    """Every one of them would land in the wheel."""
    assert {file.name for file in ROOT.glob("*.py")} == {"__init__.py", "__main__.py", "cli.py"}


def test_package_data__names_every_file() -> None:
    folders = {
        name: ROOT / folder for name, folder in SETUPTOOLS["package-dir"].items() if name != "densecli"
    }
    listed = {
        file
        for name, patterns in SETUPTOOLS["package-data"].items()
        if name in folders
        for pattern in patterns
        for file in folders[name].glob(pattern)
    }
    there = {
        file
        for room in ALLOWED
        for file in (ROOT / room).rglob("*")
        if file.is_file() and file.suffix not in {".py", ".pyc"}
    }
    assert there and there == listed


def test_public_names__are_all_there_and_load_nothing_heavy() -> None:
    code = (
        "import sys, densecli; heavy = {'torch', 'numpy', 'ray', 'click'} & set(sys.modules);"
        "print(sorted(heavy), sorted(densecli.__all__) == sorted(dir(densecli)));"
        "print([name for name in densecli.__all__ if not getattr(densecli, name)], densecli.Store.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[] True", "[] Store"]


def test_public_names__others_are_refused() -> None:
    import densecli

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        densecli.nothing  # noqa: B018
