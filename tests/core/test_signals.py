import signal

from densecli.core.errors import Interrupted
from densecli.core.signals import heeding_signals


def test_heeding_signals__the_first_is_noted_and_the_second_does_what_it_always_did():
    seen, number = [], signal.SIGINT
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


def test_heeding_signals__sigterm_may_come_again():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
    try:
        with heeding_signals() as stop:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            assert (stop.signal, seen) == (signal.SIGTERM, [])
        signal.raise_signal(signal.SIGTERM)
        assert seen == [1]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_interrupted__exits_as_a_shell_would_say():
    assert Interrupted(signal.SIGINT, "").exit_code == 130
    assert Interrupted(signal.SIGTERM, "").exit_code == 143
