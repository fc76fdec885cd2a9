"""Intervals: known answers, coverage of a known truth, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from conformance.harness import stats
from conformance.harness.errors import ObservationError
from conformance.harness.stats import Estimate


def workload(rng: np.random.Generator, prompts: int, k: int, rate: float) -> tuple[list[int], list[int]]:
    """Accepted tokens and drafts of each prompt, with prompts that differ in difficulty."""
    drafts = rng.integers(10, 40, prompts)
    easiness = np.clip(rng.normal(rate, 0.08, prompts), 0.01, 0.99)
    return [int(a) for a in rng.binomial(drafts * k, easiness)], [int(d) for d in drafts]


def test_a_ratio_is_one_of_sums_and_not_a_mean_of_ratios() -> None:
    estimate = stats.ratio([1] * 10 + [90] * 10, [10] * 10 + [100] * 10)
    assert estimate.value == pytest.approx(910 / 1100)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.n == 20


def test_acceptance_length_is_one_plus_accepted_over_drafts() -> None:
    accepted, drafts = [30, 20, 25, 28, 31, 22, 27, 26, 24, 29], [10] * 10
    estimate = stats.acceptance_length(accepted, drafts, k=4)
    assert estimate.value == pytest.approx(1 + sum(accepted) / 100)
    assert 1 < estimate.low < estimate.value < estimate.high < 5


def test_judging_twice_gives_the_same_interval() -> None:
    accepted, drafts = workload(np.random.default_rng(1), 40, 4, 0.7)
    assert stats.acceptance_length(accepted, drafts, 4) == stats.acceptance_length(accepted, drafts, 4)


def test_the_interval_is_wider_where_prompts_differ() -> None:
    alike = stats.ratio([7] * 10 + [8] * 10, [10] * 20)
    unlike = stats.ratio([5] * 10 + [10] * 10, [10] * 20)
    assert alike.value == unlike.value
    assert unlike.high - unlike.low > 3 * (alike.high - alike.low)


def test_the_interval_covers_the_truth_at_about_its_nominal_rate() -> None:
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(120):
        accepted, drafts = workload(rng, 60, 4, 0.7)
        estimate = stats.ratio(accepted, [4 * d for d in drafts])
        hits += estimate.low <= 0.7 <= estimate.high
    assert 0.89 <= hits / 120 <= 1.0


def test_few_prompts_say_nothing() -> None:
    estimate = stats.ratio([10] * 9, [10] * 9)
    assert (estimate.low, estimate.high) == (0.0, 1.0)
    assert "n < 10" in estimate.method


def test_a_perfect_score_is_still_uncertain() -> None:
    estimate = stats.ratio([10] * 20, [10] * 20)
    assert estimate.low == pytest.approx(0.025 ** (1 / 20))
    assert estimate.high == 1.0


def test_prompts_that_all_agree_have_no_spread() -> None:
    estimate = stats.ratio([5] * 20, [10] * 20)
    assert (estimate.low, estimate.value, estimate.high) == (0.5, 0.5, 0.5)


def test_prompts_without_a_draft_are_left_out_of_n() -> None:
    assert stats.ratio([5, 0] * 15, [10, 0] * 15).n == 15


@pytest.mark.parametrize(
    ("over", "under", "sentence"),
    [
        ([], [], "nothing to estimate"),
        ([0, 0], [0, 0], "nothing to estimate"),
        ([11] * 12, [10] * 12, "contradict"),
        ([-1] * 12, [10] * 12, "contradict"),
    ],
)
def test_counts_that_cannot_be_are_refused(over: list[int], under: list[int], sentence: str) -> None:
    with pytest.raises(ObservationError, match=sentence):
        stats.ratio(over, under)


def test_a_share_has_the_exact_binomial_interval() -> None:
    estimate = stats.share(45, 50)
    assert [estimate.low, estimate.high] == pytest.approx([0.7819, 0.9667], abs=1e-4)


def test_72_equal_texts_are_needed_for_95_percent() -> None:
    assert stats.share(72, 72).low >= 0.95
    assert stats.share(71, 71).low < 0.95


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(ObservationError, match="nothing to estimate"):
        stats.share(0, 0)


def test_a_speedup_is_the_geometric_mean_of_paired_ratios() -> None:
    estimate = stats.speedup([4.0, 1.0], [1.0, 1.0])
    assert estimate.value == pytest.approx(2.0)
    assert estimate.low < 2.0 < estimate.high


def test_a_drift_of_the_machine_cancels() -> None:
    drift = [1.0, 1.5, 2.0, 3.0]
    estimate = stats.speedup([2.0 * d for d in drift], drift)
    assert [estimate.low, estimate.high] == pytest.approx([2.0, 2.0])


@pytest.mark.parametrize(("slower", "faster"), [([1.0], [1.0]), ([], []), ([1.0, 0.0], [1.0, 1.0])])
def test_timings_that_carry_no_interval_are_refused(slower: list[float], faster: list[float]) -> None:
    with pytest.raises(ObservationError):
        stats.speedup(slower, faster)


def test_how_many_samples_would_settle_it() -> None:
    assert stats.needed(Estimate(0.97, 0.93, 0.99, 100, ""), 0.95) == 400
    assert stats.needed(Estimate(0.95, 0.9, 1.0, 100, ""), 0.95) is None
    assert stats.needed(Estimate(0.9, 0.85, 0.96, 100, ""), 0.95) == pytest.approx(144, abs=1)


@pytest.mark.parametrize(("successes", "n"), [(30, 30), (58, 60), (27, 30), (95, 100)])
def test_how_many_prompts_would_settle_a_share(successes: int, n: int) -> None:
    estimate = stats.share(successes, n)
    more = stats.needed(estimate, 0.95)
    if estimate.value == 0.95:
        assert more is None
        return
    assert more is not None
    enough, short = (stats.share(round(estimate.value * m), m) for m in (more, more - 1))
    settled = [e.low >= 0.95 or e.high < 0.95 for e in (enough, short)]
    assert settled == [True, False]


def test_72_are_named_where_30_of_30_are_equal() -> None:
    assert stats.needed(stats.share(30, 30), 0.95) == 72


def draws(rng: np.random.Generator, shares: list[float], n: int) -> dict[str, int]:
    """How often each token came in n draws."""
    return {f"t{i}": int(count) for i, count in enumerate(rng.multinomial(n, shares)) if count}


SHARES = [[0.5, 0.3, 0.1, 0.05, 0.03, 0.02], [0.9, 0.05, 0.05, 0, 0, 0], [0.25, 0.25, 0.2, 0.15, 0.1, 0.05]]


def test_two_arms_that_are_alike_rarely_raise_an_alarm() -> None:
    rng = np.random.default_rng(3)
    arms = (([draws(rng, s, 100) for s in SHARES], [draws(rng, s, 100) for s in SHARES]) for _ in range(400))
    alarms = sum(stats.homogeneity(*both).p < 0.05 for both in arms)
    assert alarms / 400 == pytest.approx(0.05, abs=0.025)


def test_the_detectable_shift_is_seen_with_its_power() -> None:
    rng = np.random.default_rng(4)
    even = [[0.25] * 4] * 3  # the worst case of the bound: a shift in proportion to the shares
    d = stats.shift_seen(600, 9)
    moved = [[0.25 + d / 2, 0.25 + d / 2, 0.25 - d / 2, 0.25 - d / 2]] * 3
    arms = (([draws(rng, s, 200) for s in moved], [draws(rng, s, 200) for s in even]) for _ in range(400))
    found = [stats.homogeneity(*both) for both in arms]
    assert found[0].detectable == pytest.approx(d)
    assert np.mean([each.p < 0.05 for each in found]) == pytest.approx(0.95, abs=0.03)


def test_rare_tokens_are_merged() -> None:
    found = stats.homogeneity([{"a": 50, "b": 30, "c": 1, "d": 2}], [{"a": 52, "b": 29, "e": 1, "f": 1}])
    assert (found.degrees, found.n) == (1, 83)
    assert found.p > 0.5


def test_the_g_statistic_has_its_textbook_value() -> None:
    found = stats.homogeneity([{"a": 60, "b": 40}], [{"a": 40, "b": 60}])
    g = 2 * 2 * (60 * np.log(1.2) + 40 * np.log(0.8))
    assert found.statistic == pytest.approx(g / (1 + 3 * 3 / (6 * 200)))
    assert found.degrees == 1


def test_arms_with_one_and_the_same_token_do_not_differ() -> None:
    found = stats.homogeneity([{"a": 20}, {"b": 9}], [{"a": 20}, {"b": 9}])
    assert (found.p, found.degrees, found.n) == (1.0, 0, 29)
    assert found.detectable == float("inf")


@pytest.mark.parametrize(
    ("with_mtp", "without"), [([], []), ([{"a": 1}], []), ([{"a": 1}], [{}]), ([{"a": 3, "b": -1}], [{"a": 1}])]
)
def test_counts_that_do_not_compare_are_refused(with_mtp: list[dict[str, int]], without: list[dict[str, int]]) -> None:
    with pytest.raises(ObservationError):
        stats.homogeneity(with_mtp, without)
