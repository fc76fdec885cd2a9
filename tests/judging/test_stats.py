"""Intervals: known answers, coverage of a known truth, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from conformance.errors import ObservationError
from conformance.judging import stats
from conformance.judging.stats import Estimate

IntArray = NDArray[np.int64]


def workload(rng: np.random.Generator, prompts: int, k: int, rate: float) -> tuple[list[int], list[int]]:
    """Accepted tokens and drafts of each prompt, with prompts that differ in difficulty."""
    drafts = rng.integers(10, 40, prompts)
    easiness = np.clip(rng.normal(rate, 0.08, prompts), 0.01, 0.99)
    return [int(a) for a in rng.binomial(drafts * k, easiness)], [int(d) for d in drafts]


def test_a_value_on_its_floor_is_settled_by_no_number_of_samples() -> None:
    assert stats.needed(stats.ratio([1.0] * 12, [1.0] * 12), 1.0) is None


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


Rates = tuple[float, ...]


def answers(rng: np.random.Generator, rates: Rates, prompts: int, likeness: float) -> tuple[IntArray, IntArray]:
    """Joint counts (prompts × k) and drafts of answers that end at 11 to 96 tokens, with their accepted runs.

    ``likeness``: a + b of the beta distribution of the prompts' conditional rates; 0 where all have the same.
    """
    own = np.tile(rates, (prompts, 1))
    own = rng.beta(own * likeness, (1 - own) * likeness) if likeness else own
    runs = np.cumprod(rng.random((prompts, 96, len(rates))) < own[:, None, :], axis=2)
    written = 1 + np.cumsum(1 + runs.sum(axis=2), axis=1)
    asked = np.column_stack([np.ones(prompts, bool), written[:, :-1] < rng.integers(11, 97, prompts)[:, None]])
    return (runs * asked[:, :, None]).sum(axis=1), asked.sum(axis=1)


@pytest.mark.parametrize("likeness", [0, 30], ids=["alike", "spread"])
@pytest.mark.parametrize("prompts", [30, pytest.param(100, marks=pytest.mark.long)])  # few are the harder case
@pytest.mark.parametrize(
    "rates", [(0.99,) * 4, (0.95, 0.9, 0.85, 0.8), (0.85, 0.85, 0.86, 0.82), (0.6, 0.5, 0.5, 0.4)], ids=str
)
def test_acceptance_is_covered_at_its_nominal_rate(rates: Rates, prompts: int, likeness: float) -> None:
    rng, trials, categories = np.random.default_rng(7), 800, [f"c{i % 10}" for i in range(prompts)]
    joint, drafts = answers(rng, rates, 20000, likeness)
    truths = [*(joint.sum(axis=0) / drafts.sum()), 1 + joint.sum() / drafts.sum()]
    hits = np.zeros(len(truths))
    for _ in range(trials):
        joint, drafts = answers(rng, rates, prompts, likeness)
        estimates = [stats.ratio(list(column), list(drafts), categories) for column in joint.T]
        estimates.append(stats.acceptance_length(list(joint.sum(axis=1)), list(drafts), 4, categories))
        hits += [e.low <= truth <= e.high for e, truth in zip(estimates, truths, strict=True)]
    rate, failures = hits / trials, 10 * prompts * (1 - np.array(truths[:4]))
    assert rate.min() >= 0.92
    assert rate[[*(failures > 10), True]].max() <= 0.98  # an exact interval of a handful of failures covers more


def test_categories_that_differ_are_no_uncertainty() -> None:
    rng, trials, hits, widths = np.random.default_rng(8), 400, np.zeros(2), np.zeros(2)
    means = np.linspace(0.5, 0.95, 10)
    categories = [f"c{i % 10}" for i in range(40)]
    for _ in range(trials):
        accepted = list(rng.binomial(20, np.tile(means, 4)))
        for i, strata in enumerate((categories, None)):
            estimate = stats.ratio(accepted, [20] * 40, strata)
            hits[i] += estimate.low <= means.mean() <= estimate.high
            widths[i] += estimate.high - estimate.low
    assert 0.92 <= hits[0] / trials <= 0.98 < hits[1] / trials
    assert widths[0] < 0.7 * widths[1]


@pytest.mark.parametrize(
    ("labels", "codes"),
    [("aabb", [0, 0, 1, 1]), ("aabc", [0, 0, 1, 1]), ("aabbbc", [0, 0, 1, 1, 1, 0]), ("abc", [0, 0, 0])],
)
def test_a_lonely_prompt_joins_others(labels: str, codes: list[int]) -> None:
    assert list(stats._strata(list(labels))) == codes


def test_few_prompts_say_nothing() -> None:
    estimate = stats.ratio([10] * 9, [10] * 9)
    assert (estimate.low, estimate.high) == (0.0, 1.0)
    assert "n < 10" in estimate.method


def test_a_perfect_score_is_still_uncertain() -> None:
    estimate = stats.ratio([10] * 20, [10] * 20)
    assert estimate.low == pytest.approx(0.025 ** (1 / 20))
    assert estimate.high == 1.0


def test_prompts_that_all_agree_count_by_their_tokens() -> None:
    estimate = stats.ratio([5] * 20, [10] * 20)
    exact = stats.share(100, 200)
    assert (estimate.low, estimate.high) == pytest.approx((exact.low, exact.high))


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


def log_ratios(rng: np.random.Generator, count: int, size: int, noise: float) -> tuple[IntArray, list[float]]:
    """Rounds, and ratios with a true geometric mean of 2: ten categories, a spread within them, and noise by round."""
    rounds, categories = np.arange(count * size) // size, np.arange(count * size) % 10
    centre = np.linspace(-0.4, 0.4, 10)[categories]
    logs = centre - centre.mean() + rng.normal(0, 0.16, rounds.size) + rng.normal(0, noise, count)[rounds]
    return rounds, list(2 * np.exp(logs))


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize(("count", "size"), [(5, 8), (12, 8), (5, 17), (12, 17)])
def test_a_speedup_at_once_is_covered_at_its_nominal_rate(count: int, size: int, noise: float) -> None:
    rng, trials, hits = np.random.default_rng(9), 600, 0
    categories = [f"c{i % 10}" for i in range(count * size)]
    for _ in range(trials):
        rounds, ratios = log_ratios(rng, count, size, noise)
        estimate = stats.speedup(ratios, [1.0] * len(ratios), categories, list(rounds))
        hits += estimate.low <= 2 <= estimate.high
    assert 0.92 <= hits / trials <= 0.98
    assert (estimate.n, estimate.method) == (count * size, f"t interval of log ratios, {count} rounds")


@pytest.mark.parametrize("prompts", [30, 100])
def test_a_speedup_in_a_row_is_covered_at_its_nominal_rate(prompts: int) -> None:
    rng, trials, hits, widths = np.random.default_rng(10), 300, 0, np.zeros(2)
    categories = [f"c{i % 10}" for i in range(prompts)]
    for _ in range(trials):
        _, ratios = log_ratios(rng, prompts, 1, 0.0)
        both = [stats.speedup(ratios, [1.0] * prompts, strata) for strata in (categories, None)]
        hits += both[0].low <= 2 <= both[0].high
        widths += [each.high - each.low for each in both]
    assert 0.92 <= hits / trials <= 0.98
    assert widths[0] < 0.7 * widths[1]


def test_a_single_round_carries_no_interval() -> None:
    with pytest.raises(ObservationError, match="1 timed rounds"):
        stats.speedup([2.0, 2.0], [1.0, 1.0], clusters=[1, 1])


def test_a_higher_confidence_is_wider() -> None:
    ratios, categories = [1.0, 2.0, 3.0, 2.0] * 5, ["a", "b", "c", "d"] * 5
    ones = [1.0] * 20
    for strata, rounds in ((None, None), (["a"] * 20, None), (["a"] * 20, [i // 3 for i in range(20)])):
        usual, wider = (stats.speedup(ratios, ones, strata, rounds, confidence=c) for c in (0.95, 0.99))
        assert wider.low < usual.low < usual.high < wider.high
    usual, wider = (stats.ratio([7, 8] * 10, [10] * 20, categories, confidence=c) for c in (0.95, 0.99))
    assert wider.low < usual.low < usual.high < wider.high


def test_looks_share_the_error() -> None:
    assert stats.look_confidence(1) == pytest.approx(0.95)
    assert stats.look_confidence(2) == pytest.approx(0.975)


@pytest.mark.parametrize(
    ("slower", "faster"), [([1.0], [1.0]), ([], []), ([1.0, 0.0], [1.0, 1.0]), ([1.0, 1.0], [1.0])]
)
def test_timings_that_carry_no_interval_are_refused(slower: list[float], faster: list[float]) -> None:
    with pytest.raises(ObservationError):
        stats.speedup(slower, faster)


def test_a_burst_of_noise_hardly_moves_an_agreement() -> None:
    uneven = [1.00, 1.01, 0.99, 1.01, 1.00, 0.99, 1.00, 1.00, 1.01, 0.99, 1.00, 1.01]
    found = stats.agreement([*uneven[:-1], 1.4], [1.0] * 12)
    assert 0.99 <= found.low < found.value < found.high <= 1.01
    assert found.n == 12


@pytest.mark.parametrize("pairs", [6, 8, 12])
def test_an_agreement_is_covered_at_its_nominal_rate_under_heavy_tails(pairs: int) -> None:
    rng = np.random.default_rng(pairs)
    covered = 0
    for _ in range(1000):
        found = stats.agreement(np.exp(0.03 * rng.standard_t(2, pairs)).tolist(), [1.0] * pairs)
        covered += found.low <= 1 <= found.high
    assert 0.93 <= covered / 1000 <= 0.99


@pytest.mark.parametrize(("first", "second"), [([1.0] * 5, [1.0] * 5), ([1.0] * 6, [1.0] * 7), ([0.0] * 6, [1.0] * 6)])
def test_measurements_that_carry_no_agreement_are_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(ObservationError):
        stats.agreement(first, second)


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


def test_a_window_without_a_token_is_slow_and_no_error() -> None:
    found = stats.kept([100.0, 90.0, 110.0, 100.0, 105.0], [20.0, 0.0, 5.0, 0.0, 10.0])
    assert found.value == pytest.approx(35 / 505)
    assert found.high < 0.9
    with pytest.raises(ObservationError, match="means of a series are 100 and 0"):
        stats.kept([100.0] * 5, [0.0] * 5)


@pytest.mark.parametrize("spread", [0.05, 0.3])
def test_the_ratio_of_a_series_is_covered(spread: float) -> None:
    rng = np.random.default_rng(1)
    series = rng.gamma(1 / spread**2, 100 * spread**2, (400, 2, 8)) * np.array([1.0, 0.8])[:, None]
    found = [stats.kept(list(before), list(after)) for before, after in series]
    assert sum(each.low <= 0.8 <= each.high for each in found) >= 0.92 * len(found)


def test_the_quantiles_of_signed_ranks_are_those_of_the_table() -> None:
    """Of the sum of positive ranks under no difference; n and tail as in Wilcoxon's table of critical values."""
    quantiles = {(n, tail): stats._signed_rank_quantile(n, tail) for n in (5, 6, 8, 12, 20) for tail in (0.025, 0.005)}
    assert quantiles == {
        (5, 0.025): None,
        (5, 0.005): None,
        (6, 0.025): 0,
        (6, 0.005): None,
        (8, 0.025): 3,
        (8, 0.005): 0,
        (12, 0.025): 13,
        (12, 0.005): 7,
        (20, 0.025): 52,
        (20, 0.005): 37,
    }


