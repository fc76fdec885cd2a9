"""Intervals: every number that decides a verdict is an estimate with its interval and its n.

The sampling unit is the prompt, or the round if requests run at the same time, never the token. Tokens of one prompt
are correlated, and intervals over single tokens would be several times too narrow.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # loads its modules on first use: scipy.stats alone takes a second
from numpy.typing import NDArray

from conformance.errors import ObservationError

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

CONFIDENCE = 0.95
RESAMPLES = 9999
SEED = 20260506
MINIMUM_CLUSTERS = 10
MINIMUM_SERIES = 5
EXACT = "exact binomial"
EXPECTED = 5  # the chi-square approximation does not hold for smaller expected counts
POWER = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; ``n`` is the number of samples, ``method`` names the method of the interval."""

    value: float
    low: float
    high: float
    n: int
    method: str

    @property
    def half_width(self) -> float:
        """The half-width of the interval, as a share of the value."""
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

    The interval is the exact binomial one for the number of trials that has the same variance as the clusters. It stays
    correct near 1, where few prompts have a failure. ``strata`` are the categories of the prompts. They are fixed by
    design, so the spread between them is no uncertainty. The variance is linearised, with the t quantile of n - strata
    degrees of freedom, or of fewer if few clusters cause most of the variance (from its fourth moment, by
    Satterthwaite). In simulations it covers 92 to 98 %, and more only if there are very few failures. The BCa bootstrap
    covered only 83 % there, and unstratified intervals covered 99 % with different categories.

    Fewer than ``MINIMUM_CLUSTERS`` clusters have no usable spread, so their interval is all of [0, 1]. If every cluster
    is at 0, or every cluster at 1, the interval is the exact binomial one with the cluster as trial. If all clusters
    have the same other value, it is the interval of the single counts. Clusters with a denominator of 0 are left out.

    Raises:
        ObservationError: no cluster is left, a count is negative, or the ratio is above 1.
    """
    labels = [""] * len(numerators) if strata is None else strata
    rows = [row for row in zip(numerators, denominators, labels, strict=True) if row[1] > 0]
    if not rows:
        raise ObservationError(f"nothing to estimate: none of {len(numerators)} prompts has a count to divide by")
    over, under = np.asarray([row[:2] for row in rows], dtype=float).T
    n, value = len(rows), float(over.sum() / under.sum())
    if value > 1 or (over < 0).any():
        raise ObservationError(f"a share of {value:.3f} is impossible: the counts contradict each other")
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
        trials = value * (1 - value) / variance / _t_over_normal(freedom, tail) ** 2
    return _clopper_pearson(value * trials, (1 - value) * trials, tail)


def _t_over_normal(freedom: float, tail: float) -> float:
    """The t quantile over the normal quantile: what few degrees of freedom add to the width of an interval."""
    return float(scipy.special.stdtrit(freedom, tail) / scipy.special.ndtri(tail))


def _clopper_pearson(hits: float, misses: float, tail: float) -> tuple[float, float]:
    low = float(scipy.special.betaincinv(hits, misses + 1, tail)) if hits else 0.0
    high = float(scipy.special.betainccinv(hits + 1, misses, tail)) if misses else 1.0
    return low, high


def _strata(labels: Sequence[str]) -> Codes:
    """The strata as numbers 0, 1, …, each with at least two members.

    Strata with a single member are merged. If there is only one of them, it joins the smallest of the others.
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

    It is a linear function of the accepted share of the k·drafts proposed tokens, and so is its interval.

    Raises:
        ObservationError: no prompt has a draft, or the counts contradict each other.
    """
    per_token = ratio(accepted, [count * k for count in drafts], strata, confidence=confidence)
    low, value, high = (1 + k * part for part in (per_token.low, per_token.value, per_token.high))
    return Estimate(value, low, high, per_token.n, per_token.method)


def divide(one: Estimate, other: Estimate) -> Estimate:
    """Ratio of two positive estimates from independent samples with the same confidence.

    The squares of the distances to their ends are added, as logarithms (the method of variance estimates recovery, Zou
    and Donner 2008). ``n`` is that of the smaller sample.
    """
    value = one.value / other.value
    below = math.hypot(math.log(one.value / one.low), math.log(other.high / other.value))
    above = math.hypot(math.log(one.high / one.value), math.log(other.value / other.low))
    n = min(one.n, other.n)
    return Estimate(value, value * math.exp(-below), value * math.exp(above), n, f"ratio; {one.method}")


def share(successes: int, n: int, *, confidence: float = CONFIDENCE) -> Estimate:
    """Share of prompts with the exact (Clopper-Pearson) binomial interval.

    Without a failure, the low end of the interval reaches 0.95 from n = 72 on (0.025 ** (1 / n)).

    Raises:
        ObservationError: there is no prompt.
    """
    if n == 0:
        raise ObservationError("no prompts, so there is nothing to estimate")
    low, high = _clopper_pearson(successes, n - successes, (1 - confidence) / 2)
    return Estimate(successes / n, low, high, n, EXACT)


def speedup(
    slower: Sequence[float],
    faster: Sequence[float],
    strata: Sequence[str] | None = None,
    clusters: Sequence[int] | None = None,
    *,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Geometric mean of the paired ratios slower/faster (seconds), with an interval of the logarithms.

    Each pair times the same prompt on both servers, so drifts of the machine cancel in the ratio. ``strata`` are the
    categories of the pairs. They are fixed by design, so the spread between them is no uncertainty. ``clusters`` are
    the rounds of the pairs. Requests that run at the same time share the machine's noise, so a round is one sample.

    Raises:
        ObservationError: there are fewer than two pairs or rounds, or a time is not positive.
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
        error = logs.std(ddof=1) / math.sqrt(logs.size)
        reach = float(error * scipy.special.stdtrit(logs.size - 1, (1 + confidence) / 2))
        (below, above), method = (-reach, reach), "t interval of log ratios"
    mean = float(logs.mean())
    return Estimate(math.exp(mean), math.exp(mean + below), math.exp(mean + above), logs.size, method)


def _stratified_bootstrap(logs: Floats, strata: Codes, confidence: float) -> tuple[float, float]:
    """The ends of the mean's interval, as distances from the mean.

    As in Rao and Wu (1988), n - 1 of a stratum's n members are drawn, which makes the variance unbiased. Percentiles
    ignore the degrees of freedom, so they are widened by the t quantile over the normal quantile.
    """
    rng, sums = np.random.default_rng(SEED), np.zeros(RESAMPLES)
    for code in np.unique(strata):
        members = logs[strata == code]
        drawn = rng.integers(0, members.size, (RESAMPLES, members.size - 1))
        sums += members.size * members[drawn].mean(axis=1)
    tail, freedom = (1 - confidence) / 2, logs.size - np.unique(strata).size
    low, high = np.quantile(sums / logs.size - logs.mean(), [tail, 1 - tail]) * _t_over_normal(freedom, tail)
    return float(low), float(high)


def _by_round(
    logs: Floats, strata: Codes, clusters: NDArray[Any], confidence: float
) -> tuple[tuple[float, float], str]:
    """The same ends, from the deviations of whole rounds within their categories, and the name of the method.

    The variance is cluster-robust, with the t quantile of rounds - 1 degrees of freedom. It covers 93 to 96 % in
    simulations of 5 to 12 rounds of 8 or 17 requests.

    Raises:
        ObservationError: there are fewer than two rounds.
    """
    _, rounds = np.unique(clusters, return_inverse=True)
    count = int(rounds.max()) + 1
    if rounds.size != logs.size or count < 2:
        raise ObservationError(f"{count} timed rounds of {rounds.size} pairs: an interval needs at least two")
    residuals = logs - (np.bincount(strata, logs) / np.bincount(strata))[strata]
    deviations = np.bincount(rounds, residuals) / logs.size
    error = math.sqrt(count / (count - 1) * float((deviations**2).sum()))
    reach = error * float(scipy.special.stdtrit(count - 1, (1 + confidence) / 2))
    return (-reach, reach), f"t interval of log ratios, {count} rounds"


@dataclass(frozen=True)
class Sample:
    """The data of a ratio of sums: numerator, denominator and stratum of each cluster."""

    over: Sequence[float]
    under: Sequence[float]
    strata: Sequence[str]


def change(before: Sample, after: Sample, *, paired: bool, confidence: float = CONFIDENCE) -> Estimate:
    """Difference of two ratios of sums, after minus before, by a stratified bootstrap over clusters.

    ``paired``: cluster by cluster, both samples have the same prompt. They are drawn together, so the difficulty of a
    prompt cancels. A mean is a ratio whose denominators are 1, so means of logarithms are compared in the same way.
    Resampling follows Rao and Wu (1988), widened by the t quantile, as for the intervals of speedups.

    Raises:
        ObservationError: there are fewer than two clusters, or a sum of denominators is not positive.
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
    low, high = np.quantile(drawn - value, [tail, 1 - tail]) * _t_over_normal(freedom, tail)
    n = min(code.size for code in codes)
    method = f"{'paired' if paired else 'independent'} stratified bootstrap"
    return Estimate(value, value + float(low), value + float(high), n, method)


