"""The generated world is a plug-in."""

import subprocess
import sys


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, timeout=300, check=False
    )


def test_scenes__registering_them_loads_neither_torch_nor_ray_nor_a_picture() -> None:
    words = (
        "import sys; from densecli.shards.datasets import DATASETS; print(list(DATASETS), DATASETS['scenes'])"
    )
    result = run("-c", f"{words}; assert not {{'torch', 'ray', 'PIL', 'click'}} & set(sys.modules)")
    assert result.returncode == 0, result.stderr
    assert "scenes" in result.stdout
