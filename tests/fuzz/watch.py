"""Watching one input: files, connections, processes, time and memory while it is tried."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Audit events and which of their arguments are paths that change. What a symbolic link leads to does not.
_CHANGES = {
    "os.remove": slice(1), "os.rename": slice(2), "os.mkdir": slice(1), "os.rmdir": slice(1),
    "os.truncate": slice(1), "os.chmod": slice(1), "os.chown": slice(1), "os.link": slice(2),
    "os.symlink": slice(1, 2), "os.utime": slice(1), "shutil.rmtree": slice(1),
}  # fmt: skip
_CONNECTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pty.spawn")


@dataclass
class Watch:
    """What an input did that it may not do.

    Attributes:
        folder: The only place where it may write.
        outside: A folder of somebody else's: nothing in it may even be read.
        hosts: Where it may connect to.
        wrongs: What it did.
    """

    folder: Path
    outside: Path
    hosts: frozenset[str] = frozenset()
    wrongs: list[str] = field(default_factory=list)

    def see(self, event: str, args: tuple[Any, ...]) -> None:
        """Judges an audit event of the interpreter."""
        if event == "open":
            path, mode, flags = (*args, None, None)[:3]
            writes = bool((flags or 0) & _WRITES) or any(c in "wax+" for c in mode or "")
            self._path(event, path, writes)
        elif event in _CHANGES:
            for path in args[_CHANGES[event]]:
                self._path(event, path, True)
        elif event in _CONNECTS:
            address = args[0] if isinstance(args[0], str | bytes) else args[-1]
            host = address[0] if isinstance(address, tuple) else address
            if (host.decode() if isinstance(host, bytes) else str(host)) not in self.hosts:
                self.wrongs.append(f"{event} {address!r}")
        elif event in _STARTS:
            self.wrongs.append(f"{event} {args!r}"[:300])

    def _path(self, event: str, path: object, writes: bool) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return
        where = os.path.abspath(os.fsdecode(path))
        # Python itself writes bytecode; null devices hold nothing.
        harmless = where.endswith(".pyc") or "__pycache__" in where or where == os.devnull
        mine = where == str(self.folder) or where.startswith(f"{self.folder}/")
        if where.startswith(f"{self.outside}/") or (writes and not mine and not harmless):
            self.wrongs.append(f"{event} {where}{' to write' if writes else ''}")


class TooSlow(BaseException):
    """The input took too long. No handler of the code under test may swallow it."""


_watches: list[Watch] = []
_hooked = threading.Lock()


@contextmanager
def watching(watch: Watch, seconds: float) -> Iterator[None]:
    """Watches the block, and ends it with TooSlow after `seconds`."""
    # A hook cannot be taken away again: there is one, for the watch of the moment.
    if _hooked.acquire(blocking=False):
        sys.addaudithook(lambda event, args: _watches[-1].see(event, args) if _watches else None)

    def late(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    _watches.append(watch)
    try:
        yield
    finally:
        _watches.pop()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def forget_peak() -> None:
    """Starts measuring the peak of this process's memory anew."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The most memory this process has had since `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def memory_bytes() -> int:
    """The memory this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
