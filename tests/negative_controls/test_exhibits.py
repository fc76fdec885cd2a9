"""The museum's declarations: complete, with anchors that are there, and a record and a page that fit them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conformance import FIXTURES
from conformance.judging.catalogue import catalogue
from conformance.judging.diagnose import load_known_failures
from conformance.judging.verdict import Outcome, Verdict
from negative_controls.museum import __main__ as tours
from negative_controls.museum.exhibits import Exhibit, dead_anchor, load_museum, seen
from negative_controls.museum.page import PAGE, diagnosed_rightly, page

MUSEUM = load_museum()
CHECKS = {check.id for check in catalogue()}


def test_every_known_failure_is_an_exhibit_or_says_why_not() -> None:
    known = {failure.id for failure in load_known_failures(FIXTURES / "known_failures")}
    shown = {each.failure for each in MUSEUM.named().values()} - {""}
    left_out = [id for each in MUSEUM.not_shown.values() for id in each.failures]
    assert len(left_out) == len(set(left_out))
    assert not shown & set(left_out)
    assert shown | set(left_out) == known


def test_every_exhibit_has_a_layer_and_every_layer_names_checks() -> None:
    assert {each.layer for each in MUSEUM.named().values()} == MUSEUM.layers.keys()
    assert {id for layer in MUSEUM.layers.values() for id in layer.checks} <= CHECKS
    assert len(MUSEUM.named()) >= 40
    assert set(MUSEUM.exhibits) == set(tours.ROOMS)


@pytest.mark.parametrize("name", MUSEUM.named())
def test_no_anchor_is_dead(name: str) -> None:
    assert [why for anchor in MUSEUM.named()[name].anchors if (why := dead_anchor(anchor))] == []


@pytest.mark.parametrize(
    ("anchor", "why"),
    [
        (
            "vllm.v1.sample.rejection_sampler.no_such_function",
            "rejection_sampler.py of this vLLM has no no_such_function",
        ),
        ("vllm.v1.sample.rejection_sampler.RejectionSampler.gone", "rejection_sampler.py of this vLLM has no gone"),
        ("vllm.v1.sample.no_such_module.name", "__init__.py of this vLLM has no no_such_module"),
        ("no_such_package.name", "no_such_package is not installed"),
    ],
)
def test_a_moved_anchor_is_dead(anchor: str, why: str) -> None:
    assert dead_anchor(anchor) == f"{anchor}: {why}"


def test_an_exhibit_with_a_dead_anchor_is_an_error_and_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "museum.json"
    monkeypatch.setattr(tours, "record", lambda rows: path.write_text(json.dumps(rows)))
    monkeypatch.setattr(tours, "dead_anchor", lambda anchor: f"{anchor} has moved")
    monkeypatch.setattr(tours.pytest, "main", lambda *_, **__: pytest.fail("it was shown"))
    assert tours.tour(["load/accepts_everything"]) == 1
    (row,) = json.loads(path.read_text()).values()
    assert row["error"] == "dead anchor: vllm.v1.sample.rejection_sampler.rejection_sample has moved"
    assert not row["as_expected"]


def test_a_tour_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done: dict[str, Any] = {name: {"as_expected": True} for name in list(MUSEUM.named())[1:]}
    shown: list[str] = []
    monkeypatch.setattr(tours, "recorded", lambda: done)
    monkeypatch.setattr(tours, "tour", lambda names: shown.extend(names) or 0)
    monkeypatch.setattr(tours, "page", lambda *_: "")
    monkeypatch.setattr(tours, "PAGE", tmp_path / "page")
    assert tours.main([]) == 0
    assert shown == list(MUSEUM.named())[:1]


def test_the_record_is_written_exhibit_by_exhibit(tmp_path: Path) -> None:
    path = tmp_path / "museum.json"
    tours.record({"b": {"seconds": 1}}, path)
    tours.record({"a": {"seconds": 2}}, path)
    tours.record({"b": {"seconds": 3}}, path)
    assert tours.recorded(path) == {"a": {"seconds": 2}, "b": {"seconds": 3}}


def test_what_the_checks_made_of_an_exhibit() -> None:
    outcomes = {
        "DRAFT-04": Outcome(Verdict.FAIL, '"the draft uses the target\'s embedding" is False where True is expected'),
        "DRAFT-07": Outcome(Verdict.PASS, "2 of 2 equal"),
    }
    found = json.loads(seen(["DRAFT-04"], outcomes, ""))
    assert found["verdicts"] == {"DRAFT-04": "FAIL", "DRAFT-07": "PASS"}
    assert found["named"] == {"DRAFT-04": "EMBGUARD"}
    known, unknown = (Exhibit("wiring", "x", (), failure=failure) for failure in ("EMBGUARD", ""))
    assert diagnosed_rightly(known, found)
    assert not diagnosed_rightly(unknown, found)
    assert not diagnosed_rightly(known, found | {"named": {"DRAFT-04": ""}})


def test_a_defect_that_an_exhibit_takes_away_is_not_named() -> None:
    outcomes = {"LOSS-04": Outcome(Verdict.FAIL, "the distributions differ")}
    assert json.loads(seen(["LOSS-04"], outcomes, ""))["named"] == {"LOSS-04": "CPU-TEMPERATURE"}
    assert json.loads(seen(["LOSS-04"], outcomes, "", "CPU-TEMPERATURE"))["named"] == {"LOSS-04": ""}


def test_the_log_of_a_server_names_a_known_failure() -> None:
    outcomes = {"GRAMMAR-01": Outcome(Verdict.FAIL, "HTTP 500")}
    log = "Failed to advance FSM for request chatcmpl-1"
    assert json.loads(seen(["GRAMMAR-01"], outcomes, log))["named"] == {"GRAMMAR-01": "GRAMMAR-FSM"}


def test_a_missed_exhibit_is_shown_as_missed() -> None:
    row = {"verdicts": {"LOSS-02": "PASS"}, "expected": ["LOSS-02"], "named": {}, "seconds": 1.0}
    more = {"as_expected": False, "date": "2026-11-30", "vllm": "0.32.0", "machine": "x", "load": 9.0}
    text = page(MUSEUM, {"load/accepts_everything": row | more})
    assert "| LOSS-02 |" in next(line for line in text.splitlines() if "load/accepts_everything" in line)
    assert "0 caught by the checks" in text
    assert "(load up to 9), so the seconds are no measurement" in text


def test_the_record_names_known_exhibits_and_the_page_is_made_from_it() -> None:
    assert tours.recorded().keys() <= MUSEUM.named().keys()
    assert PAGE.read_text(encoding="utf-8") == page(MUSEUM, tours.recorded()), "out of date: scripts/museum --page"
