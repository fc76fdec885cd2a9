"""Releases side by side: sentences, the release to take, the picture, advice, and the page of today."""

from __future__ import annotations

import re
import tarfile
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.paths import ROOT
from support.releases import judged, release

from conformance import FIXTURES
from conformance.errors import UsageError
from conformance.judging.diagnose import KnownFailure, load_known_failures
from conformance.judging.version_ranges import range_problems
from conformance.profile.profile import load_profile
from conformance.profile.release_facts import load_releases
from conformance.reports.markdown import between
from conformance.reports.releases import figure_by_release, page, picture
from conformance.reports.releases.expectation import expectation
from conformance.reports.releases.outlook import advised, reference, sentence
from conformance.run.judge_releases import LIMIT, judge_archives

DEATH = KnownFailure(
    *("DEATH", ("*",), "dies", "vLLM 0.30.0; no issue known", "Wait.", "0.31.0", "0.30.0", ("DRAFT-04",), True),
    effect="the server dies",
)
LOSS = KnownFailure(
    "LOSS", ("PARSE-02",), "lost", "vllm-project/vllm#1", "Wait.", since="0.24.0", effect="words get lost"
)
KNOWN = {failure.id: failure for failure in (DEATH, LOSS)}
HEALTHY = release("0.31.0", {"PARSE-02": judged("PASS"), "DRAFT-04": judged("PASS")})
LOSSY = release("0.32.0", {"PARSE-02": judged("FAIL", "LOSS"), "DRAFT-04": judged("PASS")})
DEAD = release("0.30.0", {"PARSE-02": judged("FAIL", "LOSS"), "DRAFT-04": judged("ERROR", "DEATH")})
ARCHIVES = ROOT / "docs/results/releases"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (HEALTHY, "0.31.0: serves without a finding."),
        (LOSSY, "0.32.0: serves, but words get lost (LOSS, vllm#1)."),
        (DEAD, "0.30.0: do not use on cpu: the server dies (DEATH, unreported)."),
        (
            release("0.29.0", {"DRAFT-04": judged("ERROR")}),
            "0.29.0: do not use on cpu: DRAFT-04 did not pass for an unknown reason.",
        ),
        (release("0.24.0", {"PARSE-02": judged("PASS")}, "static"), "0.24.0: not served yet, no finding."),
    ],
)
def test_each_release_has_one_sentence(found: release, words: str) -> None:  # type: ignore[valid-type]
    assert sentence(found, KNOWN) == words


def test_the_release_to_take_served_at_the_highest_level_with_the_fewest_reds_and_is_the_newest() -> None:
    assert advised([DEAD, HEALTHY, LOSSY]) is HEALTHY
    newer = release("0.33.0", HEALTHY.checks)
    assert advised([HEALTHY, newer]) is newer
    whole = release("0.28.0", LOSSY.checks, "qualify")
    assert advised([HEALTHY, whole]) is whole
    assert advised([DEAD]) is None


def test_the_page_says_why_the_newest_is_not_the_one_to_take() -> None:
    text = page.as_markdown([DEAD, HEALTHY, LOSSY], list(KNOWN.values()))
    assert (
        "**On cpu use 0.31.0: 2 of 2 checks of level smoke passed, and none failed.** Not the newer 0.32.0: serves"
        in text
    )
    assert "| `DEATH` | 0.30.0 | 0.31.0 | the server dies (unreported) |" in text
    assert "| 0.31.0 | smoke | 1.5 | cpu, 2026-11-29, torch 2.13.0+cpu, transformers 5.17.0 |" in text


def test_a_newer_release_that_was_judged_on_other_hardware_is_named() -> None:
    newer = release("0.33.0", HEALTHY.checks, hardware="h200")
    text = page.as_markdown([HEALTHY, newer], list(KNOWN.values()))
    assert "and none failed.** Not the newer 0.33.0: it was judged on h200, and not on cpu." in text
    assert "Not the newer 0.31.0" not in text


def test_a_sentence_names_three_causes_and_counts_the_others() -> None:
    names = [f"LOSS-{number}" for number in range(5)]
    known = {name: replace(LOSS, id=name, effect=f"effect {name[-1]}") for name in names}
    found = sentence(release("0.32.0", {"PARSE-02": judged("FAIL", *names), "DRAFT-04": judged("PASS")}), known)
    assert "effect 2 (LOSS-2, vllm#1); and 2 more." in found
    assert "LOSS-3" not in found


def test_an_end_of_a_range_that_no_run_has_shown_says_so() -> None:
    ranged = replace(LOSS, since="0.24.0", fixed_in="0.33.0", shows_in=("PARSE-02",))
    assert "| 0.24.0 (judged: 0.32.0) | 0.33.0 (not judged) |" in page.as_markdown([LOSSY], [ranged])
    seen = [release("0.24.0", LOSSY.checks), release("0.33.0", HEALTHY.checks)]
    assert "| `LOSS` | 0.24.0 | 0.33.0 |" in page.as_markdown(seen, [ranged])


