"""A training that is killed or told to go: the same command ends with the curve of an undisturbed run."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import rows

ROOT = Path(__file__).parents[2]
STEPS = 30
FLAGS = f"""
    --student scenes-s --weights scenes-s=random:0 --batch-size 2 --max-steps {STEPS} --lr 1e-3
    --checkpoint-every 4 --device cpu"""


def train(store: Path, run: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cli", "train", *FLAGS.split(), "--store", str(store), "--run", str(run)]
    # One order of summation, whatever else the machine does.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finished(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said


def signalled(process: subprocess.Popen[str], run: Path, step: int, number: signal.Signals) -> None:
    while len(rows(run)) < step:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    process.send_signal(number)
    process.communicate()


@pytest.fixture(scope="module")
def straight(undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happened to."""
    run = tmp_path_factory.mktemp("runs") / "straight"
    finished(train(undisturbed, run))
    return run


def test_kill_9__of_a_training_leaves_no_trace_in_the_curve(
    undisturbed: Path, straight: Path, tmp_path: Path, survived: Callable[[str], None]
) -> None:
    step = random.randrange(1, STEPS - 5)
    process = train(undisturbed, tmp_path)
    signalled(process, tmp_path, step, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and step <= len(rows(tmp_path)) < STEPS
    finished(train(undisturbed, tmp_path))
    assert [row["step"] for row in rows(tmp_path)] == list(range(1, STEPS + 1))
    assert rows(tmp_path) == rows(straight)
    export = Path("export", "student.safetensors")
    assert (tmp_path / export).read_bytes() == (straight / export).read_bytes()
    survived("kill -9 of a training")


def test_sigterm__ends_a_training_in_good_order(
    undisturbed: Path, straight: Path, tmp_path: Path, survived: Callable[[str], None]
) -> None:
    process = train(undisturbed, tmp_path)
    signalled(process, tmp_path, 2, signal.SIGTERM)
    assert process.returncode == 0
    steps = len(rows(tmp_path))
    assert steps < STEPS and (tmp_path / "checkpoints" / f"step-{steps:08d}.pt").exists()
    finished(train(undisturbed, tmp_path))
    assert rows(tmp_path) == rows(straight)
    survived("SIGTERM to a training")
