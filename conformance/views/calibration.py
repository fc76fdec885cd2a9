"""How often the suite's intervals contain the true value, where it is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import scipy

from conformance.errors import ObservationError
from conformance.judging import power, stats
from conformance.judging.stats import CONFIDENCE, MINIMUM_CLUSTERS, Estimate
from conformance.profile.known_rates import Plan
from conformance.profile.profile import Profile

LENGTH = "acceptance length"


@dataclass(frozen=True)
class Counts:
    """One request: its drafts, and how many of them were accepted up to and including each position from 1 to k."""

    drafts: int
    per_position: tuple[int, ...]

    @property
    def accepted(self) -> int:
        return sum(self.per_position)


@dataclass(frozen=True)
class Quantity:
    """One quantity whose true value is known, at one vector of rates.

    ``chance`` is the two-sided probability that ``drafts`` drafts at these rates give a value as far from ``truth`` as
    ``found``. ``intervals`` has one interval per trial.
    """

    rates: str
    name: str
    truth: float
    found: float
    drafts: int
    chance: float
    intervals: tuple[Estimate, ...]

    @property
    def covered(self) -> int:
        return sum(each.low <= self.truth <= each.high for each in self.intervals)

    @property
    def half_width(self) -> float:
        """The mean half-width of the trials' intervals."""
        return sum(each.high - each.low for each in self.intervals) / len(self.intervals) / 2


@dataclass(frozen=True)
class Calibration:
    """The ``calibration`` observation, and the plan that says how reliable a verdict must be."""

    plan: Plan
    quantities: tuple[Quantity, ...]
    source: str = "observations/calibration.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any], plan: Plan) -> Self:
        """Read the observation.

        Raises:
            ObservationError: the observation is empty or contradicts itself.
        """
        quantities = [quantity for row in facts["rates"] for quantity in _quantities(row, facts["k"])]
        return cls(plan, tuple(quantities))

    @property
    def names(self) -> tuple[str, ...]:
        """Acceptance length, and joint acceptance at each position."""
        return tuple(dict.fromkeys(quantity.name for quantity in self.quantities))

    def biased(self) -> list[str]:
        """A sentence for each quantity that is farther from its true value than chance explains.

        A correct suite fails this for any quantity in at most ``plan.chance`` of all runs (Bonferroni).
        """
        limit = self.plan.chance / max(1, len(self.quantities))
        return [
            f'{each.name} at the rates "{each.rates}" is {each.found:.3f} in {each.drafts} drafts, but the true value '
            f"is {each.truth:.3f}; by chance this happens in {each.chance:.1g} of runs, and {limit:.1g} is allowed"
            for each in self.quantities
            if each.chance < limit
        ]

    def too_narrow(self) -> list[str]:
        """A sentence for each quantity whose 95 % intervals miss the true value in too many trials, over all rates.

        The test is binomial and one-sided. Intervals of different quantities come from the same drafts, so each
        quantity is judged by itself, at its share of ``plan.chance`` (Bonferroni).
        """
        limit = self.plan.chance / max(1, len(self.names))
        found = []
        for name in self.names:
            covered, trials = self.coverage(name)
            chance = float(scipy.special.bdtr(covered, trials, CONFIDENCE))
            if chance < limit:
                found.append(
                    f"the {CONFIDENCE:.0%} intervals of {name} contain the true value in only {covered} of {trials} "
                    f"trials; by chance this happens in {chance:.1g} of runs, and {limit:.1g} is allowed"
                )
        return found

    def bias_seen(self) -> str:
        """As a sentence: the error of a rate that ``biased`` fails, for the rates that show the least and the most."""
        if not self.quantities:
            return ""
        limit = self.plan.chance / max(1, len(self.quantities))
        seen = [power.rate_bias_seen(q.truth, q.drafts, limit) for q in self.quantities if q.name != LENGTH]
        return f"fails a joint rate that is wrong by {min(seen):.3f} to {max(seen):.3f} {power.SURELY}"

    def coverage_seen(self) -> str:
        """As a sentence: the coverage that ``too_narrow`` fails."""
        if not self.quantities:
            return ""
        limit = self.plan.chance / max(1, len(self.names))
        seen = min(power.coverage_seen(self.coverage(name)[1], limit) for name in self.names)
        return f"fails intervals that contain the true value in {seen:.0%} of trials or fewer {power.SURELY}"

    def outside(self) -> list[str]:
        """A sentence for each quantity whose coverage is outside the published limits, too low or too high."""
        low, high = self.plan.coverage
        shares = {name: covered / trials for name in self.names for covered, trials in [self.coverage(name)]}
        return [
            f"the intervals of {name} contain the true value in {share:.1%} of trials, but {low:.0%} to {high:.0%} "
            "is required"
            for name, share in shares.items()
            if not low <= share <= high
        ]

    def wrong(self) -> list[str]:
        """A sentence for everything that is wrong with the intervals."""
        return [*self.biased(), *self.too_narrow(), *self.outside()]

    def coverage(self, name: str) -> tuple[int, int]:
        """The number of trials whose interval contains the true value, and the number of all trials, over all rates."""
        chosen = [each for each in self.quantities if each.name == name]
        return sum(each.covered for each in chosen), sum(len(each.intervals) for each in chosen)

    def note(self) -> str:
        """The table of coverage in one line."""
        parts = []
        for name in self.names:
            covered, trials = self.coverage(name)
            widths = ", ".join(f"{each.half_width:.3f}" for each in self.quantities if each.name == name)
            parts.append(f"{name} {covered} of {trials} (± {widths})")
        rates = ", ".join(dict.fromkeys(each.rates for each in self.quantities))
        return f"trials whose interval contains the true value, and its mean half width at {rates}: {'; '.join(parts)}"


