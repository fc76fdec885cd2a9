"""What a comparison sees: its formulas against simulation, and too few samples, which are INCONCLUSIVE."""

from __future__ import annotations

import math

import numpy as np
import pytest
from negative_controls.judge_documents import FUNCTIONS, Documents, outcome
from scipy import stats as distributions
from support import synthetic

from conformance.judging import power
from conformance.judging.expectations import expect_agreement, expect_at_least, expect_none_sampled
from conformance.judging.stats import POWER, Estimate, share, speedup
from conformance.judging.verdict import Finding, Verdict
from conformance.profile.floors import Floor

BEFORE = 400  # simulated runs


class Source:
    source = "observations/x.json"


@pytest.mark.parametrize(("n", "bound"), [(60, 0.9), (200, 0.95), (1000, 0.977)])
def test_a_share_at_the_bound_of_power_fails_with_that_probability(n: int, bound: float) -> None:
    value = power.fails_below(share(n, n), bound)
    failing = next(hits for hits in range(n, -1, -1) if share(hits, n).high < bound)
    assert distributions.binom.cdf(failing, n, value) == pytest.approx(POWER, abs=0.002)


def test_a_time_at_the_bound_of_power_fails_with_that_probability() -> None:
    rng, bound, n = np.random.default_rng(1), 2.0, 40
    typical = speedup(np.exp(rng.normal(math.log(2.5), 0.1, n)).tolist(), [1.0] * n)
    value = power.fails_below(typical, bound)
    runs = [speedup(np.exp(rng.normal(math.log(value), 0.1, n)).tolist(), [1.0] * n) for _ in range(BEFORE)]
    assert 0.85 < sum(run.high < bound for run in runs) / BEFORE <= 1


def test_above_is_the_mirror_of_below() -> None:
    estimate = Estimate(1.0, 0.9, 1.1, 30, "t")
    assert power.fails_above(estimate, 1.2) - 1.2 == pytest.approx(0.8 - power.fails_below(estimate, 0.8))


def test_noise_hides_a_drop() -> None:
    assert power.drop_seen(0.0, 2, 0.2) == pytest.approx(0.2)
    assert 0.2 < power.drop_seen(0.05, 2, 0.2) < power.drop_seen(0.2, 2, 0.2) < 1


def test_a_rate_that_is_so_wrong_fails_with_that_probability() -> None:
    n, rate, chance = 500, 0.6, 0.0001
    wrong = rate - power.rate_bias_seen(rate, n, chance)
    drawn = np.random.default_rng(2).binomial(n, wrong, 4000)
    limit = distributions.norm.isf(chance / 2) * math.sqrt(rate * (1 - rate) / n)
    assert np.mean(np.abs(drawn / n - rate) > limit) == pytest.approx(POWER, abs=0.02)


def test_few_trials_show_no_coverage() -> None:
    assert power.coverage_seen(2, 0.001) == 0.0
    assert 0 < power.coverage_seen(15, 0.001) < power.coverage_seen(200, 0.001) < 0.95


@pytest.fixture(scope="module")
def healthy() -> Documents:
    """The healthy documents, which no test here changes."""
    return synthetic.healthy()


@pytest.mark.parametrize("id", FUNCTIONS)
def test_every_finding_with_an_interval_says_what_it_sees(id: str, healthy: Documents) -> None:
    judged = [finding for finding in outcome(id, healthy).findings if finding.interval]
    assert [finding.sentence for finding in judged if finding.floor != "no floor" and not finding.power] == []


STATISTICAL = (
    "LOSS-01",
    "LOSS-02",
    "LOSS-03",
    "LOSS-04",
    "GOLD-01",
    "GOLD-02",
    "TASK-01",
    "TOOL-11",
    "GRAPH-03",
    "CAL-01",
)


@pytest.mark.parametrize("id", [*STATISTICAL, "ACC-01", "ACC-02", "ACC-03", "ACC-04", "SPEED-01", "SPEED-04", "ARM-02"])
def test_a_statistical_check_says_what_it_sees(id: str, healthy: Documents) -> None:
    assert any("with probability 0.95" in finding.power for finding in outcome(id, healthy).findings)


def few_self_comparisons(documents: Documents) -> None:
    documents["near_ties"]["compared"]["without_mtp"] = 20


def few_comparisons(documents: Documents) -> None:
    documents["near_ties"]["compared"]["with_mtp"] = 13


def restless_clients(documents: Documents) -> None:
    """Both clients are equally fast in the middle, and every pair of runs differs by a third."""
    for number, run in enumerate(documents["bench"]["runs"]):
        if run["client"] == "ours":
            run["seconds"] *= (1.33, 1 / 1.33, 1.0)[number // 2 % 3]


def restless_passes(documents: Documents) -> None:
    """No pass shows a cliff in the best passes, and the two passes differ by a factor of three."""
    for arm in documents["graph_steps"]["arms"].values():
        for row in arm["rates"][: len(arm["rates"]) // 2]:
            row["tokens_per_second"] /= 3


@pytest.mark.parametrize(
    ("id", "change", "words"),
    [
        ("LOSS-01", few_self_comparisons, "or less fails with probability 0.95, and 0.800 must; take more samples"),
        ("LOSS-02", few_comparisons, "a defect in 21% of the answers may not show, and at most 20% may be missed"),
        ("SPEED-04", restless_clients, "may pass, and at most 10% may; take more samples"),
        ("GRAPH-03", restless_passes, "the passes differ so much that a drop of"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_pass_without_power_is_inconclusive(id: str, change: object, words: str) -> None:
    documents = synthetic.healthy()
    assert callable(change)
    change(documents)
    found = outcome(id, documents)
    assert found.verdict is Verdict.INCONCLUSIVE, found
    assert words in found.sentence


def test_a_failure_needs_no_power() -> None:
    bad = Finding(Verdict.FAIL, "it differs", "1", "2")
    assert power.enough(bad, "sees", "too few").verdict is Verdict.FAIL
    assert power.enough(bad, "sees", "too few").sentence == "it differs"


@pytest.mark.parametrize(("equal", "n", "verdict"), [(100, 100, Verdict.PASS), (20, 20, Verdict.INCONCLUSIVE)])
def test_a_floor_that_noise_moved_needs_samples(equal: int, n: int, verdict: Verdict) -> None:
    floor = Floor("share", share(n, n).low - 0.02, 1.0, 1, "somewhere", "2026")
    assert expect_at_least(share(equal, n), floor, source=Source(), must_fail=0.8).verdict is verdict


def test_enough_answers_and_pairs_pass() -> None:
    assert expect_none_sampled([], among=14, source=Source(), may_miss=0.2).verdict is Verdict.PASS
    assert expect_none_sampled([], among=13, source=Source(), may_miss=0.2).verdict is Verdict.INCONCLUSIVE
    close, wide = (Estimate(1.0, 1 - reach, 1 + reach, 14, "x") for reach in (0.05, 0.15))
    assert expect_agreement(close, 0.03, 0.1, source=Source(), what="speed").verdict is Verdict.PASS
    assert expect_agreement(wide, 0.03, 0.1, source=Source(), what="speed").verdict is Verdict.INCONCLUSIVE


def test_a_fall_to_nothing_is_never_seen_by_too_few() -> None:
    assert power.falls(-0.2, 1.0) == "no true value above 0 fails with probability 0.95"
