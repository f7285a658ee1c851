"""A local folder that keeps tars of a remote store: bounded in size, shared by processes."""

import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from densecli.core import fs
from densecli.core.errors import DenseCLIError

# Seconds: an older temporary file was left by a killed writer.
_ABANDONED = 3600.0


class Cache:
    """Keeps the files used last, up to `max_bytes` in all. Threads and processes may share a folder."""

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int) -> None:
        """A cache in a folder of this machine. Raises DenseCLIError for an address."""
        if "://" in os.fspath(folder):
            raise DenseCLIError(
                "A cache is a local folder, not an address.",
                hint="Name a folder of this machine with --cache.",
            )
        self.folder = Path(folder)
        self.max_bytes = max_bytes

    def get(self, name: str) -> bytes | mmap.mmap | None:
        """The file of this name, or None. Its bytes stay readable after the file is removed."""
        path = self.folder / name
        try:
            data = fs.map_bytes(str(path))
            os.utime(path)
        except FileNotFoundError:
            return None
        return data

    def put(self, name: str, data: bytes) -> None:
        """Keeps a file, and removes those used longest ago. A file larger than the cache is not kept.

        Raises:
            DenseCLIError: The disk is full.
        """
        if len(data) > self.max_bytes:
            return
        self._shrink(self.max_bytes - len(data))
        fs.write_atomic(str(self.folder / name), data)

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Lets one thread or process at a time into the block for a file of this name.

        The first one fetches the file, the others then find it. A killed process holds no lock.

        Raises:
            DenseCLIError: The folder cannot be written.
        """
        path = self.folder / f"{fs.TEMPORARY[0]}{name}.lock{fs.TEMPORARY[1]}"
        lock = FileLock(path)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            raise DenseCLIError(
                f"Could not write to the cache {self.folder}: {error.strerror}.",
                hint="Name another folder with --cache.",
            ) from error
        try:
            yield
        finally:
            # Whoever locks it next opens a new one, and finds the file in the cache.
            path.unlink(missing_ok=True)
            lock.release()

    def _shrink(self, max_bytes: int) -> None:
        files = []
        for path in self.folder.glob("*"):
            with suppress(FileNotFoundError):
                stat = path.stat()
                files.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in files)
        for modified, size, path in sorted(files):
            temporary = fs.is_temporary(path.name)
            if total > max_bytes if not temporary else time.time() - modified > _ABANDONED:
                path.unlink(missing_ok=True)
                total -= size
