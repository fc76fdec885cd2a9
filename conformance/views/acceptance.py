"""How many drafted tokens the target accepts, from vLLM's counters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from conformance.errors import ObservationError, Unsupported
from conformance.judging import stats
from conformance.judging.stats import CONFIDENCE, Estimate
from conformance.profile.workload_floors import is_of, kinds
from conformance.views.load import TOGETHER, Cell, Counts, Load


@dataclass(frozen=True)
class Acceptance:
    """Acceptance over some cells of the load.

    The sampling unit is the prompt with the mean of its requests, so a prompt that was asked twice has no more weight
    than others. Where vLLM does not count single requests, the sampling unit is the round.
    """

    k: int
    counts: tuple[Counts, ...]
    source: str

    @classmethod
    def of(cls, k: int, cells: Iterable[Cell], source: str) -> Self:
        """Collect the counters of the rounds with MTP."""
        every = [found for cell in cells for each in cell.rounds for found in each.mtp.counts]
        by_prompt: dict[str, Counts] = {}
        for found in every:
            if found.name:
                known = by_prompt.get(found.name)
                by_prompt[found.name] = found if known is None else known + found
        return cls(k, (*by_prompt.values(), *(found for found in every if not found.name)), source)

    def length(self, confidence: float = CONFIDENCE) -> Estimate:
        """Acceptance length: 1 + accepted / drafts."""
        accepted, drafts = ([getattr(f, name) / f.times for f in self.counts] for name in ("accepted", "drafts"))
        return stats.acceptance_length(accepted, drafts, self.k, strata=self._strata, confidence=confidence)

    def joint(self, confidence: float = CONFIDENCE) -> tuple[Estimate, ...]:
        """For each position, the share of drafts that are accepted up to and including it."""
        return tuple(
            self._ratio([f.per_position[i] for f in self.counts], [f.drafts for f in self.counts], confidence)
            for i in range(self.k)
        )

    def conditional(self) -> str:
        """As a note: for each position, the share accepted among the drafts that were accepted up to the one before."""
        rates = []
        for i in range(self.k):
            before = [found.per_position[i - 1] if i else found.drafts for found in self.counts]
            here = [found.per_position[i] for found in self.counts]
            rates.append(f"{self._ratio(here, before, CONFIDENCE)}" if sum(before) else "nothing to accept")
        return "conditional acceptance, given the position before: " + "; ".join(rates)

    def kinds(self) -> list[str]:
        """The categories that have drafts, each workload of several categories before them.

        Raises:
            ObservationError: there is no draft.
            Unsupported: vLLM counts no single request, and requests of several categories were counted together.
        """
        found = {each.category for each in self.counts if each.drafts}
        if not found:
            raise ObservationError("no prompt has a draft, so there is nothing to estimate")
        if TOGETHER in found:
            raise Unsupported("This vLLM counts no single request, so the acceptance of a category is not known.")
        return kinds(found)

    def on(self, kind: str) -> Self:
        """The acceptance on prompts of one kind."""
        return replace(self, counts=tuple(each for each in self.counts if is_of(each.category, kind)))

    def by_category(self) -> str:
        """As a note: the acceptance length of each category, and the share of drafted tokens that were accepted."""
        groups: dict[str, list[Counts]] = defaultdict(list)
        for found in self.counts:
            groups[found.category].append(found)
        said = [f"{name} {_length(found):.2f}" for name, found in groups.items() if sum(f.drafts for f in found)]
        drafted, accepted = sum(f.draft_tokens for f in self.counts), sum(f.accepted for f in self.counts)
        share = f"{accepted / drafted:.1%} of {drafted} drafted tokens accepted" if drafted else "nothing was drafted"
        return f"{share}; length by category: {', '.join(said)}"

    @property
    def _strata(self) -> list[str]:
        return [found.category for found in self.counts]

    def _ratio(self, over: Sequence[int], under: Sequence[int], confidence: float) -> Estimate:
        times = [found.times for found in self.counts]
        numerators, denominators = (
            [count / n for count, n in zip(counts, times, strict=True)] for counts in (over, under)
        )
        return stats.ratio(numerators, denominators, strata=self._strata, confidence=confidence)


def everywhere(load: Load) -> Acceptance:
    """Acceptance over all requests, at every concurrency."""
    return Acceptance.of(load.k, load.cells.values(), load.source)


def ratios_to_sequential(load: Load) -> Mapping[str, Estimate]:
    """For each concurrency above 1, acceptance length there over acceptance length in a row.

    Raises:
        ObservationError: the load has no concurrent requests.
    """
    others = [cell for concurrency, cell in load.cells.items() if concurrency > 1]
    if not others:
        raise ObservationError(f"{load.source}: no measured rounds with more than one request at once")
    alone = Acceptance.of(load.k, [load.at(1)], load.source).length()
    return {cell.name: stats.divide(Acceptance.of(load.k, [cell], load.source).length(), alone) for cell in others}


def _length(counts: Sequence[Counts]) -> float:
    return 1 + sum(found.accepted for found in counts) / sum(found.drafts for found in counts)
