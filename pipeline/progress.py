"""How far a build is: a bar on a terminal, plain lines elsewhere."""

import sys
import time

from tqdm import tqdm

SECONDS_PER_LINE = 10.0


class Progress:
    """Counts images up to `total`, with rate and time left, on standard error."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self._start = self._said = time.monotonic()
        self._bar = tqdm(total=total, unit=" images", file=sys.stderr) if sys.stderr.isatty() else None

    def advance(self, images: int) -> None:
        """`images` more are finished."""
        self.done += images
        if self._bar is not None:
            self._bar.update(images)
        elif time.monotonic() - self._said > SECONDS_PER_LINE or self.done == self.total:
            self._said = time.monotonic()
            elapsed = self._said - self._start
            rate = self.done / max(elapsed, 1e-9)
            left = tqdm.format_interval((self.total - self.done) / rate)
            line = f"{self.done}/{self.total} images, {rate:.1f} images/s, {left} left"
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
