import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

CODE = """
import sys
from densecli.cli import main
main(sys.argv[1:], standalone_mode=False)
print(*{name.partition(".")[0] for name in sys.modules})
"""


def test_train__takes_the_newest_store_and_loads_no_teacher(tiny_store, tmp_path) -> None:
    """The command itself, from the command line to the export."""
    newest = tmp_path / "stores" / "noise-96"
    newest.parent.mkdir()
    newest.symlink_to(tiny_store.store.root)
    flags = "train --student scenes-s --weights scenes-s=random:0 --batch-size 3 --max-steps 2 --device cpu"
    done = subprocess.run(
        [sys.executable, "-c", CODE, *flags.split(), "--json", "result.json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "The newest store is taken, stores/noise-96." in done.stderr
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "torch" in loaded
    assert not loaded & {"ray", "pipeline", "evaluation", "matplotlib"}
    result = json.loads((tmp_path / "result.json").read_text())
    assert re.search(r"first step was done \d+\.\d s after the start", done.stderr)
    assert result["step"] == 2 and result["seconds_to_first_step"] > 0
    resolved = json.loads((tmp_path / "runs" / "densevlm-scenes-s-noise-96" / "config.json").read_text())
    assert resolved["columns"]["labels"] == tiny_store.labels.key
