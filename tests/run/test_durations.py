"""The time that the rest of a run takes, from what the last run on this machine took."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conformance.commands.main import main
from conformance.profile.profile import load_profile
from conformance.reports.progress import Progress, duration
from conformance.run import durations
from conformance.run.durations import Durations

PROFILE = load_profile("cpu", "micro-26b-a4b-nvfp4", "qualify")
LAST = Durations(verdicts=(10.0, 20.0, 200.0), total=210.0)


@pytest.mark.parametrize(
    ("judged", "elapsed", "left"),
    [
        (0, 0.0, 210.0),
        (0, 5.0, 205.0),  # counts down until the first verdict was due
        (0, 60.0, 200.0),  # slower than the last run: waits there
        (2, 15.0, 190.0),  # faster than the last run
        (2, 120.0, 90.0),
        (3, 205.0, 5.0),
        (4, 400.0, 0.0),  # a check that the last run did not have
    ],
)
def test_the_rest_takes_what_it_took_last_time(judged: int, elapsed: float, left: float) -> None:
    assert LAST.left(judged, elapsed) == left


def test_only_the_same_profile_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durations, "user_cache_path", lambda _: tmp_path)
    assert durations.load(PROFILE) is None
    durations.save(PROFILE, LAST)
    assert durations.load(PROFILE) == LAST
    assert durations.load(replace(PROFILE, sizes=replace(PROFILE.sizes, looks=1))) is None


def test_a_plan_says_what_the_last_run_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(durations, "user_cache_path", lambda _: tmp_path)
    durations.save(PROFILE, LAST)
    assert main(["--plan", "--hardware", "cpu"]) == 0
    assert capfd.readouterr().out.endswith("the last run on this machine took 4 min\n")


def test_a_damaged_file_is_no_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durations, "user_cache_path", lambda _: tmp_path)
    durations.save(PROFILE, LAST)
    (file,) = tmp_path.rglob("*.json")
    file.write_text('{"verdicts": [1, ')
    assert durations.load(PROFILE) is None


def test_the_progress_line_says_how_long_the_rest_takes() -> None:
    said: list[str] = []
    progress = Progress(said.append, terminal=True, clock=lambda: 0.0)
    progress.left = lambda elapsed: 300.0 - elapsed
    progress("loading mtp")
    assert said[-1].endswith("[   0 s, about 5 min left]\nloading mtp")


def test_durations_are_in_minutes_where_seconds_do_not_matter() -> None:
    assert [duration(seconds) for seconds in (0.4, 89.0, 90.0, 610.0)] == ["0 s", "89 s", "2 min", "10 min"]
