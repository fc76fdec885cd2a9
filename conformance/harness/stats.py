"""Intervals: every number that a verdict rests on is an estimate with its 95 % interval and its n.

The sampling unit is the prompt (for acceptance and texts) or the round (for timings), never the token: tokens of one
prompt resemble each other, and counting them singly would make intervals several times too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from conformance.harness.errors import ObservationError

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 9999
SEED = 20260506
MINIMUM_CLUSTERS = 10
EXACT = "exact binomial"


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; ``n`` counts prompts or rounds, ``method`` names how the interval was made."""

    value: float
    low: float
    high: float
    n: int
    method: str

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def ratio(numerators: Sequence[int], denominators: Sequence[int]) -> Estimate:
    """Ratio of sums in [0, 1] over clusters (accepted over drafts, by prompt), with a bias-corrected (BCa) bootstrap.

    Clusters are resampled whole, numerator and denominator together. BCa rather than percentile, because the rates
    of early positions lie close to 1, where the bootstrap distribution is skewed and the percentile interval sits
    too high. The generator is seeded: judging the same evidence twice gives the same interval.

    Fewer than ``MINIMUM_CLUSTERS`` clusters carry no usable spread: their interval is all of [0, 1]. Where every
    cluster is at 0 or every one at 1 there is no spread to resample, so the interval is the exact binomial one with
    the cluster as trial. Clusters with a denominator of 0 say nothing and are left out of n.

    Raises ObservationError where nothing is left, for negative counts and for a ratio above 1.
    """
    pairs = [(over, under) for over, under in zip(numerators, denominators, strict=True) if under > 0]
    if not pairs:
        raise ObservationError(f"nothing to estimate: {len(numerators)} prompts, none with a count to divide by")
    over, under = np.asarray(pairs, dtype=float).T
    n, value = len(pairs), float(over.sum() / under.sum())
    if value > 1 or (over < 0).any():
        raise ObservationError(f"a share of {value:.3f} cannot be: the counts contradict each other")
    if n < MINIMUM_CLUSTERS:
        return Estimate(value, 0.0, 1.0, n, f"none (n < {MINIMUM_CLUSTERS})")
    if value in (0.0, 1.0):
        return share(int(value * n), n)
    return Estimate(value, *_bootstrap_ratio(over, under), n, "cluster bootstrap, BCa")


def _bootstrap_ratio(over: Floats, under: Floats) -> tuple[float, float]:
    def ratio_of_sums(a: Floats, b: Floats, axis: int) -> Floats:
        quotient: Floats = a.sum(axis) / b.sum(axis)
        return quotient

    if np.ptp(over / under) == 0:  # no spread between prompts: BCa is undefined, every resample is the value itself
        return (float(over[0] / under[0]),) * 2
    interval = stats.bootstrap(
        (over, under),
        ratio_of_sums,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=1000,
        confidence_level=CONFIDENCE,
        method="BCa",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def acceptance_length(accepted: Sequence[int], drafts: Sequence[int], k: int) -> Estimate:
    """1 + accepted / drafts, the mean number of tokens that one target step yields, in [1, k + 1].

    The accepted share of the k·drafts proposed tokens is what is resampled; the length is a linear map of it.
    """
    per_token = ratio(accepted, [count * k for count in drafts])
    return Estimate(
        1 + k * per_token.value, 1 + k * per_token.low, 1 + k * per_token.high, per_token.n, per_token.method
    )


def share(successes: int, n: int) -> Estimate:
    """Share of prompts with the exact (Clopper-Pearson) binomial interval.

    With no failure at all, the interval's low end reaches 0.95 from n = 72 on (0.025 ** (1 / n)).
    """
    if n == 0:
        raise ObservationError("no prompts, so there is nothing to estimate")
    interval = stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method="exact")
    return Estimate(successes / n, float(interval.low), float(interval.high), n, EXACT)


def speedup(slower: Sequence[float], faster: Sequence[float]) -> Estimate:
    """Geometric mean of the paired ratios slower/faster (seconds), with a t interval on the logarithms.

    Each round times the same prompts on both servers, so drifts of the machine cancel in the ratio. With a dozen
    rounds the t interval holds its level on log ratios, where a bootstrap of so few would be too narrow.

    Raises ObservationError for fewer than two rounds or a time that is not positive.
    """
    first, second = np.asarray(slower, dtype=float), np.asarray(faster, dtype=float)
    if first.size < 2:
        raise ObservationError(f"{first.size} timed rounds: an interval needs at least two")
    if (first <= 0).any() or (second <= 0).any():
        raise ObservationError("a round took no time at all: the timings are wrong")
    logs = np.log(first / second)
    mean, error = float(logs.mean()), float(logs.std(ddof=1) / math.sqrt(logs.size))
    reach = error * float(stats.t.ppf((1 + CONFIDENCE) / 2, logs.size - 1))
    return Estimate(
        math.exp(mean), math.exp(mean - reach), math.exp(mean + reach), logs.size, "t interval of log ratios"
    )


def jackknife(statistic: Callable[[int | None], float], n: int) -> Estimate:
    """A positive statistic of n prompts, from its values without each of them, by a t interval on its logarithm.

    ``statistic(i)`` leaves the i-th prompt out, ``statistic(None)`` none. For fewer prompts than ``MINIMUM_CLUSTERS``,
    of which a bootstrap would be too narrow, and for quotients of several sums.

    Raises ObservationError for fewer than two prompts.
    """
    if n < 2:
        raise ObservationError(f"{n} prompts: an interval needs at least two")
    value, without = math.log(statistic(None)), np.log([statistic(place) for place in range(n)])
    error = math.sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum()))
    reach = error * float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    return Estimate(math.exp(value), math.exp(value - reach), math.exp(value + reach), n, "jackknife of logarithms")


def needed(estimate: Estimate, floor: float) -> int | None:
    """About how many samples would settle a straddled floor, if the value stays.

    Exact for shares; elsewhere from the rule that widths shrink with the root of n. None where the value lies on the
    floor, which no number of samples settles, and where it would take a hundred times as many.
    """
    if estimate.method == EXACT:
        return _needed_for_share(estimate, floor)
    distance = abs(estimate.value - floor)
    reach = estimate.value - estimate.low if estimate.value > floor else estimate.high - estimate.value
    if reach > 10 * distance:
        return None
    return max(estimate.n + 1, math.ceil(estimate.n * (reach / distance) ** 2))


def _needed_for_share(estimate: Estimate, floor: float) -> int | None:
    n = np.arange(estimate.n + 1, 100 * estimate.n)
    successes = np.round(estimate.value * n)
    tail = (1 - CONFIDENCE) / 2
    if estimate.value > floor:
        settled = stats.beta.ppf(tail, successes, n - successes + 1) >= floor
    else:
        settled = stats.beta.ppf(1 - tail, successes + 1, n - successes) < floor
    return int(n[settled.argmax()]) if settled.any() else None
