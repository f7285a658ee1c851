"""A lock on a folder: one process writes there, and a second one is told which."""

import errno
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from densecli.core.errors import DenseCLIError


class FolderLock:
    """A lock that the system releases when its process dies, and a file that says who has it.

    Attributes:
        file: The locked file. It is there while the lock is held, and where its holder was killed.
    """

    def __init__(
        self, folder: str | os.PathLike[str], noun: str, flag: str = "", name: str = ".lock"
    ) -> None:
        """Locks nothing yet.

        Args:
            folder: What is locked.
            noun: What it holds, to begin a sentence: "The run".
            flag: Option that names another folder; empty if there is none.
            name: Name of the file.
        """
        self.file = Path(folder) / name
        self._noun = noun
        self._other = f", or choose another {flag}" if flag else ""
        self._lock = FileLock(self.file)

    def acquire(self) -> None:
        """Makes the folder and locks it.

        Raises:
            DenseCLIError: Another process has locked it, or it cannot be written.
        """
        folder = self.file.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            self.file.write_text(f"process {os.getpid()} on {socket.gethostname()} since {now}")
        except Timeout:
            raise DenseCLIError(
                f"{self._noun} in {folder} is being written by {self._holder()}.",
                hint=f"Wait for it to end, or stop it{self._other}.",
            ) from None
        except OSError as error:
            self.release()
            a_file = isinstance(error, FileExistsError | NotADirectoryError)
            reason = "it, or a folder above it, is a file" if a_file else error.strerror
            full = error.errno == errno.ENOSPC
            remedy = "Make room" if full else "Correct the folder or its permissions"
            raise DenseCLIError(
                f"{self._noun} cannot be written to {folder}: {reason}.",
                hint=f"{remedy}{self._other}.",
            ) from error

    def release(self) -> None:
        """Unlocks the folder, if it is locked."""
        if self._lock.is_locked:
            # Whoever waits for a file that is gone makes a new one.
            self.file.unlink(missing_ok=True)
            self._lock.release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _holder(self) -> str:
        try:
            return self.file.read_text() or "another process"
        except OSError:
            return "another process"
