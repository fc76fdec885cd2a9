"""How long the same prompts took with and without MTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from conformance.harness import stats
from conformance.harness.errors import ObservationError
from conformance.harness.stats import Estimate

LENGTH_PARITY = 0.05  # the arms may differ by this share in tokens, or they did not do the same work


@dataclass(frozen=True)
class Round:
    """One group of prompts on each server: seconds and output tokens."""

    mtp: float
    plain: float
    plain_again: float | None
    mtp_tokens: int
    plain_tokens: int


@dataclass(frozen=True)
class Shape:
    """The measured rounds of one shape of load: three in a row, or eight at once."""

    rounds: tuple[Round, ...]
    source: str = "observations/timings.json"

    def speedup(self) -> Estimate:
        """Seconds without MTP over seconds with; an ObservationError where the arms did not write as much."""
        mtp, plain = sum(r.mtp_tokens for r in self.rounds), sum(r.plain_tokens for r in self.rounds)
        if self.rounds and abs(mtp - plain) > LENGTH_PARITY * plain:
            raise ObservationError(f"{mtp} tokens with MTP against {plain} without: the times do not compare")
        return stats.speedup([r.plain for r in self.rounds], [r.mtp for r in self.rounds])

    def noise(self) -> str:
        """The server without MTP against itself, as a note: the noise that a speedup is seen through."""
        pairs = [(r.plain, r.plain_again) for r in self.rounds if r.plain_again is not None]
        if len(pairs) < 2:
            return "no A/A comparison"
        first, second = zip(*pairs, strict=True)
        return f"A/A, the server without MTP against itself: {stats.speedup(first, second)} (n = {len(pairs)})"


@dataclass(frozen=True)
class Timings:
    """The ``timings`` observation without its warm-up rounds."""

    sequential: Shape
    concurrent: Shape

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation."""
        return cls(_shape(facts["sequential"]), _shape(facts["concurrent"]))


def _shape(rows: Sequence[Mapping[str, Any]]) -> Shape:
    return Shape(
        tuple(
            Round(
                row["mtp_seconds"],
                row["plain_seconds"],
                row["plain_again_seconds"],
                sum(row["mtp_tokens"]),
                sum(row["plain_tokens"]),
            )
            for row in rows
            if not row["warm_up"]
        )
    )