def _quantities(row: Mapping[str, Any], k: int) -> list[Quantity]:
    """The acceptance length and the joint rates of one vector.

    Raises:
        ObservationError: the row is empty or contradicts itself.
    """
    name, joint = row["name"], row["joint"]
    trials = [[_counts(request, k) for request in trial] for trial in row["trials"]]
    requests = [request for trial in trials for request in trial]
    drafts = sum(request.drafts for request in requests)
    _check_trials(name, trials, drafts, row["decided"])
    if len(joint) != k:
        raise ObservationError(f'"{name}" has {len(joint)} rates, but k is {k}')
    lengths = tuple(
        stats.acceptance_length([r.accepted for r in trial], [r.drafts for r in trial], k) for trial in trials
    )
    accepted = sum(request.accepted for request in requests)
    exactly = [before - after for before, after in pairwise((1.0, *joint, 0.0))]  # chance of 0 … k accepted tokens
    length = Quantity(
        name,
        LENGTH,
        1 + sum(joint),
        1 + accepted / drafts,
        drafts,
        chance_of(exactly, drafts, accepted),
        lengths,
    )
    return [length, *(_joint(name, trials, drafts, place, truth) for place, truth in enumerate(joint))]


def _joint(name: str, trials: Sequence[Sequence[Counts]], drafts: int, place: int, truth: float) -> Quantity:
    accepted = sum(request.per_position[place] for trial in trials for request in trial)
    return Quantity(
        name,
        f"joint acceptance at position {place + 1}",
        truth,
        accepted / drafts,
        drafts,
        chance_of([1 - truth, truth], drafts, accepted),
        tuple(stats.ratio([r.per_position[place] for r in trial], [r.drafts for r in trial]) for trial in trials),
    )


def chance_of(pmf: Sequence[float], n: int, total: int) -> float:
    """The two-sided probability that n independent draws from 0, 1, … have a sum as extreme as ``total``.

    It is exact for a fixed n. Here the length of an answer is fixed and not n. For a hundred answers or more, this
    shifts the expected rate by about a hundredth of its standard error (Wald's identity holds for both sums).
    """
    size = n * (len(pmf) - 1) + 1
    if total >= size:
        return 0.0
    sums = np.fft.irfft(np.fft.rfft(pmf, 2 * size) ** n, 2 * size)[:size].clip(0)
    return float(min(1.0, 2 * min(sums[: total + 1].sum(), sums[total:].sum())))


def _counts(request: Mapping[str, Any], k: int) -> Counts:
    drafts, positions = request["drafts"], tuple(request["accepted_per_position"])
    if len(positions) != k or request["draft_tokens"] != k * drafts:
        raise ObservationError(
            f"a request drafted {request['draft_tokens']} tokens in {drafts} drafts and counted "
            f"{len(positions)} positions, but k is {k}"
        )
    if any(after > before for before, after in pairwise((drafts, *positions))):
        raise ObservationError(f"joint counts {list(positions)} of {drafts} drafts must not rise")
    if abs(1 + drafts + sum(positions) - request["output_tokens"]) > k:
        counted = f"{drafts} drafts with {sum(positions)} accepted tokens"
        raise ObservationError(f"{request['output_tokens']} output tokens do not fit {counted}")
    return Counts(drafts, positions)


def _check_trials(name: str, trials: Sequence[Sequence[Counts]], drafts: int, decided: int | None) -> None:
    sizes = [len(trial) for trial in trials]
    if not drafts or min(sizes) < MINIMUM_CLUSTERS:
        raise ObservationError(
            f'the trials at the rates "{name}" have {sorted(set(sizes)) or "no"} requests with {drafts} drafts; '
            f"an interval needs {MINIMUM_CLUSTERS} requests"
        )
    if decided is not None and decided < drafts:
        raise ObservationError(f'at the rates "{name}" {drafts} drafts were counted, but coins decided only {decided}')


@dataclass(frozen=True)
class Coverage:
    """The calibration, and the profile, environment and method that it was made with."""

    profile: Profile
    environment: Mapping[str, Any]
    method: str
    calibration: Calibration
