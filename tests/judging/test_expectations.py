"""Expectations and declarations on their own: what they record, what they refuse, and how a check is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from conformance.errors import ObservationError, Unsupported
from conformance.judging import stats
from conformance.judging.catalogue import at_level, catalogue, node_of
from conformance.judging.check import FAMILIES, Check, check, judge
from conformance.judging.expectations import (
    expect_all,
    expect_at_least,
    expect_at_least_by_looks,
    expect_at_most,
    expect_each_at_least_by_looks,
    expect_equal,
    expect_match,
    expect_none,
    expect_reliable,
    expect_within,
)
from conformance.judging.oracle import Oracle
from conformance.judging.stats import Estimate
from conformance.judging.verdict import Verdict
from conformance.profile.floors import Floor
from conformance.profile.profile import LEVELS
from conformance.views.parsers import Tried


class Seen:
    """A source for expectations on their own."""

    source = "observations/x.json"


def floor(bound: float, *, enforced: bool = True) -> Floor:
    return Floor("speed", bound, 1.0, 1, "somewhere", "2026", enforced)


def test_differences_are_named_and_the_rest_is_counted() -> None:
    actual = dict.fromkeys("abcdef", 1)
    found = expect_equal(actual, dict.fromkeys("abcdef", 2), source=Seen())
    assert found.sentence.count("is expected") == 3
    assert found.sentence.endswith("and 3 more")
    assert (found.value, found.n) == ("0 of 6", 6)


def test_extra_and_missing_keys_are_differences() -> None:
    found = expect_equal({"a": 1, "b": 2}, {"a": 1, "c": 3}, source=Seen())
    assert found.sentence == "c is absent where 3 is expected; b is 2 where nothing is expected"
    assert found.value == "1 of 3"


@pytest.mark.parametrize(
    "nothing",
    [
        lambda: expect_equal({}, {}, source=Seen()),
        lambda: expect_all({}, (1,), source=Seen()),
        lambda: expect_none([], among=0, source=Seen()),
        lambda: expect_reliable(Tried(0, ()), 0.02),
    ],
)
def test_an_expectation_of_nothing_is_an_error(nothing: Callable[[], object]) -> None:
    with pytest.raises(ObservationError):
        nothing()


@pytest.mark.parametrize(
    ("failures", "trials", "unreliable", "verdict"),
    [
        (0, 59, 0.05, Verdict.PASS),
        (0, 149, 0.02, Verdict.PASS),
        (0, 299, 0.01, Verdict.PASS),
        (0, 58, 0.05, Verdict.INCONCLUSIVE),
        (0, 148, 0.02, Verdict.INCONCLUSIVE),
        (1, 10_000, 0.05, Verdict.FAIL),
    ],
)
def test_no_failure_in_enough_trials(failures: int, trials: int, unreliable: float, verdict: Verdict) -> None:
    found = expect_reliable(Tried(trials, ("lost",) * failures), unreliable)
    assert found.verdict is verdict
    assert f"{trials} answers" in found.sentence


def test_an_informational_floor_fails_nothing_and_says_so() -> None:
    found = expect_at_least(Estimate(1.0, 0.9, 1.1, 12, ""), floor(2.0, enforced=False), source=Seen())
    assert found.verdict is Verdict.PASS
    assert found.sentence == "speed 1.000 [0.900, 1.100] misses 2 (informational)"


@dataclass(frozen=True)
class Look:
    """What a look shows: intervals made beforehand, or measurements to make one of."""

    number: int
    shown: Sequence[Estimate]

    @property
    def source(self) -> str:
        return f"observations/look-{self.number}.json"


class Lazy:
    """Looks that notice how many of them were asked for."""

    def __init__(self, *shown: Sequence[Estimate], count: int = 0) -> None:
        self.shown, self.count, self.asked = shown, count or len(shown), 0

    def __iter__(self) -> Iterator[Look]:
        for shown in self.shown:
            self.asked += 1
            yield Look(self.asked, shown)
        self.asked += 1  # one too many


UNDECIDED, GOOD, BAD = Estimate(2.1, 1.9, 2.3, 9, ""), Estimate(2.2, 2.1, 2.3, 20, ""), Estimate(1.5, 1.4, 1.6, 20, "")


@pytest.mark.parametrize(
    ("shown", "verdict", "asked", "words"),
    [
        ([GOOD, BAD], Verdict.PASS, 1, "speed 2.200 [2.100, 2.300] reaches 2 at look 1 of 2"),
        ([BAD, GOOD], Verdict.FAIL, 1, "misses 2 at look 1 of 2"),
        ([UNDECIDED, GOOD, BAD], Verdict.PASS, 2, "reaches 2 at look 2 of 3"),
        ([UNDECIDED, BAD], Verdict.FAIL, 2, "misses 2 at look 2 of 2"),
        ([UNDECIDED, UNDECIDED], Verdict.INCONCLUSIVE, 2, "may or may not reach 2 at look 2 of 2 (n = 9; about"),
        ([GOOD], Verdict.PASS, 1, "speed 2.200 [2.100, 2.300] reaches 2"),
    ],
)
def test_no_look_is_asked_for_after_the_decision(
    shown: list[Estimate], verdict: Verdict, asked: int, words: str
) -> None:
    looks = Lazy(*([each] for each in shown))
    found = expect_at_least_by_looks(
        looks, lambda look, _: look.shown[0], floor(2.0), note=lambda look: str(look.number)
    )
    assert (found.verdict, looks.asked, found.source) == (verdict, asked, f"observations/look-{asked}.json")
    assert words in found.sentence
    assert found.note == str(asked)
    assert ("look" in found.sentence) == (len(shown) > 1)


def test_an_informational_floor_is_worth_one_look() -> None:
    looks = Lazy([UNDECIDED], [UNDECIDED])
    found = expect_at_least_by_looks(looks, lambda look, _: look.shown[0], floor(2.0, enforced=False))
    assert (found.verdict, looks.asked) == (Verdict.PASS, 1)


@pytest.mark.parametrize(
    ("shown", "asked", "said"),
    [
        ([[GOOD, GOOD], [BAD, BAD]], 1, ["PASS look-1", "PASS look-1"]),
        ([[GOOD, UNDECIDED], [BAD, GOOD]], 2, ["PASS look-1", "PASS look-2"]),
        ([[UNDECIDED, UNDECIDED], [UNDECIDED, GOOD]], 2, ["INCONCLUSIVE look-2", "PASS look-2"]),
        ([[BAD, UNDECIDED], [BAD, GOOD]], 1, ["FAIL look-1", "INCONCLUSIVE look-1"]),
    ],
)
def test_every_position_is_settled_at_its_own_look(shown: list[list[Estimate]], asked: int, said: list[str]) -> None:
    looks = Lazy(*shown)

    def checking() -> None:
        expect_each_at_least_by_looks(looks, lambda look, _: look.shown, [floor(2.0), floor(2.0)], what="rate")

    found = judge(checking, {}).findings
    assert [f"{f.verdict} {f.source[13:-5]}" for f in found] == said
    assert looks.asked == asked
    assert "rate at position 2" in found[1].sentence


def test_looks_that_show_nothing_are_an_error() -> None:
    with pytest.raises(ObservationError, match="nothing to look at"):
        expect_at_least_by_looks(Lazy(count=2), lambda look, _: look.shown[0], floor(2.0))
    with pytest.raises(ObservationError, match="do not pair up"):
        expect_each_at_least_by_looks(Lazy([GOOD]), lambda look, _: look.shown, [floor(2.0)] * 2, what="x")


@pytest.mark.parametrize("count", [2, 3])
def test_looking_several_times_keeps_the_error_rate(count: int) -> None:
    """With the truth at the floor, every decision is wrong."""
    rng, wrong, trials = np.random.default_rng(5), 0, 2000
    for _ in range(trials):
        ratios = list(np.exp(rng.normal(np.log(2.0), 0.2, 20 * count)))
        looks = Lazy(*([UNDECIDED] for _ in range(count)))

        def estimate(look: Look, confidence: float, ratios: list[float] = ratios) -> Estimate:
            some = ratios[: 20 * look.number]
            return stats.speedup(some, [1.0] * len(some), confidence=confidence)

        wrong += expect_at_least_by_looks(looks, estimate, floor(2.0)).verdict is not Verdict.INCONCLUSIVE
    assert wrong / trials <= 0.05


def test_a_text_matches_or_not() -> None:
    assert expect_match("ValueError: x", "^ValueError", source=Seen(), what="w").verdict is Verdict.PASS
    assert expect_match("KeyError: x", "^ValueError", source=Seen(), what="w").verdict is Verdict.FAIL


def test_a_check_that_compares_nothing_is_an_error() -> None:
    assert judge(lambda: None, {}).verdict is Verdict.ERROR


def test_a_check_that_breaks_is_an_error_with_its_traceback() -> None:
    def broken() -> None:
        expect_equal(1, 1, source=Seen())
        raise KeyError("oops")

    found = judge(broken, {})
    assert found.verdict is Verdict.ERROR
    assert "unexpected KeyError: 'oops'" in found.sentence
    assert "Traceback" in found.details


@pytest.mark.parametrize(
    ("error", "verdict"),
    [(ObservationError("died", "tail"), Verdict.ERROR), (Unsupported("no such name"), Verdict.UNSUPPORTED)],
)
def test_exceptions_have_their_verdicts(error: Exception, verdict: Verdict) -> None:
    def raising() -> None:
        raise error

    assert judge(raising, {}).verdict is verdict
    assert judge(raising, {}).sentence == str(error)


def test_findings_of_one_check_do_not_reach_another() -> None:
    def compares_once() -> None:
        expect_equal(1, 1, source=Seen())

    assert len(judge(compares_once, {}).findings) == 1
    assert len(judge(compares_once, {}).findings) == 1


@pytest.mark.parametrize(
    ("id", "level", "claim"),
    [("ACC-1", "qualify", "x."), ("NEW-01", "qualify", "x."), ("ACC-01", "fast", "x."), ("ACC-01", "qualify", "x")],
)
def test_a_declaration_is_checked(id: str, level: str, claim: str) -> None:
    with pytest.raises(ValueError, match=id):
        check(id, level=level, severity="slow", response="measure-again", oracle="paired", claim=claim)


@pytest.mark.parametrize(("severity", "response"), [("bad", "measure-again"), ("slow", "pray")])
def test_severity_and_response_are_known_words(severity: str, response: str) -> None:
    with pytest.raises(ValueError, match="is none of"):
        check("ACC-01", level="qualify", severity=severity, response=response, oracle="paired", claim="x.")


@pytest.mark.parametrize(
    ("oracle", "reason", "message"),
    [
        ("guess", "", "is none of independent, paired, published, self-consistent"),
        ("paired", "Nothing is better.", "only for self-consistent checks"),
        ("self-consistent", "", "must say in a sentence why"),
        ("self-consistent", "because", "must say in a sentence why"),
    ],
)
def test_an_oracle_is_a_known_word_and_the_weakest_one_has_a_reason(oracle: str, reason: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(
            "ACC-01",
            level="qualify",
            severity="slow",
            response="measure-again",
            oracle=oracle,
            no_better_oracle=reason,
            claim="x.",
        )


def test_every_self_consistent_check_says_why_nothing_better_is_had() -> None:
    weakest = {c.id: c.no_better_oracle for c in catalogue() if c.oracle is Oracle.SELF_CONSISTENT}
    assert all(weakest.values())
    assert len(set(weakest.values())) == len(weakest), "two checks have the same reason"


def test_the_catalogue_is_ordered_by_cost_and_has_no_gap() -> None:
    ids = [c.id for c in catalogue()]
    assert ids == sorted(ids, key=lambda id: (FAMILIES.index(id.partition("-")[0]), id))
    for family in FAMILIES:
        numbers = [int(id.partition("-")[2]) for id in ids if id.startswith(f"{family}-")]
        assert numbers == list(range(1, len(numbers) + 1))


def test_a_level_runs_those_that_it_includes_too() -> None:
    static, smoke, qualify, soak, k_by_batch = ({c.id for c in at_level(catalogue(), level)} for level in LEVELS)
    assert static < smoke == qualify & soak == qualify & k_by_batch
    assert len(static) == len([check for check in catalogue() if check.level == "static"]) > 0
    assert qualify | soak | k_by_batch == {c.id for c in catalogue()}
    assert all(isinstance(c, Check) for c in at_level(catalogue(), "static"))


def interval(low: float, high: float) -> Estimate:
    """An estimate of 100 measurements with this interval."""
    return Estimate((low + high) / 2, low, high, 100, "made up")


@pytest.mark.parametrize(
    ("low", "high", "verdict", "words"),
    [
        (0.5, 1.0, Verdict.PASS, "x 0.750 [0.500, 1.000] stays within 1"),
        (0.5, 1.1, Verdict.INCONCLUSIVE, "x 0.800 [0.500, 1.100] may or may not stay within 1"),
        (1.0, 1.2, Verdict.INCONCLUSIVE, "x 1.100 [1.000, 1.200] may or may not stay within 1"),
        (1.1, 1.2, Verdict.FAIL, "x 1.150 [1.100, 1.200] exceeds 1"),
    ],
)
def test_an_upper_bound_judges_the_whole_interval(low: float, high: float, verdict: Verdict, words: str) -> None:
    found = expect_at_most(interval(low, high), 1.0, source=Seen(), what="x")
    assert (found.verdict, found.sentence) == (verdict, words)
    assert (found.floor, found.note, found.interval, found.n) == ("≤ 1", "", (low, high), 100)


@pytest.mark.parametrize(
    ("low", "verdict", "words"),
    [
        (1.1, Verdict.INCONCLUSIVE, "x 1.200 [1.100, 1.300] may or may not stay within 1"),
        (1.2, Verdict.INCONCLUSIVE, "x 1.250 [1.200, 1.300] may or may not stay within 1"),
        (1.25, Verdict.FAIL, "x 1.275 [1.250, 1.300] exceeds 1.2 (a leak)"),
    ],
)
def test_an_alarm_is_what_fails(low: float, verdict: Verdict, words: str) -> None:
    found = expect_at_most(interval(low, 1.3), 1.0, source=Seen(), what="x", alarm=1.2, suspected="a leak")
    assert (found.verdict, found.sentence) == (verdict, words)


@pytest.mark.parametrize(
    ("low", "high", "verdict", "words"),
    [
        (0.75, 1.25, Verdict.PASS, "x 1.000 [0.750, 1.250] lies within 0.75 to 1.25"),
        (0.5, 1.0, Verdict.INCONCLUSIVE, "x 0.750 [0.500, 1.000] may or may not lie within 0.75 to 1.25"),
        (0.5, 0.75, Verdict.INCONCLUSIVE, "x 0.625 [0.500, 0.750] may or may not lie within 0.75 to 1.25"),
        (1.25, 1.5, Verdict.INCONCLUSIVE, "x 1.375 [1.250, 1.500] may or may not lie within 0.75 to 1.25"),
        (0.5, 0.6, Verdict.FAIL, "x 0.550 [0.500, 0.600] lies outside 0.75 to 1.25"),
        (1.3, 1.5, Verdict.FAIL, "x 1.400 [1.300, 1.500] lies outside 0.75 to 1.25"),
    ],
)
def test_a_tolerance_judges_the_whole_interval(low: float, high: float, verdict: Verdict, words: str) -> None:
    found = expect_within(interval(low, high), 1.0, 0.25, source=Seen(), what="x")
    assert (found.verdict, found.sentence) == (verdict, words)


def test_a_value_without_a_name_is_called_the_value() -> None:
    found = expect_equal(1, 2, source=Seen())
    assert found.sentence == "the value is 1 where 2 is expected"
    assert found.note == ""
    assert expect_equal({"a": 1}, 2, source=Seen()).sentence == "the value is {'a': 1} where 2 is expected"


def test_none_is_a_value_and_not_nothing() -> None:
    found = expect_equal({"a": None, "b": 1}, {"b": 1, "c": None}, source=Seen())
    assert found.sentence == "c is absent where None is expected; a is None where nothing is expected"


def test_a_check_is_found_by_the_name_that_pytest_gives_it() -> None:
    assert node_of("GRAMMAR-02") == "conformance.test_structured_output::test_strict_schema_after_a_thought"
    with pytest.raises(KeyError, match="GRAMMAR-99"):
        node_of("GRAMMAR-99")
