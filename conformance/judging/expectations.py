"""Expectations: each ``expect_…`` compares observations with what a check requires, and records a Finding.

An expectation raises if there is nothing to compare, but never because a comparison fails. It records value, floor, n
and interval for a PASS as well. The verdict of the check is its worst finding.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from conformance.errors import ObservationError
from conformance.judging import power
from conformance.judging.check import record_finding
from conformance.judging.differences import ABSENT, comparison, difference, join_first, show
from conformance.judging.observed import Examined, Seen, Sorted
from conformance.judging.sequential import Looks
from conformance.judging.stats import CONFIDENCE, Estimate, Homogeneity, look_confidence, needed
from conformance.judging.verdict import NO_FLOOR, Finding, Verdict, decide
from conformance.profile.floors import Floor
from conformance.reference.numeric_error import Bound, Deviation, Likeness, bound_of

S = TypeVar("S", bound=Seen, covariant=True)
T = TypeVar("T", bound=Seen)


def expect_at_least(
    estimate: Estimate, floor: Floor, *, source: Seen, what: str = "", note: str = "", must_fail: float | None = None
) -> Finding:
    """Judge an estimate by its floor: PASS if its interval reaches the floor, FAIL if it misses it, else INCONCLUSIVE.

    ``what`` names the quantity, if the name of the floor does not; ``note`` is shown below the table. ``must_fail`` is
    the true value that so many samples must fail, where noise moves the floor.
    """
    return record_finding(_compare_with_floor(estimate, floor, source, what, note, must_fail=must_fail))


def expect_within(estimate: Estimate, centre: float, tolerance: float, *, source: Seen, what: str) -> Finding:
    """PASS if the interval lies within ``tolerance`` of ``centre``, FAIL if it lies outside, else INCONCLUSIVE."""
    low, high = centre - tolerance, centre + tolerance
    inside, outside = low <= estimate.low and estimate.high <= high, estimate.high < low or high < estimate.low
    verdict = Verdict.PASS if inside else Verdict.FAIL if outside else Verdict.INCONCLUSIVE
    ends = power.fails_below(estimate, low), power.fails_above(estimate, high)
    words = {
        Verdict.PASS: "lies within",
        Verdict.FAIL: "lies outside",
        Verdict.INCONCLUSIVE: "may or may not lie within",
    }
    return record_finding(
        Finding(
            verdict,
            f"{what} {estimate} {words[verdict]} {low:g} to {high:g}",
            f"{estimate.value:.3f}",
            f"{low:g} to {high:g}",
            estimate.n,
            (estimate.low, estimate.high),
            source.source,
            power=f"fails a true value of {ends[0]:.3f} or less, or {ends[1]:.3f} or more, {power.SURELY}",
        )
    )


def expect_at_most(
    estimate: Estimate,
    bound: float,
    *,
    source: Seen,
    what: str,
    note: str = "",
    alarm: float | None = None,
    suspected: str = "",
) -> Finding:
    """PASS if the whole interval stays within the bound, FAIL if it exceeds it as a whole, else INCONCLUSIVE.

    With an ``alarm``, an interval is a FAIL if it exceeds the alarm as a whole. ``suspected`` ends a FAIL's sentence.
    """
    failed = estimate.low > (bound if alarm is None else alarm)
    seen = power.rises(power.fails_above(estimate, bound if alarm is None else alarm), estimate.value)
    verdict = Verdict.FAIL if failed else Verdict.PASS if estimate.high <= bound else Verdict.INCONCLUSIVE
    bound = alarm if failed and alarm is not None else bound
    words = {
        Verdict.PASS: "stays within",
        Verdict.FAIL: "exceeds",
        Verdict.INCONCLUSIVE: "may or may not stay within",
    }
    sentence = f"{what} {estimate} {words[verdict]} {bound:g}"
    sentence += f" ({suspected})" if failed and suspected else ""
    value, interval = f"{estimate.value:.3f}", (estimate.low, estimate.high)
    floor = f"≤ {bound:g}"
    return record_finding(
        Finding(verdict, sentence, value, floor, estimate.n, interval, source.source, note, power=seen)
    )


def expect_at_least_by_looks(
    looks: Looks[T],
    estimate: Callable[[T, float], Estimate],
    floor: Floor,
    *,
    what: str = "",
    note: Callable[[T], str] | str = "",
    confidence: float = CONFIDENCE,
) -> Finding:
    """Judge an estimate by its floor at each group-sequential look, until one look decides; later looks are not made.

    ``estimate`` gets the look, and the confidence after the error rate is split among the looks. The finding comes from
    the look that decides, or else from the last look. A floor that is not enforced gets one look.

    Raises:
        ObservationError: there is no look.
    """
    settled = _judge_by_looks(looks, lambda look, level: [estimate(look, level)], [floor], [what], note, confidence)
    return record_finding(settled[0])


def expect_each_at_least_by_looks(
    looks: Looks[T],
    estimates: Callable[[T, float], Sequence[Estimate]],
    floors: Sequence[Floor],
    *,
    what: str,
    note: Callable[[T], str] | str = "",
    confidence: float = CONFIDENCE,
) -> None:
    """The same for each draft position; a decided position stays decided while others get another look.

    One position that misses its floor decides the check, so no more looks are made for the others.

    Raises:
        ObservationError: there is no look, or the numbers of estimates and floors differ.
    """
    names = [f"{what} at position {position}" for position in range(1, len(floors) + 1)]
    for finding in _judge_by_looks(looks, estimates, floors, names, note, confidence):
        record_finding(finding)


def expect_all_at_least_by_looks(
    looks: Looks[T],
    estimates: Callable[[T, float], Sequence[Estimate]],
    floors: Sequence[Floor],
    *,
    note: Callable[[T], str] | str = "",
    confidence: float = CONFIDENCE,
) -> None:
    """The same for estimates that the names of their floors name.

    Raises:
        ObservationError: there is no look, or the numbers of estimates and floors differ.
    """
    for finding in _judge_by_looks(looks, estimates, floors, [""] * len(floors), note, confidence):
        record_finding(finding)


def _judge_by_looks(
    looks: Looks[T],
    estimates: Callable[[T, float], Sequence[Estimate]],
    floors: Sequence[Floor],
    names: Sequence[str],
    note: Callable[[T], str] | str,
    confidence: float,
) -> list[Finding]:
    """For each floor, the finding of the look that decided it, or of the last look.

    Raises:
        ObservationError: there is no look, or the numbers of estimates and floors differ.
    """
    findings: dict[int, Finding] = {}
    open_floors, level = list(range(len(floors))), look_confidence(looks.count, confidence)
    for number, look in enumerate(looks, 1):
        found = estimates(look, level)
        _check_pairs(found, floors)
        words = note(look) if callable(note) else note
        when = f" at look {number} of {looks.count}" if looks.count > 1 else ""
        for i in open_floors:
            findings[i] = _compare_with_floor(found[i], floors[i], look, names[i], words, when, level)
        open_floors = [i for i in open_floors if findings[i].verdict is Verdict.INCONCLUSIVE]
        # Stop at the last look by its number: to ask a lazy sequence for one more would make the server gather more.
        if not open_floors or number == looks.count or any(f.verdict is Verdict.FAIL for f in findings.values()):
            break
    if not findings:
        raise ObservationError("there was nothing to look at")
    return [findings[i] for i in range(len(floors))]


def _check_pairs(estimates: Sequence[Estimate], floors: Sequence[Floor]) -> None:
    if len(estimates) != len(floors) or not floors:
        raise ObservationError(f"{len(estimates)} estimates against {len(floors)} floors: they do not pair up")


def _compare_with_floor(
    estimate: Estimate,
    floor: Floor,
    source: Seen,
    what: str,
    note: str,
    when: str = "",
    confidence: float = CONFIDENCE,
    must_fail: float | None = None,
) -> Finding:
    """Compare one estimate with its floor; ``when`` names the look."""
    name, bound, seen, lacking = what or floor.name, floor.bound, "", ""
    if bound is None:
        verdict, shown = Verdict.UNSUPPORTED, NO_FLOOR
        sentence = f"{name} {estimate} was measured; there is no floor, because {floor.reason}"
    else:
        verdict, shown = decide(estimate, bound), f"{bound:.4g}"
        words = {Verdict.PASS: "reaches", Verdict.FAIL: "misses", Verdict.INCONCLUSIVE: "may or may not reach"}
        sentence = f"{name} {estimate} {words[verdict]} {bound:.4g}{when}"
        if verdict is Verdict.INCONCLUSIVE and (more := needed(estimate, bound, confidence=confidence)) is not None:
            sentence += f" (n = {estimate.n}; about {more} would settle it)"
        if not floor.enforced:
            verdict, sentence = Verdict.PASS, f"{sentence} (informational)"
        fails = power.fails_below(estimate, bound, confidence)
        seen = power.falls(fails, estimate.value)
        if must_fail is not None and fails < must_fail:
            lacking = f"only {max(fails, 0):.3f} or less fails {power.SURELY}, and {must_fail:.3f} must"
    value, interval = f"{estimate.value:.3f}", (estimate.low, estimate.high)
    return power.enough(
        Finding(verdict, sentence, value, shown, estimate.n, interval, source.source, note), seen, lacking
    )


def expect_agreement(
    ratio: Estimate, tolerance: float, must_see: float, *, source: Seen, what: str, note: str = ""
) -> Finding:
    """Two clients measure the same: the ratio of their results is 1 within the tolerance.

    A difference that may be noise, by the interval of the ratio, is INCONCLUSIVE, and so is a ratio so uncertain that a
    difference of ``must_see`` might pass.

    Raises:
        ObservationError: the clients differ. It is unknown which of them is wrong, so this is no FAIL of the server.
    """
    low, high = 1 - tolerance, 1 + tolerance
    sentence = f"{what} by our client over that by the other client is {ratio}, where {low:g} to {high:g} is required"
    if ratio.high < low or high < ratio.low:
        raise ObservationError(sentence)
    verdict = Verdict.PASS if low <= ratio.value <= high else Verdict.INCONCLUSIVE
    bounds = (ratio.low, ratio.high)
    shown = f"{low:g} to {high:g}"
    found = Finding(verdict, sentence, f"{ratio.value:.3f}", shown, ratio.n, bounds, source.source, note)
    difference = power.agreement_seen(ratio, tolerance)
    seen = f"does not pass a difference of {difference:.1%} {power.SURELY}"
    lacking = f"a difference of {difference:.1%} may pass, and at most {must_see:.0%} may"
    return record_finding(power.enough(found, seen, lacking if difference > must_see else ""))


def expect_equal(actual: Any, expected: Any, *, source: Seen, what: str = "", note: str = "") -> Finding:
    """Actual equals expected. Two mappings are compared key by key, and the finding names the first differences.

    ``note`` is shown below the table and says what could not be compared.

    Raises:
        ObservationError: one of the mappings is empty.
    """
    if not isinstance(actual, Mapping) or not isinstance(expected, Mapping):
        actual, expected = {what or "the value": actual}, {what or "the value": expected}
    if not actual or not expected:
        raise ObservationError(f"{source.source}: nothing to compare")
    differences = [
        difference(name, actual.get(name, ABSENT), expected.get(name, ABSENT))
        for name in [*expected, *(name for name in actual if name not in expected)]
        if actual.get(name, ABSENT) != expected.get(name, ABSENT)
    ]
    total = len(expected.keys() | actual.keys())
    return record_finding(comparison(differences, total, total - len(differences), "equal", source, note))


def expect_all(values: Mapping[str, Any], allowed: Collection[Any], *, source: Seen, note: str = "") -> Finding:
    """Every value is one of the allowed ones.

    Raises:
        ObservationError: there is no value.
    """
    if not values:
        raise ObservationError(f"{source.source}: nothing to compare")
    wanted = " or ".join(sorted(show(value) for value in allowed))
    wrong = [f"{name} is {show(v)} where {wanted} is expected" for name, v in values.items() if v not in allowed]
    return record_finding(comparison(wrong, len(values), len(values) - len(wrong), wanted, source, note))


def expect_close(
    deviations: Mapping[str, Deviation], bounds: Mapping[str, Bound], name: str, *, source: Seen
) -> Finding:
    """Every output is within the bound ``name`` of its reference.

    Raises:
        ObservationError: there is no output.
        Unsupported: there is no bound of this name.
    """
    if not deviations:
        raise ObservationError(f"{source.source}: nothing to compare")
    bound = bound_of(bounds, name).relative_error
    wrong = [
        f"{what} is {found} where at most {bound:.2%} is expected"
        for what, found in sorted(deviations.items(), key=lambda item: -item[1].error)
        if found.defect or not found.error <= bound
    ]
    worst_error = max(found.error for found in deviations.values())
    finding = Finding(
        Verdict.FAIL if wrong else Verdict.PASS,
        join_first(wrong) if wrong else f"{name}: the largest of {len(deviations)} deviations is {worst_error:.2%}",
        f"{worst_error:.2%}",
        f"≤ {bound:.2%}",
        len(deviations),
        None,
        source.source,
    )
    return record_finding(finding)


def expect_same_distribution(found: Homogeneity, likeness: Likeness, *, source: Seen, note: str = "") -> Finding:
    """Two samples come from one distribution; INCONCLUSIVE if the test may have missed too large a shift.

    ``found`` must be tested at the alarm of ``likeness``; ``note`` is shown below the table.
    """
    shown = f"p = {found.p:.2g} (G = {found.statistic:.1f}, {found.degrees} degrees of freedom, n = {found.n})"
    if found.p < likeness.alarm:
        verdict, sentence = Verdict.FAIL, f"the distributions differ: {shown}; {note}"
    elif found.detectable > likeness.shift:
        missed = f"the test may miss a shift of {found.detectable:.0%}, and at most {likeness.shift:.0%} is allowed"
        verdict, sentence = Verdict.INCONCLUSIVE, f"{shown}, but {missed}; take more samples"
    else:
        verdict, sentence = Verdict.PASS, f"no difference: {shown}"
    seen = f"fails a shift of {found.detectable:.0%} of the probability {power.SURELY}"
    value, floor = f"p = {found.p:.2g}", f"p ≥ {likeness.alarm:g}"
    return record_finding(Finding(verdict, sentence, value, floor, found.n, None, source.source, note, power=seen))


def expect_match(text: str, pattern: str, *, source: Seen, what: str) -> Finding:
    """The text matches the regular expression."""
    if re.search(pattern, text):
        return record_finding(Finding(Verdict.PASS, f"{what}: {text}", "yes", "yes", 1, None, source.source, text))
    sentence = f"{what}: {show(text)}, where text that matches /{pattern}/ is expected"
    return record_finding(Finding(Verdict.FAIL, sentence, "no", "yes", 1, None, source.source))


def expect_none(
    found: Sequence[str],
    *,
    among: int,
    source: Seen,
    note: str = "",
    doubtful: Sequence[str] = (),
    seen: str = "",
    lacking: str = "",
) -> Finding:
    """There is no objection among the examined things; ``found`` has a sentence for each thing that is wrong.

    ``doubtful`` has a sentence for each thing that noise may have made look wrong: without any other, INCONCLUSIVE.
    ``seen`` says what so many samples see, ``lacking`` why that is too little for a PASS.

    Raises:
        ObservationError: nothing was examined.
    """
    if among <= 0:
        raise ObservationError(f"{source.source}: nothing was looked at")
    if doubtful and not found:
        sentence = f"{join_first(doubtful)}; but the passes differ so much that noise may be why"
        value = f"{among - len(doubtful)} of {among}"
        doubt = Finding(Verdict.INCONCLUSIVE, sentence, value, "all", among, None, source.source, note, power=seen)
        return record_finding(doubt)
    right = max(among - len(found), 0)
    return record_finding(
        power.enough(comparison(list(found), among, right, "without objection", source, note), seen, lacking)
    )


def expect_none_sampled(found: Sequence[str], *, among: int, source: Seen, may_miss: float = 1.0) -> Finding:
    """The same for samples of what the server may answer.

    A PASS needs so many of them that a defect which changes the share ``may_miss`` of the answers shows.

    Raises:
        ObservationError: nothing was examined.
    """
    if among <= 0:
        raise ObservationError(f"{source.source}: nothing was looked at")
    missed = power.unseen_share(among)
    lacking = f"a defect in {missed:.0%} of the answers may not show, and at most {may_miss:.0%} may be missed"
    seen = power.shows_share(among)
    return expect_none(found, among=among, source=source, seen=seen, lacking=lacking if missed > may_miss else "")


def expect_no_objection(seen: Examined) -> Finding:
    """There is no objection to any of the trials.

    Raises:
        ObservationError: there was no trial.
    """
    return expect_none(seen.objections(), among=seen.trials, source=seen, note=seen.note)


def expect_no_kind(seen: Sorted) -> tuple[Finding, ...]:
    """There is no kind of finding; each kind that there is gets a finding of its own, which a waiver can name.

    Raises:
        ObservationError: there was no trial.
    """
    kinds, trials = seen.kinds(), seen.trials
    if trials <= 0:
        raise ObservationError(f"{seen.source}: nothing was looked at")
    if not kinds:
        return (expect_none((), among=trials, source=seen, note=seen.note),)
    return tuple(
        record_finding(
            Finding(
                Verdict.FAIL,
                f"{each.kind} (in {each.answers} of {trials} answers): {each.sentence}",
                f"{each.answers} of {trials}",
                "none",
                trials,
                None,
                seen.source,
                seen.note,
                each.kind,
            )
        )
        for each in kinds
    )


def expect_reliable(seen: Examined, unreliable: float, *, confidence: float = CONFIDENCE) -> Finding:
    """There is no failure, in enough trials to show that the share of failures is below ``unreliable``.

    Without a failure in n trials, the share is below 1 - (1 - confidence) ** (1 / n). This takes 59 trials for 5 %, 149
    for 2 % and 299 for 1 %. Fewer trials are INCONCLUSIVE. One failure is a FAIL, because nothing is tried again.

    Raises:
        ObservationError: there was no trial.
    """
    found, trials = seen.objections(), seen.trials
    if trials <= 0:
        raise ObservationError(f"{seen.source}: nothing was tried")
    bound = 1 - (1 - confidence) ** (1 / trials)
    floor = f"< {unreliable:.0%} lost"
    if found:
        verdict, value = Verdict.FAIL, f"{len(found)} lost"
        sentence = f"{len(found)} of {trials} answers are wrong: {join_first(found)}"
    else:
        verdict, value = Verdict.PASS if bound <= unreliable else Verdict.INCONCLUSIVE, f"< {bound:.1%} lost"
        needed = math.ceil(math.log(1 - confidence) / math.log(1 - unreliable))
        wanted = f"{needed} are needed to show that less than {unreliable:.0%} fail"
        sentence = f"no failure in {trials} answers, where {wanted}"
    shows = power.shows_share(trials)
    return record_finding(Finding(verdict, sentence, value, floor, trials, None, seen.source, seen.note, power=shows))