def _resampled_sums(columns: Floats, strata: Codes, rng: np.random.Generator) -> Floats:
    """Sums of the columns, one row per resample; n - 1 of a stratum's n clusters are drawn and weighted as n."""
    sums = np.zeros((RESAMPLES, columns.shape[1]))
    for code in np.unique(strata):
        members = columns[strata == code]
        size = members.shape[0]
        times = rng.multinomial(size - 1, np.full(size, 1 / size), RESAMPLES)
        sums += times @ members * (size / (size - 1))
    return sums


def agreement(first: Sequence[float], second: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """Ratio first/second of paired positive measurements that should agree (Hodges and Lehmann 1963).

    It is the median of all means of two logarithms, with the interval of Wilcoxon's signed-rank test. A true difference
    is in every pair. A burst of noise is in one pair and has little effect on the median.

    Raises:
        ObservationError: a measurement is not positive, or there are too few pairs (fewer than six at 95 %).
    """
    one, other = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    left_out = _signed_rank_quantile(one.size, (1 - confidence) / 2)
    if one.size != other.size or left_out is None:
        raise ObservationError(f"{one.size} measurements against {other.size} give no interval at {confidence:.0%}")
    if (one <= 0).any() or (other <= 0).any():
        raise ObservationError("a measurement is not positive: the timings are wrong")
    logs = np.log(one / other)
    rows, columns = np.triu_indices(logs.size)
    means = np.sort((logs[rows] + logs[columns]) / 2)
    low, high = np.exp([means[left_out], means[-1 - left_out]])
    value = math.exp(float(np.median(means)))
    return Estimate(value, float(low), float(high), logs.size, "Hodges-Lehmann, signed ranks")


def _signed_rank_quantile(n: int, tail: float) -> int | None:
    """The largest rank sum whose lower tail is at most this probability, by the exact distribution; None if none is."""
    ways = np.ones(1)
    for rank in range(1, n + 1):
        ways = np.convolve(ways, np.eye(1, rank + 1)[0] + np.eye(1, rank + 1, rank)[0])
    below = np.cumsum(ways) / 2**n
    return int(np.searchsorted(below, tail, side="right")) - 1 if below[0] <= tail else None


def kept(earlier: Sequence[float], later: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """Mean of a series' later measurements over that of its earlier ones, by a t interval of the ratio's logarithm.

    Single measurements may be zero: a server that stalls for a window is slow, not wrong. Neighbouring measurements are
    correlated, so the interval uses the effective number of measurements of a first-order autoregressive series.

    Raises:
        ObservationError: a side has fewer than ``MINIMUM_SERIES`` measurements, or its mean is not positive.
    """
    if min(len(earlier), len(later)) < MINIMUM_SERIES:
        raise ObservationError(f"{len(earlier)} measurements against {len(later)}: {MINIMUM_SERIES} are needed of each")
    sides = [np.asarray(side, dtype=float) for side in (earlier, later)]
    before, after = (float(side.mean()) for side in sides)
    if min(before, after) <= 0:
        raise ObservationError(f"the means of a series are {before:g} and {after:g}: a ratio needs positive ones")
    residuals = [side / side.mean() - 1 for side in sides]
    rho = _correlation(residuals, 1)
    sizes = [side.size * (1 - rho) / (1 + rho) for side in sides]
    variance = sum(float((each**2).sum()) for each in residuals) / (len(earlier) + len(later) - 2)
    reach = math.sqrt(variance * sum(1 / size for size in sizes))
    reach *= float(scipy.special.stdtrit(max(2.0, sum(sizes) - 2), (1 + confidence) / 2))
    found, n = after / before, len(earlier) + len(later)
    method = "t interval of the log ratio of means, for a series"
    return Estimate(found, found * math.exp(-reach), found * math.exp(reach), n, method)


def trend(times: Sequence[float], values: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """Slope of a series, by Theil and Sen: the median of the slopes between all pairs, which a few steps do not change.

    Sen's interval (1968) assumes independent measurements, so it is widened by the correlation of their residuals.

    Raises:
        ObservationError: there are fewer than twice ``MINIMUM_SERIES`` measurements.
    """
    x, y = np.asarray(times, dtype=float), np.asarray(values, dtype=float)
    if x.size != y.size or x.size < 2 * MINIMUM_SERIES:
        raise ObservationError(f"{y.size} measurements over time: a trend needs {2 * MINIMUM_SERIES}")
    slope, intercept, low, high = (float(each) for each in scipy.stats.theilslopes(y, x, confidence))
    rho = _correlation([y - intercept - slope * x], 2)
    wider = math.sqrt((1 + rho) / (1 - rho))
    method = "Theil-Sen, for a series"
    return Estimate(slope, slope - (slope - low) * wider, slope + (high - slope) * wider, y.size, method)


def _correlation(residuals: Sequence[Floats], fitted: int) -> float:
    """The correlation of neighbours in a series, in [0, 0.9], corrected for the ``fitted`` parameters of each part.

    In a part of n measurements it is about (fitted + 3 rho) / n too small (Marriott and Pope 1954).
    """
    squares = sum(float((each**2).sum()) for each in residuals)
    if squares <= 1e-18:
        return 0.0
    found = sum(float((each[1:] * each[:-1]).sum()) for each in residuals) / squares
    n = min(each.size for each in residuals)
    return min(0.9, max(0.0, (found + fitted / n) / (1 - min(3 / n, 0.5))))


def look_confidence(looks: int, confidence: float = CONFIDENCE) -> float:
    """The confidence of each of several group-sequential looks at growing data.

    Every look uses an equal share of the error rate 1 - confidence. This union bound is valid for any statistic.
    """
    return 1 - (1 - confidence) / looks


def needed(estimate: Estimate, floor: float, *, confidence: float = CONFIDENCE) -> int | None:
    """The approximate number of samples after which the interval no longer contains the floor, if the value stays.

    It is exact for shares. Otherwise it assumes that widths shrink with the root of n. It is None if the value equals
    the floor, and if a hundred times as many samples would be needed.
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
        settled = scipy.special.betaincinv(successes, n - successes + 1, tail) >= floor
    else:
        settled = scipy.special.betaincinv(successes + 1, n - successes, 1 - tail) < floor
    return int(n[settled.argmax()]) if settled.any() else None


@dataclass(frozen=True)
class Homogeneity:
    """Whether two arms sample next tokens from the same distributions, over all prompts together.

    ``p`` belongs to ``statistic`` (G, chi-square with ``degrees`` degrees of freedom if the arms are equal). ``n`` is
    the number of samples of the smaller arm over all prompts. ``detectable`` is the result of ``shift_seen``. Without a
    degree of freedom, every prompt has a single token and nothing can differ.
    """

    p: float
    statistic: float
    degrees: int
    n: int
    detectable: float


def homogeneity(
    with_mtp: Sequence[Mapping[str, int]], without: Sequence[Mapping[str, int]], *, confidence: float = CONFIDENCE
) -> Homogeneity:
    """Likelihood-ratio (G) test of two tables of counts by prompt and token; all samples must be independent.

    Within a prompt, tokens whose expected count is below ``EXPECTED`` in either arm are merged. G is divided by
    Williams' factor (1976); without it, many prompts of few samples raise false alarms (8 % instead of 5 % in
    simulations). G and degrees are summed over the prompts.

    Raises:
        ObservationError: there is no prompt, a prompt has no sample in one arm, or a count is negative.
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
        g, df = _g_test(_merge_rare_tokens(counts))
        statistic, degrees = statistic + g, degrees + df
        equivalent += 2 * sizes.prod() / sizes.sum()
        smaller += int(sizes.min())
    p = float(scipy.special.chdtrc(degrees, statistic)) if degrees else 1.0
    return Homogeneity(p, statistic, degrees, smaller, shift_seen(equivalent, degrees, confidence=confidence))


def _merge_rare_tokens(counts: Floats) -> Floats:
    """The table (2 × tokens) with rare tokens merged into the last column, which takes one more if it is rare too."""
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
    """G over Williams' factor, and its degrees of freedom; (0, 0) if there is only one token."""
    if counts.shape[1] < 2:
        return 0.0, 0
    found = scipy.stats.chi2_contingency(counts, correction=False, lambda_="log-likelihood")
    n, degrees = counts.sum(), int(found.dof)
    rows, columns = (n * (1 / counts.sum(axis=axis)).sum() - 1 for axis in (1, 0))
    return float(found.statistic / (1 + rows * columns / (6 * n * degrees))), degrees


def shift_seen(n: float, degrees: int, *, confidence: float = CONFIDENCE, power: float = POWER) -> float:
    """The total-variation shift of every prompt's distribution that ``homogeneity`` detects with probability ``power``.

    ``n`` is the number of samples of each arm, summed over the prompts (unequal arms count as their harmonic mean). Two
    arms at the distance d have the noncentrality n·Σ(p - q)²/(p + q), which is at least 2·n·d² by Cauchy and Schwarz.
    So d = √(λ / 2n) is detected, whichever tokens it concerns; merged tokens count as one. A result above 1, and the
    infinite result without a degree of freedom, mean that no shift is sure to be detected.
    """
    if degrees == 0:
        return math.inf
    critical = scipy.special.chdtri(degrees, 1 - confidence)
    noncentrality = float(scipy.special.chndtrinc(critical, degrees, 1 - power))
    return math.sqrt(noncentrality / (2 * n))
