"""Intervals: every number that a verdict rests on is an estimate with its 95 % interval and its n.

The sampling unit is the prompt (for acceptance and texts) or the round (for timings), never the token: tokens of one
prompt resemble each other, and counting them singly would make intervals several times too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from conformance.harness.errors import ObservationError

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 9999
SEED = 20260506
MINIMUM_CLUSTERS = 10
EXACT = "exact binomial"
EXPECTED = 5  # counts below which the chi-square approximation does not hold
POWER = 0.95


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


@dataclass(frozen=True)
class Homogeneity:
    """Whether two arms draw next tokens from the same distributions, over all prompts together.

    ``p`` belongs to ``statistic`` (G, chi-square with ``degrees`` degrees of freedom where the arms are alike); ``n``
    is the number of samples of each arm over all prompts (of the smaller arm, where they differ); ``detectable`` is
    what ``shift_seen`` says of them. With no degree of freedom, every prompt had a single token: nothing differs.
    """

    p: float
    statistic: float
    degrees: int
    n: int
    detectable: float


def homogeneity(
    with_mtp: Sequence[Mapping[str, int]], without: Sequence[Mapping[str, int]], *, confidence: float = CONFIDENCE
) -> Homogeneity:
    """Likelihood-ratio (G) test of two tables of counts by prompt and token; samples must be independent of each other.

    Within a prompt, tokens whose expected count lies below ``EXPECTED`` in either arm are merged to one. G is divided
    by Williams' factor (1976), or many prompts of few samples would raise false alarms (8 % instead of 5 % in
    simulation); G and degrees are then summed over the prompts.

    Raises ObservationError where there is no prompt, or a prompt without a sample in one arm, or a negative count.
    """
    if not with_mtp or len(with_mtp) != len(without):
        raise ObservationError(f"{len(with_mtp)} prompts with MTP against {len(without)} without: nothing to compare")
    statistic, degrees, equivalent, smaller = 0.0, 0, 0.0, 0
    for prompt, arms in enumerate(zip(with_mtp, without, strict=True), 1):
        tokens = sorted(set(arms[0]) | set(arms[1]))
        counts = np.array([[arm.get(token, 0) for token in tokens] for arm in arms], dtype=float)
        sizes = counts.sum(axis=1)
        if (counts < 0).any() or (sizes == 0).any():
            raise ObservationError(f"prompt {prompt}: {sizes[0]:g} samples with MTP, {sizes[1]:g} without")
        g, df = _g_test(_merged(counts))
        statistic, degrees = statistic + g, degrees + df
        equivalent += 2 * sizes.prod() / sizes.sum()
        smaller += int(sizes.min())
    p = float(stats.chi2.sf(statistic, degrees)) if degrees else 1.0
    return Homogeneity(p, statistic, degrees, smaller, shift_seen(equivalent, degrees, confidence=confidence))


def _merged(counts: Floats) -> Floats:
    """The table (2 × tokens) with its rare tokens as one column, the last; its own rarity may take one more in."""
    counts = counts[:, counts.sum(axis=0) > 0]
    counts = counts[:, np.argsort(-counts.sum(axis=0), kind="stable")]
    expected = counts.sum(axis=0) * counts.sum(axis=1).min() / counts.sum()
    kept = int((expected >= EXPECTED).sum())
    if kept == expected.size:
        return counts
    if expected[kept:].sum() < EXPECTED:
        kept = max(kept - 1, 0)
    return np.column_stack([counts[:, :kept], counts[:, kept:].sum(axis=1)])


def _g_test(counts: Floats) -> tuple[float, int]:
    """G over Williams' factor, and its degrees of freedom; (0, 0) where one token is all there is."""
    if counts.shape[1] < 2:
        return 0.0, 0
    found = stats.chi2_contingency(counts, correction=False, lambda_="log-likelihood")
    n, degrees = counts.sum(), int(found.dof)
    rows, columns = (n * (1 / counts.sum(axis=axis)).sum() - 1 for axis in (1, 0))
    return float(found.statistic / (1 + rows * columns / (6 * n * degrees))), degrees


def shift_seen(n: float, degrees: int, *, confidence: float = CONFIDENCE, power: float = POWER) -> float:
    """The total-variation shift, in every prompt's distribution, that ``homogeneity`` sees with probability ``power``.

    ``n``: samples of each arm, summed over the prompts (unequal arms count as their harmonic mean). Two arms that
    differ by the distance d have the noncentrality n·Σ(p - q)²/(p + q), which is at least 2·n·d² by Cauchy and Schwarz,
    so d = √(λ / 2n) is enough whatever tokens it concerns. Tokens that were merged count as one. Above 1 (and
    infinite where there is no degree of freedom) no shift is sure to be seen.
    """
    if degrees == 0:
        return math.inf
    critical = stats.chi2.isf(1 - confidence, degrees)
    noncentrality = float(special.chndtrinc(critical, degrees, 1 - power))
    return math.sqrt(noncentrality / (2 * n))
