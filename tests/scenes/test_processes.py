"""Processes that work side by side."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import util
from pathlib import Path

import pytest

from densecli.core.errors import DenseCLIError
from densecli.scenes.processes import Processes


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    last = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < last
        time.sleep(0.02)


def alive(pid: int) -> bool:
    # A process that has ended is a zombie until its parent asks for its exit code.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def met(name: str, folder: Path, other: str) -> str:
    """Ends after the other one has begun, so not if the two ran one after the other."""
    print(f"{name} begins é", file=sys.stderr)
    (folder / name).touch()
    wait_until((folder / other).exists)
    print(f"{name} ends")
    return name


def begun(folder: Path) -> None:
    """Never ends."""
    (folder / str(os.getpid())).touch()
    while True:
        time.sleep(1)


def pids(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir() if path.name.isdigit()]


def fail(folder: Path) -> None:
    wait_until(lambda: bool(pids(folder)))
    raise DenseCLIError("It failed.", hint="Mend it.")


def die(folder: Path) -> None:
    wait_until(lambda: bool(pids(folder)))
    os.kill(os.getpid(), signal.SIGKILL)


def gives_back_slowly(folder: Path) -> None:
    util.Finalize(None, given_back, (folder,), exitpriority=0)


def given_back(folder: Path) -> None:
    time.sleep(0.5)
    (folder / f"given-back-{os.getpid()}").touch()


def two_that_never_end(folder: str) -> None:
    # A shell's background has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Processes(2) as processes:
        processes.run([partial(begun, Path(folder))] * 2)


def test_run__side_by_side_and_printed_in_turn(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Processes(2) as processes:
        for _ in range(2):
            tasks = [partial(met, "one", tmp_path, "two"), partial(met, "two", tmp_path, "one")]
            assert processes.run(tasks, ["first", "second"]) == ["one", "two"]
    printed = capfd.readouterr()
    both = ["first", "one begins é", "one ends", "second", "two begins é", "two ends"]
    assert printed.err.splitlines() == both * 2 and not printed.out


@pytest.mark.parametrize(("last", "message"), [(fail, "It failed"), (die, "exit code -9")])
def test_run__a_failure_in_one_ends_both(tmp_path: Path, last: Callable[[Path], None], message: str) -> None:
    with Processes(2) as processes, pytest.raises(DenseCLIError, match=message) as raised:
        processes.run([partial(begun, tmp_path), partial(last, tmp_path)])
    assert raised.value.hint
    assert not any(map(alive, pids(tmp_path)))


def test_end__a_process_gives_everything_back_however_late_its_signal_comes(tmp_path: Path) -> None:
    with Processes(2) as processes:
        processes.run([partial(gives_back_slowly, tmp_path)] * 2)
        [hasty, slow] = processes._workers
        slow.task.close()
        time.sleep(0.2)
        assert slow._process.is_alive() and hasty._process.is_alive()
    assert len(list(tmp_path.glob("given-back-*"))) == 2


@pytest.mark.parametrize("signalled", [signal.SIGINT, signal.SIGKILL])
def test_run__a_signal_to_the_parent_ends_both(tmp_path: Path, signalled: signal.Signals) -> None:
    code = f"import test_processes as t; t.two_that_never_end({str(tmp_path)!r})"
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    wait_until(lambda: len(pids(tmp_path)) == 2)
    parent.send_signal(signalled)
    parent.wait(timeout=60)
    wait_until(lambda: not any(map(alive, pids(tmp_path))))
