"""The store. Imported first of all packages: it knows when the process began."""

import time

_starts = [time.monotonic()]


def started() -> float:
    """By `time.monotonic`: of the first job that asks, when the process began; of one after it, now."""
    return _starts.pop() if _starts else time.monotonic()
