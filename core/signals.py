"""Notes SIGINT and SIGTERM, so that work stops where it is safe."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Stop(Event):
    """An event that is set by the first signal, which it remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.signal: signal.Signals | None = None


@contextmanager
def heeding_signals(
    signals: Sequence[signal.Signals] = STOPPING, *, forwarded: bool = False
) -> Iterator[Stop]:
    """Notes the first signal within the block, so that the work at hand can end in good order.

    A second SIGINT acts as it does outside of the block. A second SIGTERM is ignored: launchers send it on to
    processes that have had it already.

    Args:
        signals: Those to note.
        forwarded: Whether a launcher sends SIGINT on as well; then a second one is ignored too.
    """
    stop = Stop()
    before = {each: signal.getsignal(each) for each in signals}

    def note(number: int, _frame: FrameType | None) -> None:
        if not stop.signal:
            stop.signal = signal.Signals(number)
            stop.set()
        if number != signal.SIGTERM and not forwarded:
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
