"""What users see when a command fails."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from densecli.core.tables import plain

# Characters of a message and of its hint, which may list names.
_MESSAGE, _HINT = 800, 2000
# Longer than any path or address worth reading, and how much of it is shown.
_LONG_WORD, _SHOWN = re.compile(r"\S{400,}"), 120


class DenseCLIError(Exception):
    """A failure that the user can act on: one sentence says what is wrong, and a hint what to do.

    Both may quote names, values and paths from data: each becomes one printable line of bounded length.

    Attributes:
        hint: What to do; empty if nobody knows.
        commands: Command lines that the hint ends with, in the order in which they are to be run.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "", commands: Iterable[str] = ()) -> None:
        super().__init__(_line(message, _MESSAGE))
        self.hint = _line(hint, _HINT)
        self.commands = tuple(_line(command, _HINT) for command in commands)

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions pickle by their args alone, which would drop the hint on its way out of a Ray actor.
        return type(self), (str(self), self.hint, self.commands)

    def advice(self) -> list[str]:
        """The hint and its commands, a line each."""
        return [line for line in (self.hint, *self.commands) if line]


class Interrupted(DenseCLIError):
    """A signal ended the command in good order. The exit code is 128 + the signal, as in shells."""

    def __init__(self, signal: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.exit_code = 128 + signal

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.exit_code - 128, str(self), self.hint)


class OtherRun(DenseCLIError):
    """A folder has a run already: of other settings, or one that is not to be continued."""


class Unreachable(DenseCLIError):
    """A remote file system failed for now: the same request may succeed a little later."""


class NoSpace(DenseCLIError):
    """A file system is full, or the user's share of it: nothing else can be written there either."""


class Forbidden(DenseCLIError):
    """A remote file system denies the user access."""


@contextmanager
def damage_is_a_value_error() -> Iterator[None]:
    """pyarrow says with a bare OSError that a file is damaged; those of the system have a number."""
    try:
        yield
    except OSError as error:
        if error.errno is None and type(error) is OSError:
            raise ValueError(str(error)) from error
        raise


def _line(text: str, limit: int) -> str:
    return plain(_LONG_WORD.sub(lambda word: f"{word[0][:_SHOWN]}…", text), limit)
