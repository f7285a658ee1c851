"""Progress of a long job: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable
from contextvars import ContextVar

from tqdm import tqdm

from densecli.core.tables import printable

SECONDS_PER_LINE = 10.0


def _print(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)


# Where this thread's lines go. A worker of a build sends its lines to the main process, which prints them.
listener: ContextVar[Callable[[str], None]] = ContextVar("listener", default=_print)


def say(line: str) -> None:
    """Shows a line to the user: on standard error, or wherever a worker's lines go."""
    listener.get()(line)


def say_once(line: str) -> None:
    """The same, in the main process alone: workers would repeat it."""
    if listener.get() is _print:
        _print(line)


class Progress:
    """Counts up to `total` on standard error, with rate and ETA.

    Args:
        total: The count at the end.
        unit: What is counted, a plural.
        done: How many were done before; they do not count for the rate.
        silence: Seconds before anything is printed. Infinite in all but one of several processes.
    """

    def __init__(self, total: int, unit: str, *, done: int = 0, silence: float = 0.0) -> None:
        self.total = total
        self.unit = unit
        self.done = done
        self._first = done
        self._start = time.monotonic()
        self._silence = self._next_line = silence
        # None: tqdm is silent where there is no terminal.
        self._bar = tqdm(
            initial=done, total=total, unit=f" {unit}", dynamic_ncols=True, disable=None, delay=silence
        )

    def advance(self, count: int, note: str = "") -> None:
        """Adds to the count. `note` is printed after it."""
        self.done += count
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(count)
        elapsed = time.monotonic() - self._start
        if self._bar.disable and (
            elapsed >= self._next_line or (self.done == self.total and elapsed >= self._silence)
        ):
            self._next_line = elapsed + SECONDS_PER_LINE
            rate = (self.done - self._first) / max(elapsed, 1e-9)
            eta = tqdm.format_interval((self.total - self.done) / rate)
            line = f"{self.done}/{self.total} {self.unit}, {rate:.1f} {self.unit}/s, ETA {eta}"
            listener.get()(f"{line}, {note}" if note else line)

    def say(self, note: str) -> None:
        """Prints a note next to the bar, or on a line of its own."""
        if self._bar.disable:
            listener.get()(note)
        else:
            self._bar.set_postfix_str(note)

    def close(self) -> None:
        self._bar.close()
