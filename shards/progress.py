"""How far a long job is: a bar on a terminal, plain lines elsewhere."""

import sys
import time

from tqdm import tqdm

SECONDS_PER_LINE = 10.0


class Progress:
    """Counts `unit`s up to `total` on standard error, with rate and ETA; `done` were there before.

    silent: count only, as all but one of several processes do.
    """

    def __init__(self, total: int, unit: str, *, done: int = 0, silent: bool = False) -> None:
        self.total = total
        self.unit = unit
        self.done = done
        self._silent = silent
        self._first = done
        self._start = time.monotonic()
        self._next_line = 0.0
        # None: tqdm is silent where there is no terminal.
        self._bar = tqdm(
            initial=done, total=total, unit=f" {unit}", dynamic_ncols=True, disable=silent or None
        )

    def advance(self, count: int, note: str = "") -> None:
        """`count` more are done; `note` is said with it."""
        self.done += count
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(count)
        if self._silent:
            return
        elapsed = time.monotonic() - self._start
        if self._bar.disable and (elapsed >= self._next_line or self.done == self.total):
            self._next_line = elapsed + SECONDS_PER_LINE
            rate = (self.done - self._first) / max(elapsed, 1e-9)
            eta = tqdm.format_interval((self.total - self.done) / rate)
            line = f"{self.done}/{self.total} {self.unit}, {rate:.1f} {self.unit}/s, ETA {eta}"
            print(f"{line}, {note}" if note else line, file=sys.stderr, flush=True)

    def close(self) -> None:
        self._bar.close()