def test_the_agreement_of_pairs_is_the_median_of_their_means() -> None:
    found = stats.agreement([1.0, 2.0, 4.0, 8.0, 16.0, 32.0], [1] * 6)
    assert found.value == pytest.approx(2**2.5)
    assert (found.low, found.high) == (pytest.approx(1), pytest.approx(32))
    assert (found.n, found.method) == (6, "Hodges-Lehmann, signed ranks")


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        (([1.0] * 6, [1.0] * 5), "6 measurements against 5 give no interval at 95%"),
        (([1.0] * 5, [1.0] * 5), "5 measurements against 5 give no interval at 95%"),
        (([1.0] * 5 + [0.0], [1.0] * 6), "a measurement is not positive: the timings are wrong"),
        (([1.0] * 6, [1.0] * 5 + [0.0]), "a measurement is not positive: the timings are wrong"),
    ],
)
def test_what_gives_no_agreement_says_why(pairs: tuple[list[float], list[float]], sentence: str) -> None:
    with pytest.raises(ObservationError) as refused:
        stats.agreement(*pairs)
    assert refused.value.sentence == sentence


def test_the_trend_of_a_line_is_its_slope() -> None:
    times = [*range(2 * stats.MINIMUM_SERIES)]
    found = stats.trend(times, [3 * each + 1 for each in times])
    assert (found.value, found.low, found.high) == (pytest.approx(3), pytest.approx(3), pytest.approx(3))
    assert (found.n, found.method) == (len(times), "Theil-Sen, for a series")


