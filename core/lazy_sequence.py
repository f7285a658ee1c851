"""Sequences whose items are made when they are asked for."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

T = TypeVar("T")


class LazySequence(Sequence[T]):
    """A sequence that keeps less than its items. Subclasses define `__len__` and `at`."""

    @abstractmethod
    def at(self, i: int) -> T:
        """Makes item i, counted from 0."""

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        found = range(len(self))[index]
        return self.at(found) if isinstance(found, int) else [self.at(i) for i in found]
