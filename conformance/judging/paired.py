"""Two arms that answer the same questions: the table of right and wrong answers, and the interval of the difference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import scipy

from conformance.errors import ObservationError
from conformance.judging.stats import CONFIDENCE, Estimate

METHOD = "score interval of paired proportions"
ACCURACY = 1e-9  # of the ends of an interval


@dataclass(frozen=True)
class PairedTable:
    """McNemar's table: the number of questions that both arms, one of them, or neither answers rightly."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @classmethod
    def of(cls, pairs: Iterable[tuple[bool, bool]]) -> Self:
        """Count pairs of (first arm is right, second arm is right)."""
        found = list(pairs)
        cells = ((True, True), (True, False), (False, True), (False, False))
        return cls(*(found.count(cell) for cell in cells))

    @property
    def n(self) -> int:
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def first(self) -> int:
        """The right answers of the first arm."""
        return self.both + self.only_first

    @property
    def second(self) -> int:
        """The right answers of the second arm."""
        return self.both + self.only_second

    def difference(self, confidence: float = CONFIDENCE) -> Estimate:
        """The share of right answers of the first arm minus that of the second, with Tango's score interval (1998).

        Where no question divides the arms, the interval is still z² / (n + z²) wide on each side. The interval of Wald
        would have no width there.

        Raises:
            ObservationError: there is no question.
        """
        if self.n == 0:
            raise ObservationError("no questions, so there is nothing to compare")
        z = float(scipy.special.ndtri((1 + confidence) / 2))
        value = (self.only_first - self.only_second) / self.n
        low = -1.0 if value == -1 else _root(lambda delta: self._score(delta) - z, value)
        high = 1.0 if value == 1 else _root(lambda delta: self._score(delta) + z, value)
        return Estimate(value, low, high, self.n, METHOD)

    def _score(self, delta: float) -> float:
        """Tango's statistic, standard normal if the true difference is ``delta``; it falls as ``delta`` grows.

        The probability that only the second arm is right is estimated by maximum likelihood under that difference.
        """
        n, first, second = self.n, self.only_first, self.only_second
        linear = (2 * n - first + second) * delta - first - second
        constant = -second * delta * (1 - delta)
        only_second = (math.sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n)
        variance = n * (2 * only_second + delta * (1 - delta))
        return (first - second - n * delta) / math.sqrt(variance) if variance > 0 else 0.0


def _root(excess: Callable[[float], float], value: float) -> float:
    """The ``delta`` at which a falling function is zero, to the left of the observed difference or to its right."""
    edge = 1 - ACCURACY
    begin, end = (-edge, value) if excess(value) < 0 else (value, edge)
    return float(scipy.optimize.brentq(excess, begin, end, xtol=ACCURACY))
