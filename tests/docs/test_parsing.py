"""The page about the parser: its table is what was recorded, and its counts are those of the data."""

from __future__ import annotations

import json

from support.paths import ROOT

from conformance import FIXTURES
from conformance.judging.diagnose import diagnose, load_known_failures
from conformance.views.parsers import HARMS
from conformance.workload.parser_cases import SUITE, TOOLS, load_instances

PAGE = (ROOT / "docs" / "parsing.md").read_text(encoding="utf-8")
DRAWN = json.loads((ROOT / "docs" / "results" / "parsers" / "drawn.json").read_text(encoding="utf-8"))
CHECKS = {"schemas": "PARSE-07", "names": "PARSE-09", "near_native": "PARSE-10", "cut": "PARSE-11"}
RECORDED = json.loads((ROOT / "docs" / "results" / "parsers" / "kinds.json").read_text(encoding="utf-8"))


def test_the_table_is_what_was_recorded() -> None:
    releases = list(RECORDED["answers_tried"])
    shown = [release.removesuffix(".0") for release in releases]
    assert f"| check | kind | upstream | {' | '.join(shown)} |" in PAGE
    for row in RECORDED["kinds"]:
        counts = " | ".join(str(row["answers"].get(release, "")) for release in releases)
        assert f"| {row['check']} | {row['kind']} | {row['upstream']} | {counts} |" in PAGE
        assert row["kind"].startswith(HARMS)


def test_the_drawn_answers_are_as_recorded_and_none_is_unclassified() -> None:
    assert f"{DRAWN['judged']:,} drawn answers" in PAGE
    assert f"{DRAWN['distinct']:,} were distinct" in PAGE
    failures = load_known_failures(FIXTURES / "known_failures")
    tabled = {(row["check"], row["kind"]) for row in RECORDED["kinds"]}
    for property, row in DRAWN["properties"].items():
        assert row["judged"] == row["answers"]
        assert row["failed"] == 0
        for kind, answers in row["kinds"].items():
            check = CHECKS[property]
            assert f"| {check} | {kind} | {answers:,} |" in PAGE
            assert diagnose(check, kind, failures)
            assert (check, kind) in tabled


def test_the_page_counts_the_published_instances() -> None:
    suite, tools = (load_instances(FIXTURES / "prompts" / name) for name in (SUITE, TOOLS))
    assert f"PARSE-08 sends {len(suite)} of the 1228 valid instances" in PAGE
    assert len(tools) == 10
    left_out = [
        int(line.split(" | ")[1]) for line in PAGE.splitlines() if line.count(" | ") == 3 and " | why" not in line
    ]
    assert sum(left_out) + len(suite) == 1228
