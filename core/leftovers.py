"""What killed writers leave: temporary files. Whoever knows that nobody writes them any more removes them."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from densecli.core import fs


@contextmanager
def swept(folders: Sequence[str]) -> Iterator[None]:
    """Removes from local folders, after the block, what this process's `fs.writer` left in killed processes.

    No process that it started may be alive then.

    Args:
        folders: Paths or addresses; those that are not local are left alone.
    """
    try:
        yield
    finally:
        for folder in filter(fs.is_local, folders):
            _remove(folder, lambda name: f".{fs.writer()}-" in name)


def sweep_behind(path: str | os.PathLike[str]) -> None:
    """Removes what killed writers of one local file have left beside it."""
    folder, name = os.path.split(os.path.abspath(path))
    _remove(folder, lambda other: other.startswith(f"{fs.TEMPORARY[0]}{name}."))


def _remove(folder: str, which: Callable[[str], bool]) -> None:
    for name in filter(which, fs.temporary_files(folder)):
        with suppress(FileNotFoundError):
            fs.remove(fs.join(folder, name))
