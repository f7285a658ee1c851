"""A local folder for tars of a remote store: bounded, shared by processes, of content that names itself."""

import fcntl
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from densecli.core import fs
from densecli.core.errors import DenseCLIError

# An older temporary is of a killed writer.
_ABANDONED = 3600.0


class Cache:
    """Keeps what was used last, up to `max_bytes` in all. Only a file system of this machine will do."""

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int) -> None:
        """Raises DenseCLIError where the folder is an address."""
        if "://" in os.fspath(folder):
            raise DenseCLIError(
                "A cache is a local folder, not an address.",
                hint="Name a folder of this machine with --cache.",
            )
        self.folder = Path(folder)
        self.max_bytes = max_bytes

    def get(self, name: str) -> bytes | mmap.mmap | None:
        """The file of this name, None where it is not kept. What was given stays when the file is removed."""
        path = self.folder / name
        try:
            data = fs.map_bytes(str(path))
            os.utime(path)
        except FileNotFoundError:
            return None
        return data

    def put(self, name: str, data: bytes) -> None:
        """Keeps a file and removes those used longest ago. One that is larger than the cache is not kept.

        Raises DenseCLIError when the disk is full.
        """
        if len(data) > self.max_bytes:
            return
        self._shrink(self.max_bytes - len(data))
        fs.write_atomic(str(self.folder / name), data)

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """A block that one thread or process of the machine at a time is in for a file of this name: the
        first fetches it, the others find it. A killed one keeps nobody out. Raises DenseCLIError."""
        path = self.folder / f"{fs.TEMPORARY[0]}{name}.lock{fs.TEMPORARY[1]}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = path.open("w")
        except OSError as error:
            raise DenseCLIError(
                f"Could not write to the cache {self.folder}: {error.strerror}.",
                hint="Name another folder with --cache.",
            ) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                # Who waits for it gets in with it, who comes later makes a new one: both find the file.
                path.unlink(missing_ok=True)

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
