"""How a command ends that the system gives no more of something, or that is told to go."""

import errno
import os
import signal
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner, Result

from densecli.cli import Commands


def ended(call: Callable[[], None], *words: str) -> Result:
    """What a command that does this prints, and its exit code."""

    @click.group(cls=Commands)
    @click.option("--debug", is_flag=True)
    def main(debug: bool) -> None: ...

    class Group(Commands):
        def get_command(self, ctx: click.Context, name: str) -> click.Command:
            return click.Command("go", callback=call)

    group = Group("densecli", callback=lambda **_: None, params=main.params)
    return CliRunner().invoke(group, [*words, "go"])


def failing(error: BaseException) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


@pytest.mark.parametrize(("error", "word"), [
    (MemoryError(), "memory"),
    (MemoryError("Unable to allocate 9 TiB"), "memory"),
    (RuntimeError("can't start new thread"), "threads"),
    (BlockingIOError(11, "Resource temporarily unavailable"), "processes"),
    (OSError(errno.EMFILE, "Too many open files"), "open files"),
    (OSError(errno.EMFILE, "Too many open files", "some/file"), "open files"),
    (OSError(errno.ENFILE, "Too many open files in system", "some/file"), "open files"),
])  # fmt: skip
def test_limits__are_named_in_one_sentence(error: BaseException, word: str) -> None:
    done = ended(failing(error))
    assert done.exit_code == 1
    assert done.output.splitlines()[0] == f"Error: The system gives this process no more {word}."
    assert isinstance(ended(failing(error), "--debug").exception, type(error))


@pytest.mark.parametrize("error", [
    RuntimeError("x"),
    OSError(errno.EIO, "Input/output error"),
    BlockingIOError(errno.EAGAIN, "write could not complete without blocking", 4096),
])  # fmt: skip
def test_limits__other_errors_stay_what_they_are(error: Exception) -> None:
    done = ended(failing(error))
    assert done.exception is error and "no more" not in done.output


def test_limits__a_full_pipe_that_does_not_block_is_none() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)

    def call() -> None:
        with open(write, "wb", closefd=False) as file:
            file.write(bytes(2**20))

    done = ended(call)
    os.close(read)
    os.close(write)
    assert isinstance(done.exception, BlockingIOError) and "no more" not in done.output


def test_limits__a_file_that_may_not_be_written_is_named() -> None:
    done = ended(failing(PermissionError(errno.EACCES, "Permission denied", "some/file")))
    assert done.exit_code == 1
    assert done.output.splitlines() == [
        "Error: some/file: Permission denied.",
        "Hint: Check that the folder exists and that you may write to it.",
    ]


def test_limits__a_folder_in_place_of_a_file_is_named() -> None:
    done = ended(failing(IsADirectoryError(errno.EISDIR, "Is a directory", "some/folder")))
    assert done.output.splitlines() == [
        "Error: some/folder: Is a directory.",
        "Hint: Name a file in place of the folder.",
    ]


def test_sigterm__lets_a_command_clean_up(tmp_path) -> None:
    def call() -> None:
        with open(tmp_path / "half", "w"):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                signal.pause()
            finally:
                os.unlink(tmp_path / "half")

    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        done = ended(call)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done.exit_code == 143 and "Error: stopped." in done.output
    assert not list(tmp_path.iterdir())
