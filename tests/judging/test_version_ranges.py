"""Version ranges of known failures: a red outside, a green inside and a red without a name are errors of entries."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.releases import judged, release

from conformance.judging.diagnose import KnownFailure
from conformance.judging.version_ranges import range_problems, ranges
from conformance.profile.release_facts import Release

LEAK = KnownFailure("LEAK", ("PARSE-01",), "leak", "vllm#1", "Wait.", "0.24.0", "0.22.0", ("PARSE-01",), effect="leaks")


def on(verdicts: dict[str, str]) -> list[Release]:
    """A release for each version; a FAIL is named LEAK."""
    named = {"FAIL": ("LEAK",)}
    return [release(version, {"PARSE-01": judged(it, *named.get(it, ()))}) for version, it in verdicts.items()]


def test_a_range_with_both_ends_on_the_page_is_right() -> None:
    seen = on({"0.21.0": "PASS", "0.22.0": "FAIL", "0.23.0": "FAIL", "0.24.0": "PASS"})
    assert range_problems([LEAK], seen) == []
    (found,) = ranges([LEAK], seen)
    assert (found.first_bad, found.first_good) == ("0.22.0", "0.24.0")


@pytest.mark.parametrize(
    ("release_", "verdict", "words"),
    [
        ("0.21.0", "FAIL", "PARSE-01 shows it in vLLM 0.21.0."),
        ("0.24.0", "FAIL", "PARSE-01 shows it in vLLM 0.24.0."),
        ("0.23.0", "PASS", "PARSE-01 passes in vLLM 0.23.0."),
        ("0.22.0", "PASS", "PARSE-01 passes in vLLM 0.22.0."),
    ],
)
def test_a_red_outside_or_a_green_inside_is_an_error_of_the_entry(release_: str, verdict: str, words: str) -> None:
    problems = range_problems([LEAK], on({release_: verdict}))
    assert problems == [f"LEAK holds from 0.22.0 to before 0.24.0, but {words}"]


def test_an_unsupported_check_proves_neither_end() -> None:
    assert range_problems([LEAK], [release("0.22.0", {"PARSE-01": judged("UNSUPPORTED", "LEAK")})]) == []


@pytest.mark.parametrize("verdict", ["FAIL", "UNSUPPORTED"])
def test_what_did_not_pass_and_has_no_name_is_an_error(verdict: str) -> None:
    nameless = [release("0.22.0", {"MOE-03": judged(verdict)})]
    assert range_problems([LEAK], nameless) == [f"MOE-03 is {verdict} in vLLM 0.22.0, which no known failure names."]


def test_what_is_open_needs_no_name() -> None:
    assert range_problems([LEAK], [release("0.22.0", {"LOSS-01": judged("INCONCLUSIVE")})]) == []


def test_each_name_beside_a_verdict_needs_a_range() -> None:
    other = replace(LEAK, id="OTHER", since="", fixed_in="", shows_in=())
    seen = [release(it, {"PARSE-01": judged("FAIL", "LEAK", "OTHER")}) for it in ("0.22.0", "0.23.0")]
    words = "OTHER explains PARSE-01 in vLLM 0.22.0, and its entry does not say since which release it holds."
    assert range_problems([LEAK, other], seen) == [words]
    assert range_problems([LEAK, replace(other, since="0.22.0")], seen) == []
    unsupported = [release("0.22.0", {"PARSE-01": judged("UNSUPPORTED", "OTHER")})]
    assert range_problems([LEAK, other], unsupported) == [words]


def test_another_defect_that_hides_the_check_is_no_green() -> None:
    hidden = release("0.22.0", {"PARSE-01": judged("ERROR", "OTHER")})
    other = replace(LEAK, id="OTHER")
    assert range_problems([LEAK, other], [hidden]) == []
