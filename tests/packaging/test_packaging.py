"""densecli as others install it: what the wheel holds, and that it works inside anybody's repository."""

import ast
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from installing import ROOT, Install

from densecli.scenes.coco import write_coco

SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def package_folders() -> Iterator[Path]:
    """Folders with Python files that belong to the package, relative to the repository."""
    for room in {path.partition("/")[0] for path in SETUPTOOLS["package-dir"].values()} - {"."}:
        yield from {file.parent.relative_to(ROOT) for file in (ROOT / room).rglob("*.py")}


def test_pyproject__lists_every_folder_of_the_package() -> None:
    folders = {".": "densecli"} | {str(f): "densecli." + str(f).replace("/", ".") for f in package_folders()}
    assert SETUPTOOLS["package-dir"] == {name: folder for folder, name in folders.items()}
    assert sorted(SETUPTOOLS["packages"]) == sorted(folders.values())


def test_wheel__holds_the_package_alone(wheel: Path) -> None:
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert {name.partition("/")[0] for name in names} == {"densecli"}
    modules = {name.removeprefix("densecli/") for name in names if name.endswith(".py")}
    expected = {
        str(file.relative_to(ROOT)) for folder in package_folders() for file in (ROOT / folder).glob("*.py")
    }
    assert modules == expected | {"__init__.py", "__main__.py", "cli.py"}
    data = {name.removeprefix("densecli/") for name in names if not name.endswith(".py")}
    rooms = {folder.parts[0] for folder in package_folders()}
    files = {file.relative_to(ROOT) for room in rooms for file in (ROOT / room).rglob("*") if file.is_file()}
    assert data == {"py.typed"} | {
        str(f) for f in files if f.suffix != ".py" and "__pycache__" not in f.parts
    }


def test_import__comes_from_the_install(install: Install, repository: Path) -> None:
    code = "import sys, densecli as d, densecli.cli; print(d.__file__, d.__version__, 'torch' in sys.modules)"
    file, version, torch = install.run(
        [install.python, "-c", code], cwd=repository, pythonpath=repository
    ).split()
    assert Path(file) == install.code / "__init__.py"
    assert version == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert torch == "False"


def test_public_names__all_exist(install: Install, repository: Path) -> None:
    code = "import densecli; print([name for name in densecli.__all__ if getattr(densecli, name) is None])"
    assert install.run([install.python, "-c", code], cwd=repository).strip() == "[]"


@pytest.mark.slow
def test_repository_of_a_user__whole_chain(
    installed_wheel: Install, repository: Path, tmp_path: Path
) -> None:
    """The repository is both the working folder and on PYTHONPATH, so that neither way in is overlooked."""
    install, store, run, data = installed_wheel, tmp_path / "store", tmp_path / "run", tmp_path / "data"
    write_coco(data, seed=0, split="test", count=2)

    def started(*words: object) -> str:
        return install.run(words, cwd=repository, pythonpath=repository)

    started(install.script, *short_build(store))
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", 2, "--no-python", "--", install.script]
    assert "step 2" in started(install.python, *torchrun, *short_training(store, run), "--device", "cpu")
    where = ["--data", data, "--split", "test", "--categories", "scenes"]
    assert "Boxes" in started(install.script, "evaluate", *where, "--run", run)
    started(install.python, "-m", "densecli", "export", "--run", run, "--layout", "open_clip")
    photo = next((data / "test").glob("*.jpg"))
    code = f"""
import densecli
assert densecli.load({str(run)!r}).dense({str(photo)!r}).ndim == 3
print(densecli.Store.open({str(store)!r}).dataset["name"])
"""
    assert started(install.python, "-c", code).split()[-1] == "scenes"


@pytest.mark.slow
def test_repository_of_a_user__editable_install_as_a_module(
    installed_editable: Install, repository: Path, tmp_path: Path
) -> None:
    store, run = tmp_path / "store", tmp_path / "run"

    def started(*words: object) -> str:
        command = [installed_editable.python, "-m", "densecli", *words]
        return installed_editable.run(command, cwd=repository, pythonpath=repository)

    started(*short_build(store))
    assert "step 2" in started(*short_training(store, run))
    assert (run / "export" / "student.safetensors").is_file()


def short_build(store: Path) -> list[object]:
    dataset = ["--dataset", "scenes", "--limit", 4]
    return ["build-shards", *dataset, "--teacher", "scenes-pvlm", "--store", store]


def short_training(store: Path, run: Path) -> list[object]:
    return ["train", "--store", store, "--run", run, "--max-steps", 2, "--batch-size", 2]


def bare_imports(file: Path, rooms: set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] in rooms)


def test_no_file__imports_a_room_by_its_bare_name() -> None:
    """From the repository's folder `import models` finds a second copy of the package's modules."""
    rooms = {folder.parts[0] for folder in package_folders()} | {"cli"}
    files = [
        file
        for folder in ("tests", "benchmarks", "examples", "docs")
        for file in (ROOT / folder).rglob("*.py")
    ]
    files += [file for folder in package_folders() for file in (ROOT / folder).glob("*.py")]
    assert not [(str(file), name) for file in files for name in bare_imports(file, rooms)]
