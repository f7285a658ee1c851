"""Several processes of torchrun that run a script."""

import os
import subprocess
import sys
from pathlib import Path

ROOT, SUPPORT = Path(__file__).parents[2], Path(__file__).parent


def torchrun(script: Path | str, argument: str) -> None:
    """Runs a script, with one argument, in each of two processes."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *command, str(script), argument],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, SUPPORT)))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
