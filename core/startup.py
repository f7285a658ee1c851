"""The start time of the process, to report the time to the first step."""

import time

_starts = [time.monotonic()]


def started() -> float:
    """Start of a run, by `time.monotonic`: that of the process for its first run, else now."""
    return _starts.pop() if _starts else time.monotonic()
