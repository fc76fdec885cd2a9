"""The loop of healthy runs: it goes on where it stopped, counts every red verdict, and says what its number allows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from support.false_alarms import most_often, once, record, recorded, table

VERDICTS = [
    {"id": "ACC-01", "verdict": "PASS", "sentence": "reaches"},
    {"id": "SPEED-01", "verdict": "FAIL", "sentence": "misses | its floor"},
    {"id": "ENV-01", "verdict": "WAIVED", "sentence": "old"},
]
HEALTHY = f"import json, sys; print(json.dumps({{'verdicts': {VERDICTS!r}}})); sys.exit(1)"


def run_of(**verdicts: str) -> dict[str, Any]:
    rows = {id.replace("_", "-"): verdict for id, verdict in verdicts.items()}
    red = {id: f"{id} is red" for id, verdict in rows.items() if verdict in ("FAIL", "ERROR")}
    return {
        "date": "2026-11-30",
        "machine": "x86_64, 2 cores",
        "load": 1.5,
        "options": [],
        "verdicts": rows,
        "sentences": red,
    }


def test_every_run_is_recorded_and_those_that_are_there_count(tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    path.write_text(json.dumps([run_of(ACC_01="PASS"), run_of(ACC_01="PASS") | {"options": ["--level", "smoke"]}]))
    record(2, [], path, (sys.executable, "-c", HEALTHY))
    rows = recorded(path)
    assert len(rows) == 3
    assert rows[-1]["verdicts"] == {"ACC-01": "PASS", "SPEED-01": "FAIL", "ENV-01": "WAIVED"}
    assert rows[-1]["sentences"] == {"SPEED-01": "misses | its floor"}
    assert rows[-1]["exit_code"] == 1


def test_a_run_without_a_report_ends_the_loop_and_keeps_the_others(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended with 2 and no report: wrong option"):
        once((sys.executable, "-c", "import sys; sys.stderr.write('wrong option'); sys.exit(2)"), [], tmp_path)


def test_a_run_that_was_set_aside_is_listed_and_does_not_count(tmp_path: Path) -> None:
    aside = run_of(ACC_01="ERROR") | {"set_aside": "The machine slept."}
    path = tmp_path / "runs.json"
    path.write_text(json.dumps([aside]))
    record(1, [], path, (sys.executable, "-c", HEALTHY))
    assert len(recorded(path)) == 2
    text = table([run_of(ACC_01="PASS"), aside, aside])
    assert "Healthy runs of the main job: 1 of 30" in text
    assert "\nRuns that do not count, and why:\n\n- 2: The machine slept.\n" in text
    assert "| ACC-01 |" not in text


def test_an_explained_run_counts() -> None:
    text = table([run_of(ACC_01="PASS"), run_of(ACC_01="ERROR") | {"explained": "The disk was cold."}])
    assert "\nRuns with red verdicts, and why:\n\n- 1: The disk was cold.\n" in text
    assert "| ACC-01 | 1 | 0 | 0 | 1 | 97.5% | ACC-01 is red |" in text


def test_checks_of_equal_numbers_and_sentences_share_a_row() -> None:
    said = {"ACC-01": "no server", "ACC-02": "no server", "SPEED-01": "too slow"}
    text = table([run_of(ACC_01="ERROR", ACC_02="ERROR", SPEED_01="ERROR") | {"sentences": said}])
    assert "| ACC-01, ACC-02 | 0 | 0 | 0 | 1 | 100.0% | no server |" in text
    assert "| SPEED-01 | 0 | 0 | 0 | 1 | 100.0% | too slow |" in text


def test_thirty_quiet_runs_allow_one_in_ten() -> None:
    assert most_often(0, 30) == pytest.approx(1 - 0.05 ** (1 / 30))
    assert most_often(1, 30) > most_often(0, 30)
    assert most_often(3, 3) == 1.0


def test_a_check_that_is_red_has_a_row_and_waived_ones_have_none() -> None:
    text = table(
        [run_of(ACC_01="PASS", SPEED_01="PASS", ENV_01="WAIVED")] * 2 + [run_of(ACC_01="PASS", SPEED_01="FAIL")]
    )
    assert "| SPEED-01 | 2 | 0 | 1 | 0 | 86.5% | SPEED-01 is red |" in text
    assert "Healthy runs of the main job: 3 of 30, the last on 2026-11-30. 1 checks passed each time." in text
    assert "\n- 3 on x86_64, 2 cores, load up to 1.5\n" in text
    assert "| ACC-01 |" not in text
    assert "No healthy run is recorded yet" in table([])