def test_a_higher_confidence_widens_a_trend() -> None:
    times = [*range(12)]
    values = [each + noise for each, noise in zip(times, np.random.default_rng(1).normal(size=12), strict=True)]
    usual, sure = (stats.trend(times, values, confidence=each) for each in (0.95, 0.99))
    assert sure.low < usual.low < 1 < usual.high < sure.high


@pytest.mark.parametrize("more", [0, 1])
def test_a_short_series_has_no_trend(more: int) -> None:
    times = [*range(2 * stats.MINIMUM_SERIES)]
    with pytest.raises(ObservationError) as refused:
        stats.trend(times[: len(times) - 1 + more], times[:-1])
    least = 2 * stats.MINIMUM_SERIES
    assert refused.value.sentence == f"{least - 1} measurements over time: a trend needs {least}"


@pytest.mark.parametrize(
    ("arms", "sentence"),
    [
        (([], []), "0 prompts with MTP against 0 without: nothing to compare"),
        (([{"a": 1}], []), "1 prompts with MTP against 0 without: nothing to compare"),
        (([{"a": 1}, {"a": 3}], [{"a": 2}, {}]), "prompt 2: 3 samples with MTP, 0 without"),
        (([{"a": -1, "b": 3}], [{"a": 4}]), "prompt 1: 2 samples with MTP, 4 without"),
    ],
)
def test_what_cannot_be_compared_says_which_prompt(
    arms: tuple[list[dict[str, int]], list[dict[str, int]]], sentence: str
) -> None:
    with pytest.raises(ObservationError) as refused:
        stats.homogeneity(*arms)
    assert refused.value.sentence == sentence
