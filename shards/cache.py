"""A local folder that keeps tars of a remote store: bounded in size, shared by processes."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from densecli.core import fs
from densecli.core.errors import DenseCLIError

MARK = ".densecli-cache"
"""File by which a folder is known to be a cache. It holds the bytes of all kept files together."""
# Only files of such names are ever written, counted or removed.
_KEPT = re.compile(r"[0-9a-f]{12}-\d+-[0-9a-f]{16}\.tar")
_OURS = re.compile(rf"{re.escape(MARK)}.*|\.?{_KEPT.pattern}(\..*)?")
# Seconds: an older temporary file was left by a killed writer.
_ABANDONED = 3600.0
# A full cache is emptied to this part at once, so that few of many files need a look at all of them.
_ROOM = 0.9


class Cache:
    """Keeps files, up to `max_bytes` in all. Threads and processes may share a folder.

    A full cache removes the files used longest ago, but none that were used since this process began: what a
    training reads comes again in the next epoch, and if it is a little more than fits, the least of all is
    fetched again if the first files stay. What finds no room is not kept.
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int) -> None:
        """A cache in a folder of this machine, which is made when the first file is kept.

        Raises:
            DenseCLIError: The folder is an address, or holds files that no cache made.
        """
        if "://" in os.fspath(folder):
            raise DenseCLIError(
                "A cache is a local folder, not an address.",
                hint="Name a folder of this machine with --cache.",
            )
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self._began = time.time()
        # Bytes of a file for which no room could be made.
        self._no_room = max_bytes + 1
        self._check_ours()

    @staticmethod
    def name(column: str, shard: str, digest: str) -> str:
        """The name of a tar by its content: a shard that was built again is another file."""
        return f"{column[:12]}-{shard}-{digest}.tar"

    @staticmethod
    def keeps(name: str) -> bool:
        """Whether a file of this name can be kept."""
        return bool(_KEPT.fullmatch(name))

    def get(self, name: str) -> fs.Mapped | None:
        """The file of this name, or None. Its bytes stay readable after the file is removed."""
        path = self.folder / name
        try:
            found = fs.map_file(str(path))
            # Only the time of its use: by that of its change it is known to be the same file.
            os.utime(path, ns=(time.time_ns(), found.stamp.modified_ns if found.stamp else 0))
        except FileNotFoundError:
            return None
        return found

    def put(self, name: str, data: bytes) -> None:
        """Keeps a file if there is room, or if room can be made; see `Cache`.

        Raises:
            DenseCLIError: The disk is full, or the folder is not a cache.
        """
        if not self.keeps(name):
            raise ValueError(f"{name!r} is not a name of a kept file")
        if len(data) >= self._no_room:
            return
        self._claim()
        if self._make_room(len(data)):
            fs.write_atomic(str(self.folder / name), data)
        else:
            self._no_room = len(data)

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Lets one thread or process at a time into the block for a file of this name.

        The first one fetches the file, the others then find it. A killed process holds no lock.

        Raises:
            DenseCLIError: The folder cannot be written, or is not a cache.
        """
        self._claim()
        path = self.folder / f"{fs.TEMPORARY[0]}{name}.lock{fs.TEMPORARY[1]}"
        lock = FileLock(path)
        with self._writing():
            lock.acquire()
        try:
            yield
        finally:
            # Whoever locks it next opens a new one, and finds the file in the cache.
            path.unlink(missing_ok=True)
            lock.release()

    def _check_ours(self) -> None:
        """Raises DenseCLIError for a folder that holds files of others and is not marked as a cache."""
        if not self.folder.is_dir() or (self.folder / MARK).is_file():
            return
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if not _OURS.fullmatch(entry.name):
                    raise DenseCLIError(
                        f"The folder {self.folder} is not a cache: it holds {entry.name}.",
                        hint="Name a new or an empty folder with --cache.",
                    )

    def _claim(self) -> None:
        """Makes the folder and marks it as a cache."""
        if (self.folder / MARK).is_file():
            return
        self._check_ours()
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / MARK).touch()

    def _make_room(self, size: int) -> bool:
        """Removes others where a new file has no room, and counts it. Returns whether there is room now."""
        mark = self.folder / MARK
        with self._writing(), FileLock(f"{mark}.lock"):
            text = mark.read_text()
            total = int(text) if text.isdecimal() else self.max_bytes
            if total + size > self.max_bytes:
                total = self._shrink(min(self.max_bytes - size, round(_ROOM * self.max_bytes)))
            fits = total + size <= self.max_bytes
            mark.write_text(str(total + size * fits))
        return fits

    def _shrink(self, max_bytes: int) -> int:
        """Removes kept files of before this process, and what killed writers left; returns the bytes kept."""
        files = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    stat = entry.stat(follow_symlinks=False)
                    if self.keeps(entry.name):
                        files.append((stat.st_atime, stat.st_size, entry.path))
                    elif _is_leftover(entry.name) and time.time() - stat.st_mtime > _ABANDONED:
                        os.unlink(entry.path)
        total = sum(size for _, size, _ in files)
        for used, size, path in sorted(files):
            if total <= max_bytes or used >= self._began:
                break
            Path(path).unlink(missing_ok=True)
            total -= size
        return total

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DenseCLIError(
                f"Could not write to the cache {self.folder}: {error.strerror}.",
                hint="Name another folder with --cache.",
            ) from error


def _is_leftover(name: str) -> bool:
    """Whether a writer of a kept file gave this name to a temporary one."""
    return fs.is_temporary(name) and bool(_KEPT.match(name, len(fs.TEMPORARY[0])))
