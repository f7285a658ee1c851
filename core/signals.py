"""SIGINT and SIGTERM, heeded where it suits."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Stop(Event):
    """Is set once a signal has asked to stop, and knows which."""

    def __init__(self) -> None:
        super().__init__()
        self.signal: signal.Signals | None = None


@contextmanager
def heeding_signals(signals: Sequence[signal.Signals] = STOPPING) -> Iterator[Stop]:
    """The first of `signals` within the block is only noted. A second one does what it always did, but for
    SIGTERM: launchers send that on to processes that have had it already."""
    stop = Stop()
    before = {each: signal.getsignal(each) for each in signals}

    def note(number: int, frame: FrameType | None) -> None:
        if not stop.signal:
            stop.signal = signal.Signals(number)
            stop.set()
        if number != signal.SIGTERM:
            restore()

    def restore() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)

    for each in signals:
        signal.signal(each, note)
    try:
        yield stop
    finally:
        restore()
