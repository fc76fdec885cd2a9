"""Group-sequential looks: an observation in parts, of which the next is made only if the last did not decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
T2 = TypeVar("T2")


@dataclass(frozen=True)
class Looks(Generic[T]):
    """``count`` looks are planned; ``at(n)`` is what looks 1 to n show together, None if look n was not recorded."""

    count: int
    at: Callable[[int], T | None]

    def __iter__(self) -> Iterator[T]:
        """Yield look by look; the next look makes the server gather more data."""
        for number in range(1, self.count + 1):
            seen = self.at(number)
            if seen is None:
                return
            yield seen

    def first(self) -> T:
        """The first look."""
        return next(iter(self))

    def map(self, view: Callable[[T], T2]) -> Looks[T2]:
        """The same looks through another view."""

        def seen(number: int) -> T2 | None:
            found = self.at(number)
            return None if found is None else view(found)

        return Looks(self.count, seen)
