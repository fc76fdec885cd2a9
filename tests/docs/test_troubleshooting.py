"""Troubleshooting and glossary: every known failure has its entry, and every term stands where a reader looks."""

from __future__ import annotations

import re

import pytest
from support.paths import ROOT

from conformance import FIXTURES
from conformance.judging.catalogue import catalogue
from conformance.judging.diagnose import KnownFailure, load_known_failures
from conformance.judging.response import RESPONSES, Severity

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
KNOWN = load_known_failures(FIXTURES / "known_failures")

# id -> the rest of its last line: the checks, and the upstream reference
ENTRIES = dict(re.findall(r"^Known failure `([^`]+)` · (.+(?:\n.+)*)", PAGE, re.MULTILINE))


def test_every_known_failure_is_on_the_page_exactly_once() -> None:
    assert ENTRIES.keys() == {failure.id for failure in KNOWN}
    assert {failure.id: PAGE.count(f"`{failure.id}`") for failure in KNOWN if PAGE.count(f"`{failure.id}`") != 1} == {}
    assert len(re.findall("^Known failure ", PAGE, re.MULTILINE)) == len(KNOWN)


@pytest.mark.parametrize("failure", KNOWN, ids=lambda failure: failure.id)
def test_an_entry_names_the_checks_and_the_upstream_reference(failure: KnownFailure) -> None:
    checks, _, upstream = ENTRIES[failure.id].replace("\n", " ").partition(" · ")
    assert checks == ", ".join("any check" if check == "*" else check for check in failure.checks)
    words = re.sub(r"\[(vllm#\d+)\]\(https://github\.com/vllm-project/vllm/issues/\d+\)", r"vllm-project/\1", upstream)
    assert words.replace("`", "") == failure.upstream


def test_every_response_has_its_heading_and_its_words() -> None:
    section = PAGE.partition("## What to do about a check that did not pass")[2].partition("\n## ")[0]
    assert dict(re.findall(r"^### (.+)\n\n(.+)$", section, re.MULTILINE)) == RESPONSES
    assert all(f"| {severity} | " in section for severity in Severity)
    assert {check.response for check in catalogue()} == RESPONSES.keys(), "a response that no check names"


def test_terms_of_the_glossary_are_in_alphabetical_order_and_unique() -> None:
    terms = [term.casefold() for term in re.findall(r"^### (.+)$", GLOSSARY, re.MULTILINE)]
    assert terms
    assert terms == sorted(set(terms))
