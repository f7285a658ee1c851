"""When the process began, to report the time to the first step."""

import time

_starts = [time.monotonic()]


def started() -> float:
    """When a run began, by `time.monotonic`: for the first run the start of the process, then now."""
    return _starts.pop() if _starts else time.monotonic()
