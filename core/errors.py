"""What users see when a command fails."""

from typing import Any


class DenseCLIError(Exception):
    """A failure the user can act on: one sentence of what is wrong and one of what to do about it."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions pickle by their args alone, which would drop the hint on its way out of a Ray actor.
        return type(self), (str(self), self.hint)


class Interrupted(DenseCLIError):
    """A signal ended the command in good order. It exits with 128 + the signal, as shells say it."""

    def __init__(self, signal: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.exit_code = 128 + signal


class Unreachable(DenseCLIError):
    """A remote file system did not do what it was asked: the same again, a little later, may well succeed."""


class Forbidden(DenseCLIError):
    """A remote file system does not let the user do what was asked."""
