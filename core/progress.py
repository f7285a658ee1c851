"""How far a long job is: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable
from contextvars import ContextVar

from tqdm import tqdm

SECONDS_PER_LINE = 10.0


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# Where this thread's lines go: a worker's are for its driver to say.
listener: ContextVar[Callable[[str], None]] = ContextVar("listener", default=_print)


class Progress:
    """Counts `unit`s up to `total` on standard error, with rate and ETA; `done` were there before.

    silence: seconds in which nothing is said; infinite in all but one of several processes.
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
        """`count` more are done; `note` is said with it."""
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
        """Something beside the count: next to the bar, or a line of its own."""
        if self._bar.disable:
            listener.get()(note)
        else:
            self._bar.set_postfix_str(note)

    def close(self) -> None:
        self._bar.close()
