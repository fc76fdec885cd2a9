"""Power: which true value a comparison fails with probability ``POWER``, from its own samples, spread and bound.

An interval that passes excludes a value beyond its bound already. A comparison needs more where noise moves the bound
itself, where the value alone decides, or where only failures are counted: then a PASS of too few samples says nothing,
and ``enough`` makes it INCONCLUSIVE.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import scipy

from conformance.judging.stats import CONFIDENCE, EXACT, POWER, SEED, Estimate
from conformance.judging.verdict import Finding, Verdict

SURELY = f"with probability {POWER:g}"
_DRAWS = 20_000


def enough(finding: Finding, seen: str, lacking: str = "") -> Finding:
    """The finding with what it sees; a PASS that lacks the power that its claim needs is INCONCLUSIVE."""
    if finding.verdict is not Verdict.PASS or not lacking:
        return replace(finding, power=seen)
    sentence = f"{finding.sentence}, but {lacking}; take more samples"
    return replace(finding, verdict=Verdict.INCONCLUSIVE, sentence=sentence, power=seen)


def fails_below(estimate: Estimate, bound: float, confidence: float = CONFIDENCE) -> float:
    """The largest true value whose interval of the same width lies below the bound with probability ``POWER``.

    It is exact for shares. Otherwise the wider side of the interval counts for both, and the estimate is normal.
    """
    if estimate.method == EXACT:
        return _share_that_fails(estimate.n, bound, confidence)
    return bound - _distance(estimate, confidence)


def fails_above(estimate: Estimate, bound: float, confidence: float = CONFIDENCE) -> float:
    """The same on the other side: the smallest true value whose interval lies above the bound."""
    return bound + _distance(estimate, confidence)


def _distance(estimate: Estimate, confidence: float) -> float:
    reach = max(estimate.value - estimate.low, estimate.high - estimate.value)
    return reach * (1 + _reach() / float(scipy.special.ndtri((1 + confidence) / 2)))


def _reach() -> float:
    """The distance that a normal estimate exceeds with probability ``1 - POWER``, in standard errors."""
    return float(scipy.special.ndtri(POWER))


def _share_that_fails(n: int, bound: float, confidence: float) -> float:
    successes = np.arange(n + 1)
    misses = np.maximum(n - successes, 1e-12)
    failing = successes[scipy.special.betaincinv(successes + 1, misses, (1 + confidence) / 2) < bound]
    if not failing.size:
        return -math.inf
    return float(scipy.special.betaincinv(failing.max() + 1, n - failing.max(), 1 - POWER))


def falls(value: float, measured: float) -> str:
    """A sentence for a fall that is seen."""
    return f"fails a true value of {value:.3f} or less {SURELY}{_share_of(value, measured)}" if value > 0 else _BLIND


def rises(value: float, measured: float) -> str:
    """A sentence for a rise that is seen."""
    return f"fails a true value of {value:.3f} or more {SURELY}{_share_of(value, measured)}"


_BLIND = f"no true value above 0 fails {SURELY}"


def _share_of(value: float, measured: float) -> str:
    return f", {abs(value / measured - 1):.0%} from the measured one" if measured > 0 else ""


def unseen_share(trials: int) -> float:
    """The share of answers that a defect must change so that one of so many trials shows it with probability POWER."""
    return float(1 - (1 - POWER) ** (1 / trials))


def shows_share(trials: int) -> str:
    """A sentence for it."""
    return f"shows a defect that changes {unseen_share(trials):.1%} of such answers {SURELY}"


def agreement_seen(ratio: Estimate, tolerance: float) -> float:
    """How far from 1 a ratio must be so that its estimate leaves the tolerance with probability ``POWER``."""
    deviation = (ratio.high - ratio.low) / 2 / float(scipy.special.ndtri((1 + CONFIDENCE) / 2))
    return tolerance + _reach() * deviation


def drop_seen(spread: float, passes: int, share: float) -> float:
    """The drop that is below ``1 - share`` of every earlier pass with probability ``POWER``.

    ``spread`` is the standard deviation of the logarithm of one pass. The best pass after the drop must be below the
    worst pass before it.
    """
    draws = np.random.default_rng(SEED).normal(0, spread, (_DRAWS, 2, passes))
    noise = float(np.quantile(draws[:, 0].max(axis=1) - draws[:, 1].min(axis=1), POWER))
    return 1 - (1 - share) * math.exp(-noise)


def rate_bias_seen(rate: float, n: int, chance: float) -> float:
    """By how much a rate of n independent draws must be wrong so that a two-sided test at ``chance`` fails it."""
    return (float(-scipy.special.ndtri(chance / 2)) + _reach()) * math.sqrt(rate * (1 - rate) / n)


def coverage_seen(trials: int, chance: float) -> float:
    """The largest coverage of 95 % intervals that a one-sided binomial test at ``chance`` fails; 0 if none."""
    covered = np.arange(trials + 1)
    failing = covered[scipy.special.bdtr(covered, trials, CONFIDENCE) < chance]
    if not failing.size:
        return 0.0
    return float(scipy.special.betaincinv(failing.max() + 1, trials - failing.max(), 1 - POWER))
