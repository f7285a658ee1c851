"""A wheel and an editable install of densecli, each in a fresh environment, and a user's own repository."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from installing import ROOT, Install, fresh_environment, pip_install


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy of the repository: what earlier builds left there must not get into the wheel."""
    leave = {"build", "data", "runs", "stores", "weights"}

    def ignored(folder: str, names: list[str]) -> list[str]:
        at_top = Path(folder) == ROOT
        return [
            name
            for name in names
            if name == "__pycache__"
            or name.endswith(".egg-info")
            or (at_top and (name.startswith(".") or name in leave or not _small(ROOT / name)))
        ]

    return shutil.copytree(ROOT, tmp_path_factory.mktemp("source") / "densecli", ignore=ignored)


def _small(path: Path) -> bool:
    """Whether a file at the top of the repository may be part of the source."""
    return path.is_dir() or path.stat().st_size < 1 << 20


@pytest.fixture(scope="session")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built once per test run by this environment's setuptools."""
    out = tmp_path_factory.mktemp("dist")
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "absent from the `packages` configuration" not in done.stderr
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="session")
def installed_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Install:
    folder = tmp_path_factory.mktemp("wheel") / "venv"
    python = fresh_environment(folder)
    pip_install(python, wheel)
    (site,) = folder.glob("lib/python3*/site-packages")
    return Install(python=python, code=site / "densecli")


@pytest.fixture(scope="session")
def installed_editable(source: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Install:
    # After the wheel, which is to be built from a source that nothing was built in.
    python = fresh_environment(tmp_path_factory.mktemp("editable") / "venv")
    pip_install(python, "--editable", source)
    return Install(python=python, code=source)


@pytest.fixture(params=["wheel", "editable"])
def install(request: pytest.FixtureRequest) -> Install:
    return request.getfixturevalue(f"installed_{request.param}")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A user's repository whose modules have the names of our folders; importing any of them fails."""
    folder = tmp_path / "dépôt à moi"
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "__init__.py").write_text("import no_such_package\n")
    for name in (
        "train",
        "pipeline",
        "shards",
        "cli",
        "evaluation",
        "core",
        "commands",
        "scenes",
        "registry",
    ):
        (folder / f"{name}.py").write_text("raise SystemExit('the file of the user was imported')\n")
    return folder
