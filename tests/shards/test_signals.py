import signal

import pytest

from shards.errors import Interrupted
from shards.signals import heeding_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_heeding_signals__the_first_is_noted_and_the_second_does_what_it_always_did(number):
    seen = []
    before = signal.signal(number, lambda *_: seen.append(number))
    try:
        with heeding_signals() as stop:
            assert stop.signal is None
            signal.raise_signal(number)
            assert (stop.signal, seen) == (number, [])
            signal.raise_signal(number)
            assert seen == [number]
        signal.raise_signal(number)
        assert seen == [number, number]
    finally:
        signal.signal(number, before)


def test_interrupted__exits_as_a_shell_would_say():
    assert Interrupted(signal.SIGINT, "").exit_code == 130
    assert Interrupted(signal.SIGTERM, "").exit_code == 143
