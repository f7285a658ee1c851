"""Fresh environments to install densecli into, and running commands in them."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Install:
    """An environment that densecli is installed into, and the folder that its code must come from."""

    python: Path
    code: Path

    @property
    def script(self) -> str:
        return str(self.python.parent / "densecli")

    def run(self, words: Sequence[object], *, cwd: Path, pythonpath: Path | None = None) -> str:
        """Runs a command in this environment and returns its standard output."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        if pythonpath:
            environment["PYTHONPATH"] = str(pythonpath)
        done = subprocess.run(
            [str(word) for word in words],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def fresh_environment(folder: Path) -> Path:
    """The Python of a new environment that sees this one's packages, but not its editable densecli.

    An editable install works by a .pth file, and Python reads none in a folder that another .pth file adds.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    borrowed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    return folder / "bin" / "python"


def pip_install(python: Path, *words: object) -> None:
    """Installs without network: what densecli needs is there already."""
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    flags = ["--quiet", "--no-index", "--no-deps", "--ignore-installed", "--no-build-isolation"]
    subprocess.run([str(word) for word in (*pip, "install", *flags, *words)], check=True)
