"""When the process began, for what is said of the time to the first step."""

import time

_starts = [time.monotonic()]


def started() -> float:
    """By `time.monotonic`: of the first run that asks, when the process began; of one after it, now."""
    return _starts.pop() if _starts else time.monotonic()
