import os
import subprocess
import sys
from pathlib import Path

import pytest

from densecli.core.errors import DenseCLIError
from densecli.core.lock import FolderLock

ROOT = Path(__file__).parents[2]


def test_lock__a_second_process_is_told_who_holds_it(tmp_path: Path) -> None:
    first, second = (
        FolderLock(tmp_path / "a", "The run", "--run"),
        FolderLock(tmp_path / "a", "The run", "--run"),
    )
    with first:
        for _ in range(2):
            with pytest.raises(
                DenseCLIError, match=rf"^The run in .*a is .* by process {os.getpid()} on \S+ since 20\d\d-"
            ) as caught:
                second.acquire()
            assert "choose another --run" in caught.value.hint
    assert list((tmp_path / "a").iterdir()) == []
    with second, pytest.raises(DenseCLIError):
        first.acquire()


def test_lock__a_dead_holders_is_taken_over(tmp_path: Path) -> None:
    code = (
        "import os, sys; from densecli.core.lock import FolderLock; FolderLock(sys.argv[1], 'It').acquire(); "
    )
    done = subprocess.run([sys.executable, "-c", code + "os._exit(9)", str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == 9 and "process " in (tmp_path / ".lock").read_text()
    with FolderLock(tmp_path, "It") as lock:
        assert f"process {os.getpid()} on " in lock.file.read_text()


@pytest.mark.parametrize("below", ["", "/b/c"])
def test_lock__a_file_is_no_folder(tmp_path: Path, below: str) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(DenseCLIError, match=r"cannot be written to .* is a file") as caught:
        FolderLock(f"{tmp_path}/a{below}", "The run", "--run").acquire()
    assert caught.value.hint == "Correct the folder or its permissions, or choose another --run."


def test_lock__a_full_disk_leaves_it_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(DenseCLIError, match="No space left on device") as caught:
            FolderLock(tmp_path, "The run", "--run").acquire()
    assert caught.value.hint == "Make room, or choose another --run."
    with FolderLock(tmp_path, "The run", "--run"):
        pass
