"""Intervals: every number that a verdict rests on is an estimate with its interval and its n.

The sampling unit is the prompt, or the round where requests run at the same time, never the token: tokens of one
prompt resemble each other, and counting them singly would make intervals several times too narrow.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from conformance.errors import ObservationError

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

CONFIDENCE = 0.95
RESAMPLES = 9999
SEED = 20260506
MINIMUM_CLUSTERS = 10
MINIMUM_SERIES = 5
EXACT = "exact binomial"
EXPECTED = 5  # counts below which the chi-square approximation does not hold
POWER = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; ``n`` counts prompts, ``method`` names how the interval was made."""

    value: float
    low: float
    high: float
    n: int
    method: str

    @property
    def half_width(self) -> float:
        """Of the interval, as a share of the value."""
        return (self.high - self.low) / 2 / self.value

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def ratio(
    numerators: Sequence[float],
    denominators: Sequence[float],
    strata: Sequence[str] | None = None,
    *,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Ratio of sums in [0, 1] over clusters (accepted over drafts, by prompt), by Korn and Graubard (1998).

    That is the exact binomial interval with as many trials as carry the same variance as the clusters do; it stays
    honest near 1, where few prompts carry a failure. ``strata`` are the prompts' categories: fixed by design, so the
    spread between them is no uncertainty. The variance is linearised, with the t quantile of n - strata degrees of
    freedom, or of fewer where few clusters carry most of the variance (from its fourth moment, by Satterthwaite). In
    simulation it covers 92 to 98 %, and more only where a handful of failures is all there is; the BCa bootstrap
    came down to 83 % there, and unstratified intervals covered 99 % where categories differ.

    Fewer than ``MINIMUM_CLUSTERS`` clusters carry no usable spread: their interval is all of [0, 1]. Where every
    cluster is at 0 or every one at 1 the interval is the exact binomial one with the cluster as trial; where all agree
    on another value, it is that of the counts taken singly. Clusters with a denominator of 0 say nothing and are left
    out of n.

    Raises ObservationError where nothing is left, for negative counts and for a ratio above 1.
    """
    labels = [""] * len(numerators) if strata is None else strata
    rows = [row for row in zip(numerators, denominators, labels, strict=True) if row[1] > 0]
    if not rows:
        raise ObservationError(f"nothing to estimate: {len(numerators)} prompts, none with a count to divide by")
    over, under = np.asarray([row[:2] for row in rows], dtype=float).T
    n, value = len(rows), float(over.sum() / under.sum())
    if value > 1 or (over < 0).any():
        raise ObservationError(f"a share of {value:.3f} cannot be: the counts contradict each other")
    if n < MINIMUM_CLUSTERS:
        return Estimate(value, 0.0, 1.0, n, f"none (n < {MINIMUM_CLUSTERS})")
    if value in (0.0, 1.0):
        return share(int(value * n), n, confidence=confidence)
    low, high = _effective_binomial(over, under, _strata([row[2] for row in rows]), confidence)
    method = "exact binomial at the effective number of trials"
    return Estimate(value, low, high, n, method if strata is None else f"{method}, stratified")


def _effective_binomial(over: Floats, under: Floats, strata: Codes, confidence: float) -> tuple[float, float]:
    value = over.sum() / under.sum()
    residuals = over - value * under
    sizes = np.bincount(strata)
    residuals = residuals - (np.bincount(strata, residuals) / sizes)[strata]
    squares = residuals**2
    variance = (squares * (sizes / (sizes - 1))[strata]).sum() / under.sum() ** 2
    tail = (1 - confidence) / 2
    trials = under.sum()
    if variance > 0:
        freedom = min(residuals.size - sizes.size, max(2.0, 3 * squares.sum() ** 2 / (squares**2).sum() - 1))
        trials = value * (1 - value) / variance * (stats.norm.ppf(tail) / stats.t.ppf(tail, freedom)) ** 2
    hits, misses = value * trials, (1 - value) * trials
    return float(stats.beta.ppf(tail, hits, misses + 1)), float(stats.beta.isf(tail, hits + 1, misses))


def _strata(labels: Sequence[str]) -> Codes:
    """Strata as numbers 0, 1, …, each with at least two members.

    Those with a single member are taken together; if that leaves one alone, it joins the smallest of the others.
    """
    counts = Counter(labels)
    named = {label: label for label, count in sorted(counts.items()) if count > 1}
    single = [label for label in counts if label not in named]
    smallest = min(named, key=lambda label: counts[label], default="")
    named |= dict.fromkeys(single, smallest if len(single) == 1 else min(single, default=""))
    codes = {label: code for code, label in enumerate(sorted(set(named.values())))}
    return np.array([codes[named[label]] for label in labels])


def acceptance_length(
    accepted: Sequence[float],
    drafts: Sequence[float],
    k: int,
    strata: Sequence[str] | None = None,
    *,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """1 + accepted / drafts, the mean number of tokens that one target step yields, in [1, k + 1].

    It is a linear map of the accepted share of the k·drafts proposed tokens, and so is its interval.
    """
    per_token = ratio(accepted, [count * k for count in drafts], strata, confidence=confidence)
    low, value, high = (1 + k * part for part in (per_token.low, per_token.value, per_token.high))
    return Estimate(value, low, high, per_token.n, per_token.method)


def divide(one: Estimate, other: Estimate) -> Estimate:
    """Ratio of two positive estimates from samples that have nothing to do with each other.

    The distances of their ends are added in squares, as logarithms (the method of variance estimates recovery, Zou and
    Donner 2008), so that ``n`` and confidence are those of the smaller and the common one.
    """
    value = one.value / other.value
    below = math.hypot(math.log(one.value / one.low), math.log(other.high / other.value))
    above = math.hypot(math.log(one.high / one.value), math.log(other.value / other.low))
    n = min(one.n, other.n)
    return Estimate(value, value * math.exp(-below), value * math.exp(above), n, f"ratio; {one.method}")


def share(successes: int, n: int, *, confidence: float = CONFIDENCE) -> Estimate:
    """Share of prompts with the exact (Clopper-Pearson) binomial interval.

    With no failure at all, the interval's low end reaches 0.95 from n = 72 on (0.025 ** (1 / n)).
    """
    if n == 0:
        raise ObservationError("no prompts, so there is nothing to estimate")
    interval = stats.binomtest(successes, n).proportion_ci(confidence, method="exact")
    return Estimate(successes / n, float(interval.low), float(interval.high), n, EXACT)


def speedup(
    slower: Sequence[float],
    faster: Sequence[float],
    strata: Sequence[str] | None = None,
    clusters: Sequence[int] | None = None,
    *,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Geometric mean of the paired ratios slower/faster (seconds), with an interval made on the logarithms.

    Each pair times the same prompt on both servers, so drifts of the machine cancel in the ratio. ``strata`` are the
    categories of the pairs: fixed by design, so the spread between them is no uncertainty. ``clusters`` are the rounds
    of the pairs: requests that ran at the same time share the machine's noise, so a round counts as one.

    Raises ObservationError for fewer than two pairs or rounds, or a time that is not positive.
    """
    first, second = np.asarray(slower, dtype=float), np.asarray(faster, dtype=float)
    if first.size != second.size:
        raise ObservationError(f"{first.size} times against {second.size}: they do not pair up")
    if first.size < 2:
        raise ObservationError(f"{first.size} timed rounds: an interval needs at least two")
    if (first <= 0).any() or (second <= 0).any():
        raise ObservationError("a request took no time at all: the timings are wrong")
    logs, codes = np.log(first / second), _strata(strata or [""] * first.size)
    if clusters is not None:
        (below, above), method = _by_round(logs, codes, np.asarray(clusters), confidence)
    elif strata is not None:
        (below, above), method = _stratified_bootstrap(logs, codes, confidence), "stratified bootstrap of log ratios"
    else:
        reach = float(logs.std(ddof=1) / math.sqrt(logs.size) * stats.t.ppf((1 + confidence) / 2, logs.size - 1))
        (below, above), method = (-reach, reach), "t interval of log ratios"
    mean = float(logs.mean())
    return Estimate(math.exp(mean), math.exp(mean + below), math.exp(mean + above), logs.size, method)


def _stratified_bootstrap(logs: Floats, strata: Codes, confidence: float) -> tuple[float, float]:
    """Where the mean's interval begins and ends, as distances from the mean.

    Rao and Wu (1988): n - 1 of a stratum's n are drawn, which makes the variance unbiased. Percentiles know no
    degrees of freedom, so they are widened by the t quantile over the normal one.
    """
    rng, sums = np.random.default_rng(SEED), np.zeros(RESAMPLES)
    for code in np.unique(strata):
        members = logs[strata == code]
        drawn = rng.integers(0, members.size, (RESAMPLES, members.size - 1))
        sums += members.size * members[drawn].mean(axis=1)
    tail, freedom = (1 - confidence) / 2, logs.size - np.unique(strata).size
    wider = stats.t.ppf(tail, freedom) / stats.norm.ppf(tail)
    low, high = np.quantile(sums / logs.size - logs.mean(), [tail, 1 - tail]) * wider
    return float(low), float(high)


def _by_round(
    logs: Floats, strata: Codes, clusters: NDArray[Any], confidence: float
) -> tuple[tuple[float, float], str]:
    """The same, from what whole rounds deviate after their categories are accounted for, and the method's name.

    Cluster-robust variance with the t quantile of rounds - 1 degrees of freedom; it covers 93 to 96 % in simulations
    of 5 to 12 rounds of 8 or 17.
    """
    _, rounds = np.unique(clusters, return_inverse=True)
    count = int(rounds.max()) + 1
    if rounds.size != logs.size or count < 2:
        raise ObservationError(f"{count} timed rounds of {rounds.size} pairs: an interval needs at least two")
    residuals = logs - (np.bincount(strata, logs) / np.bincount(strata))[strata]
    deviations = np.bincount(rounds, residuals) / logs.size
    error = math.sqrt(count / (count - 1) * float((deviations**2).sum()))
    reach = error * float(stats.t.ppf((1 + confidence) / 2, count - 1))
    return (-reach, reach), f"t interval of log ratios, {count} rounds"


@dataclass(frozen=True)
class Sample:
    """What a ratio of sums is made of: numerator, denominator and stratum of each cluster."""

    over: Sequence[float]
    under: Sequence[float]
    strata: Sequence[str]


def change(before: Sample, after: Sample, *, paired: bool, confidence: float = CONFIDENCE) -> Estimate:
    """Difference of two ratios of sums, after less before, by a stratified bootstrap over clusters.

    ``paired``: cluster by cluster both are the same prompt, so that they are drawn together and what is hard about a
    prompt cancels. Means are ratios whose denominators are 1, so a mean of logarithms is compared in the same way.
    Resampled as Rao and Wu (1988) do and widened by the t quantile, as the intervals of speedups are.

    Raises ObservationError for fewer than two clusters, or where a side has nothing to divide by.
    """
    sides = [np.column_stack([side.over, side.under]).astype(float) for side in (before, after)]
    codes = [_strata(side.strata) for side in (before, after)]
    if min(side.shape[0] for side in sides) < 2 or any(side[:, 1].sum() <= 0 for side in sides):
        raise ObservationError(f"{min(len(before.over), len(after.over))} prompts: too few for an interval")
    rng = np.random.default_rng(SEED)
    if paired:
        both = _resampled_sums(np.hstack(sides), codes[0], rng)
        drawn = both[:, 2] / both[:, 3] - both[:, 0] / both[:, 1]
    else:
        first, second = (_resampled_sums(side, code, rng) for side, code in zip(sides, codes, strict=True))
        drawn = second[:, 0] / second[:, 1] - first[:, 0] / first[:, 1]
    value = float(np.subtract(*(side[:, 0].sum() / side[:, 1].sum() for side in reversed(sides))))
    freedom = min(code.size - np.unique(code).size for code in codes)
    tail = (1 - confidence) / 2
    wider = stats.t.ppf(tail, freedom) / stats.norm.ppf(tail)
    low, high = np.quantile(drawn - value, [tail, 1 - tail]) * wider
    n = min(code.size for code in codes)
    method = f"{'paired' if paired else 'independent'} stratified bootstrap"
    return Estimate(value, value + float(low), value + float(high), n, method)


def _resampled_sums(columns: Floats, strata: Codes, rng: np.random.Generator) -> Floats:
    """Sums of the columns, one row for each resample; n - 1 of a stratum's n clusters are drawn, as n count."""
    sums = np.zeros((RESAMPLES, columns.shape[1]))
    for code in np.unique(strata):
        members = columns[strata == code]
        size = members.shape[0]
        times = rng.multinomial(size - 1, np.full(size, 1 / size), RESAMPLES)
        sums += times @ members * (size / (size - 1))
    return sums


def agreement(first: Sequence[float], second: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """Ratio first/second of paired positive measurements that ought to agree (Hodges and Lehmann 1963).

    That is the median of all means of two logarithms, with the interval that belongs to Wilcoxon's signed-rank test.
    A true difference is in every pair, while a burst of noise is in one, which moves it but little.

    Raises ObservationError for a measurement that is not positive, and for fewer pairs than ranks can be sure of (six,
    at 95 %).
    """
    one, other = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    left_out = _signed_rank_quantile(one.size, (1 - confidence) / 2)
    if one.size != other.size or left_out is None:
        raise ObservationError(f"{one.size} measurements against {other.size} carry no interval at {confidence:.0%}")
    if (one <= 0).any() or (other <= 0).any():
        raise ObservationError("a measurement is not positive: the timings are wrong")
    logs = np.log(one / other)
    rows, columns = np.triu_indices(logs.size)
    means = np.sort((logs[rows] + logs[columns]) / 2)
    low, high = np.exp([means[left_out], means[-1 - left_out]])
    value = math.exp(float(np.median(means)))
    return Estimate(value, float(low), float(high), logs.size, "Hodges-Lehmann, signed ranks")


def _signed_rank_quantile(n: int, tail: float) -> int | None:
    """The largest sum of ranks that comes with less than this probability, by its exact distribution; None for none."""
    ways = np.ones(1)
    for rank in range(1, n + 1):
        ways = np.convolve(ways, np.eye(1, rank + 1)[0] + np.eye(1, rank + 1, rank)[0])
    below = np.cumsum(ways) / 2**n
    return int(np.searchsorted(below, tail, side="right")) - 1 if below[0] <= tail else None


def kept(earlier: Sequence[float], later: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """Geometric mean of a series' later measurements over that of its earlier ones, by a t interval of logarithms.

    Measurements that follow each other resemble each other, so as many count as carry the same variance in a series
    with that correlation (autoregressive of first order). Raises ObservationError for fewer than ``MINIMUM_SERIES``
    on either side, or one that is not positive.
    """
    if min(len(earlier), len(later)) < MINIMUM_SERIES:
        raise ObservationError(f"{len(earlier)} measurements against {len(later)}: {MINIMUM_SERIES} are needed of each")
    if min(*earlier, *later) <= 0:
        raise ObservationError("a measurement of a series is not positive")
    logs = [np.log(np.asarray(side, dtype=float)) for side in (earlier, later)]
    residuals = [side - side.mean() for side in logs]
    rho = _correlation(residuals, 1)
    sizes = [side.size * (1 - rho) / (1 + rho) for side in logs]
    variance = sum(float((each**2).sum()) for each in residuals) / (len(earlier) + len(later) - 2)
    reach = math.sqrt(variance * sum(1 / size for size in sizes))
    reach *= float(stats.t.ppf((1 + confidence) / 2, max(2.0, sum(sizes) - 2)))
    change, n = float(logs[1].mean() - logs[0].mean()), len(earlier) + len(later)
    method = "t interval of log ratios, for a series"
    return Estimate(math.exp(change), math.exp(change - reach), math.exp(change + reach), n, method)


def trend(times: Sequence[float], values: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """Slope of a series, by Theil and Sen: the median of the slopes between all pairs, which a few steps do not move.

    Sen's interval (1968) takes the measurements as independent, so it is widened as far as their residuals are not.
    Raises ObservationError for fewer than twice ``MINIMUM_SERIES`` of them.
    """
    x, y = np.asarray(times, dtype=float), np.asarray(values, dtype=float)
    if x.size != y.size or x.size < 2 * MINIMUM_SERIES:
        raise ObservationError(f"{y.size} measurements over time: a trend needs {2 * MINIMUM_SERIES}")
    slope, intercept, low, high = (float(each) for each in stats.theilslopes(y, x, confidence))
    rho = _correlation([y - intercept - slope * x], 2)
    wider = math.sqrt((1 + rho) / (1 - rho))
    method = "Theil-Sen, for a series"
    return Estimate(slope, slope - (slope - low) * wider, slope + (high - slope) * wider, y.size, method)


def _correlation(residuals: Sequence[Floats], fitted: int) -> float:
    """Of neighbours in a series, in [0, 0.9]; corrected for what the ``fitted`` parameters of each part take away.

    A part of n measurements has about (fitted + 3 rho) / n too little of it (Marriott and Pope 1954).
    """
    squares = sum(float((each**2).sum()) for each in residuals)
    if squares <= 1e-18:
        return 0.0
    found = sum(float((each[1:] * each[:-1]).sum()) for each in residuals) / squares
    n = min(each.size for each in residuals)
    return min(0.9, max(0.0, (found + fitted / n) / (1 - min(3 / n, 0.5))))


def look_confidence(looks: int, confidence: float = CONFIDENCE) -> float:
    """The confidence of each of so many looks at growing data.

    Every look spends an equal share of 1 - confidence: the union bound, valid for any statistic.
    """
    return 1 - (1 - confidence) / looks


def needed(estimate: Estimate, floor: float, *, confidence: float = CONFIDENCE) -> int | None:
    """About how many samples would settle a straddled floor, if the value stays.

    Exact for shares; elsewhere from the rule that widths shrink with the root of n. None where the value lies on the
    floor, which no number of samples settles, and where it would take a hundred times as many.
    """
    if estimate.method == EXACT:
        return _needed_for_share(estimate, floor, confidence)
    distance = abs(estimate.value - floor)
    reach = estimate.value - estimate.low if estimate.value > floor else estimate.high - estimate.value
    if distance == 0 or reach > 10 * distance:
        return None
    return max(estimate.n + 1, math.ceil(estimate.n * (reach / distance) ** 2))


def _needed_for_share(estimate: Estimate, floor: float, confidence: float) -> int | None:
    n = np.arange(estimate.n + 1, 100 * estimate.n)
    successes = np.round(estimate.value * n)
    tail = (1 - confidence) / 2
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
