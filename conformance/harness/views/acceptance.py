"""How many drafted tokens the target accepted, from vLLM's counters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from conformance.harness import stats
from conformance.harness.errors import ObservationError
from conformance.harness.stats import CONFIDENCE, Estimate
from conformance.harness.views.load import Cell, Counts, Load


@dataclass(frozen=True)
class Acceptance:
    """Acceptance at one concurrency; the sampling unit is the request (or the round, where vLLM counts no request)."""

    k: int
    counts: tuple[Counts, ...]
    name: str
    source: str

    @classmethod
    def of(cls, cell: Cell, k: int) -> Self:
        """The counters of the rounds with MTP."""
        return cls(k, tuple(found for each in cell.rounds for found in each.mtp.counts), cell.name, cell.source)

    def length(self, confidence: float = CONFIDENCE) -> Estimate:
        """Acceptance length: 1 + accepted / drafts."""
        return _length(self.counts, self.k, confidence)

    def joint(self, confidence: float = CONFIDENCE) -> tuple[Estimate, ...]:
        """For each position the share of drafts accepted up to and including it."""
        drafts = [found.drafts for found in self.counts]
        return tuple(
            stats.ratio([found.per_position[i] for found in self.counts], drafts, confidence=confidence)
            for i in range(self.k)
        )

    def conditional(self) -> str:
        """For each position the share accepted of the drafts accepted up to the one before, as a note."""
        rates = []
        for i in range(self.k):
            before = [found.per_position[i - 1] if i else found.drafts for found in self.counts]
            here = [found.per_position[i] for found in self.counts]
            rates.append(f"{stats.ratio(here, before)}" if sum(before) else "nothing to accept")
        return "conditional acceptance, given the position before: " + "; ".join(rates)

    def by_category(self) -> str:
        """Acceptance length of each category, and the share of drafted tokens that was accepted, as a note."""
        groups: dict[str, list[Counts]] = defaultdict(list)
        for found in self.counts:
            groups[found.category].append(found)
        said = [f"{name} {_point(found):.2f}" for name, found in groups.items() if sum(f.drafts for f in found)]
        drafted, accepted = sum(f.draft_tokens for f in self.counts), sum(f.accepted for f in self.counts)
        share = f"{accepted / drafted:.1%} of {drafted} drafted tokens accepted" if drafted else "nothing was drafted"
        return f"{share}; length by category: {', '.join(said)}"


def alone(load: Load) -> Acceptance:
    """Acceptance of one request after another."""
    return Acceptance.of(load.at(1), load.k)


def kept(load: Load) -> Mapping[str, Estimate]:
    """For each concurrency above 1, acceptance length there over acceptance length in a row.

    ObservationError where there is nothing beside the requests in a row.
    """
    others = [Acceptance.of(cell, load.k) for concurrency, cell in load.cells.items() if concurrency > 1]
    if not others:
        raise ObservationError(f"{load.source}: no measured rounds with more than one request at once")
    return {other.name: stats.over(other.length(), alone(load).length()) for other in others}


def _length(counts: Sequence[Counts], k: int, confidence: float) -> Estimate:
    accepted, drafts = [found.accepted for found in counts], [found.drafts for found in counts]
    return stats.acceptance_length(accepted, drafts, k, confidence=confidence)


def _point(counts: Sequence[Counts]) -> float:
    return 1 + sum(found.accepted for found in counts) / sum(found.drafts for found in counts)
