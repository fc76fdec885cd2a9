"""Looks: an observation that is made in parts, the next only when the last has not settled what was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
T2 = TypeVar("T2")


@dataclass(frozen=True)
class Looks(Generic[T]):
    """``count`` looks were announced; ``at(n)`` is what looks 1 to n show together, None where n was never recorded."""

    count: int
    at: Callable[[int], T | None]

    def __iter__(self) -> Iterator[T]:
        """Look by look; asking for one makes the server gather more."""
        for number in range(1, self.count + 1):
            seen = self.at(number)
            if seen is None:
                return
            yield seen

    def first(self) -> T:
        """The first look alone."""
        return next(iter(self))

    def map(self, view: Callable[[T], T2]) -> Looks[T2]:
        """The same looks through another view."""

        def seen(number: int) -> T2 | None:
            found = self.at(number)
            return None if found is None else view(found)

        return Looks(self.count, seen)