def test_a_reason_of_unsupported_checks_stands_once() -> None:
    seen = [release(it, {"MOE-01": judged("UNSUPPORTED")}) for it in ("0.30.0", "0.31.0")]
    assert "- MOE-01 in 0.30.0, 0.31.0: what made it UNSUPPORTED" in page.as_markdown(seen, [])


def test_an_unsupported_check_has_its_name_with_its_releases() -> None:
    seen = [release("0.30.0", {"MOE-01": judged("UNSUPPORTED", "LOSS")})]
    text = page.as_markdown(seen, [replace(LOSS, fixed_in="0.31.0")])
    assert "- MOE-01 in 0.30.0: `LOSS`, from 0.24.0 to before 0.31.0, vllm#1: what made it UNSUPPORTED" in text


def test_the_picture_has_a_letter_for_each_family_and_fits_a_telephone() -> None:
    svg = ElementTree.fromstring(picture.as_svg([DEAD, LOSSY]))
    texts = [each.text for each in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["PARSE", "DRAFT", "0.32.0", "F", "P", "0.30.0", "F", "E"]
    assert int(svg.attrib["width"]) <= 400


def test_the_figure_shows_what_was_measured() -> None:
    measured = [release(it, {}) for it in ("0.31.0", "0.32.0")]
    for each in measured:
        each.figures["speedup 1"] = (2.5, 2.4, 2.6)  # type: ignore[index]
    assert "0.32.0" in figure_by_release.as_svg(measured)
    with pytest.raises(ValueError, match="no release has a figure"):
        figure_by_release.as_svg([HEALTHY])


def test_advice_names_what_holds_here_and_leaves_out_what_holds_on_cpus_only() -> None:
    failures = list(KNOWN.values())
    cpu, gpu = (load_profile(name, "micro-26b-a4b-nvfp4", "smoke").hardware for name in ("cpu", "gb10"))
    here, there = ("\n".join(expectation("0.30.0+cpu", it, [DEAD, HEALTHY], failures).lines()) for it in (cpu, gpu))
    assert "0.30.0: do not use on cpu" in here
    assert "On cpu use 0.31.0" in here
    assert "DEATH (unreported): Wait." in here
    assert "DEATH (unreported): Wait." not in there
    assert "(judged on cpu, not on gb10)" in there
    with pytest.raises(UsageError, match="is no version"):
        expectation("newest", cpu, [], failures)


def test_a_broken_file_of_releases_is_refused_with_the_mend(tmp_path: Path) -> None:
    path = tmp_path / "releases.json"
    path.write_text("{")
    with pytest.raises(UsageError, match=r"releases\.json cannot be read .*qualify releases --record"):
        load_releases(path)


def test_the_page_is_that_of_today() -> None:
    releases, failures = load_releases(), load_known_failures(FIXTURES / "known_failures")
    text = (ROOT / "docs/releases.md").read_text(encoding="utf-8")
    drift = "out of date: run qualify releases --into docs/releases.md"
    assert between(text, page.BEGIN, page.END, page.as_markdown(releases, failures), "docs/releases.md") == text, drift
    assert (ROOT / "docs" / page.PICTURE).read_text(encoding="utf-8") == picture.as_svg(releases), drift


def test_no_known_failure_is_wrong_about_a_judged_release() -> None:
    assert range_problems(load_known_failures(FIXTURES / "known_failures"), load_releases()) == []


def test_every_archive_is_small_and_on_the_page() -> None:
    archives = {path.name: path.stat().st_size for path in ARCHIVES.iterdir()}
    assert archives.keys() == {each.archive for each in load_releases()}
    assert {name: size for name, size in archives.items() if size > LIMIT} == {}
    for name in archives:
        with tarfile.open(ARCHIVES / name) as archive:
            assert any(member.endswith("/manifest.json") for member in archive.getnames())


def test_the_readme_names_the_release_to_take() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    taken = {each.release for it in page.by_hardware(load_releases()).values() if (each := advised(it))}
    (paragraph,) = [it for it in text.split("\n\n") if "docs/releases.md" in it]
    assert set(re.findall(r"use (\d+\.\d+\.\d+)|GPUs (\d+\.\d+\.\d+)", paragraph))
    assert all(it in paragraph for it in taken)


def test_every_defect_on_the_page_that_nobody_has_reported_has_a_report() -> None:
    known = {failure.id: failure for failure in load_known_failures(FIXTURES / "known_failures")}
    named = {name for each in load_releases() for found in each.checks.values() for name in found.failures}
    unreported = {name for name in named if reference(known[name]) == "unreported"}
    assert unreported
    reports = (ROOT / "docs/upstream.md").read_text(encoding="utf-8")
    assert {name for name in unreported if f"({name})" not in reports} == set()


@pytest.mark.builds  # fifteen archives take longer than the fast tests may
def test_the_archives_judged_again_are_what_the_page_says() -> None:
    assert judge_archives(ARCHIVES, lambda _: None) == load_releases()
