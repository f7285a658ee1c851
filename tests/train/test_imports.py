import subprocess
import sys


def test_trainer__loads_neither_ray_nor_pipeline() -> None:
    code = "import sys, train.trainer; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "torch" in loaded
    assert not loaded & {"ray", "pipeline", "evaluation", "matplotlib"}
