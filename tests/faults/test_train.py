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
from training import rows

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STEPS = 30
FLAGS = f"""
    --student scenes-s --weights scenes-s=random:0 --max-steps {STEPS} --lr 1e-3
    --checkpoint-every 4 --device cpu"""
# Without the dashes torchrun takes --run for the beginning of an option of its own.
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--")


def train(store: Path, run: Path, processes: int = 1) -> subprocess.Popen[str]:
    launcher = TORCHRUN if processes == 2 else ("-m",)
    command = [sys.executable, *launcher, "densecli", "train", *FLAGS.split()]
    command += ["--batch-size", str(2 // processes), "--store", str(store), "--run", str(run)]
    # Sums are taken in another order with another number of threads. Two of them, or two processes of one.
    environment = {**os.environ, "OMP_NUM_THREADS": str(2 // processes), "TMPDIR": str(temporary(run))}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def temporary(run: Path) -> Path:
    folder = run.with_name(f"{run.name}-tmp")
    folder.mkdir(exist_ok=True)
    return folder


def finished(process: subprocess.Popen[str]) -> None:
    _, output = process.communicate(timeout=300)
    assert process.returncode == 0, output


def await_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    while len(rows(run)) < step:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)


def workers(launcher: subprocess.Popen[str]) -> list[int]:
    """The processes that torchrun started."""
    return [
        int(pid) for pid in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    ]


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def last_checkpoint(run: Path) -> int:
    """Its step; it is that of the last row."""
    *_, last = sorted((run / "checkpoints").iterdir())
    assert last.name == f"step-{len(rows(run)):08d}.pt"
    return len(rows(run))


@pytest.fixture(scope="module")
def straight(undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happened to."""
    run = tmp_path_factory.mktemp("runs") / "straight"
    finished(train(undisturbed, run))
    return run


def test_kill_9__of_a_training_leaves_no_trace_in_the_curve(
    undisturbed: Path, straight: Path, tmp_path: Path, survived: Callable[[str], None]
) -> None:
    run, shared = tmp_path / "run", set(os.listdir("/dev/shm"))
    step = random.randrange(1, STEPS - 5)
    process = train(undisturbed, run)
    await_step(process, run, step)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL and step <= len(rows(run)) < STEPS
    assert not list(temporary(run).iterdir())
    assert not [name for name in set(os.listdir("/dev/shm")) - shared if str(process.pid) in name]
    finished(train(undisturbed, run))
    assert [row["step"] for row in rows(run)] == list(range(1, STEPS + 1))
    assert rows(run) == rows(straight)
    export = Path("export", "student.safetensors")
    assert (run / export).read_bytes() == (straight / export).read_bytes()
    assert not [path.name for path in run.rglob("*.tmp")]
    survived("kill -9 of a training")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal__ends_a_training_in_good_order(
    undisturbed: Path,
    straight: Path,
    tmp_path: Path,
    survived: Callable[[str], None],
    number: signal.Signals,
) -> None:
    run = tmp_path / "run"
    process = train(undisturbed, run)
    await_step(process, run, 2)
    process.send_signal(number)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert number.name in output
    assert last_checkpoint(run) < STEPS
    finished(train(undisturbed, run))
    assert rows(run) == rows(straight)
    survived(f"{number.name} to a training")


@pytest.mark.slow
def test_sigterm__ends_two_processes_at_the_same_step(
    undisturbed: Path, tmp_path: Path, survived: Callable[[str], None]
) -> None:
    """Told to one of them, then to their launcher, which tells both; the third command ends the run."""
    straight, run = tmp_path / "straight", tmp_path / "run"
    finished(train(undisturbed, straight, processes=2))

    process = train(undisturbed, run, processes=2)
    await_step(process, run, 2)
    _, second = workers(process)
    os.kill(second, signal.SIGTERM)
    finished(process)
    first_stop = last_checkpoint(run)
    survived("SIGTERM to one of two processes")

    process = train(undisturbed, run, processes=2)
    await_step(process, run, first_stop + 2)
    both = workers(process)
    process.terminate()
    process.communicate()
    assert not any(map(running, both))
    assert first_stop < last_checkpoint(run) < STEPS
    survived("SIGTERM to torchrun")

    finished(train(undisturbed, run, processes=2))
    assert rows(run) == rows(straight)
