"""Kills a process with -9 at a named point of an atomic write, by what `core.fs` calls on its way.

Python imports a module of this name at its start, so a process with this folder on PYTHONPATH, Ray's workers
included, arms itself by DENSECLI_FAULT=POINT,PATTERN,MARKER. A forked process calls `arm`.
"""

import builtins
import io
import os
import signal
from fnmatch import fnmatch
from typing import Any

# Before the temporary is there; half of it written; before its fsync; before and after the rename; after the
# fsync of the folder.
POINTS = ("open", "write", "fsync", "rename", "renamed", "synced")


def arm(point: str, pattern: str, marker: str) -> None:
    """Die at `point` of the first write of a file whose path matches; once, which `marker` records.

    Without a marker, every process dies there.
    """
    real_open, real_fsync, real_replace = builtins.open, os.fsync, os.replace
    # Descriptor of the temporary being written, and whether it has just got its name.
    descriptor, renamed = -1, False

    def reach(here: str) -> None:
        if here != point:
            return
        try:
            if marker:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    class HalfWritten(io.BufferedWriter):
        def write(self, data: Any) -> int:
            half = len(data) // 2
            written = super().write(data[:half])
            self.flush()
            reach("write")
            return written + super().write(data[half:])

    def open_(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        nonlocal descriptor
        folder, name = os.path.split(str(file))
        if not (name.endswith(".tmp") and fnmatch(os.path.join(folder, name[1:].rsplit(".", 2)[0]), pattern)):
            return real_open(file, mode, *args, **kwargs)
        reach("open")
        opened = HalfWritten(io.FileIO(file, mode))
        descriptor = opened.fileno()
        return opened

    def fsync(fd: int) -> None:
        nonlocal renamed
        if fd == descriptor and not renamed:
            reach("fsync")
        real_fsync(fd)
        if renamed:
            renamed = False
            reach("synced")

    def replace(source: str, target: str) -> None:
        nonlocal renamed
        if not fnmatch(target, pattern):
            return real_replace(source, target)
        reach("rename")
        real_replace(source, target)
        renamed = True
        reach("renamed")

    builtins.open, os.fsync, os.replace = open_, fsync, replace  # type: ignore[assignment]


if "DENSECLI_FAULT" in os.environ:
    arm(*os.environ["DENSECLI_FAULT"].split(","))
