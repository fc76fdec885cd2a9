"""An archive of evidence: small, the same bytes each time, and judged as the whole run was."""

from __future__ import annotations

import json
import lzma
import random
import tarfile
from pathlib import Path

import pytest
from support import judged_runs

from conformance.errors import ObservationError, UsageError
from conformance.evidence.archive import LEFT_OUT, pack, unpack
from conformance.evidence.folder import Evidence, is_finished, verify
from conformance.evidence.journal import JOURNAL, read_journal
from conformance.judging.verdict import Verdict
from conformance.reports.source import Source
from conformance.run.judge_evidence import judge_again
from conformance.run.judge_releases import figures, pack_release
from conformance.run.session import Options, open_session

pytestmark = pytest.mark.usefixtures("no_waivers")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A recorded healthy run with its journal."""
    return judged_runs.record(tmp_path / "run")


def test_an_archive_is_judged_as_the_run_was(run: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.tar.xz", tmp_path / "b.tar.xz"
    assert pack_release(run, first) == pack_release(run, second) == ()
    assert first.read_bytes() == second.read_bytes()
    directory = unpack(first, tmp_path / "out")
    assert is_finished(directory)
    verify(directory)
    whole, (again, _) = read_journal(run / JOURNAL), judge_again(directory)
    assert [(it.id, it.verdict) for it in again.records] == [(it.id, it.verdict) for it in whole.records]


def test_the_largest_observations_go_first_where_there_is_no_room(run: Path, tmp_path: Path) -> None:
    gone: list[list[str]] = []

    def forget(copy: Path) -> None:
        gone.append(sorted(path.stem for path in copy.glob("observations/*.json")))

    archive = tmp_path / "a.tar.xz"
    whole = pack(run, archive, 10**9, forget)
    assert (whole, gone) == ((), [])
    sizes = {path.stem: len(lzma.compress(path.read_bytes())) for path in run.glob("observations/*.json")}
    left_out = pack(run, archive, archive.stat().st_size - 100, forget)
    assert left_out[0] == max(sizes, key=lambda name: sizes[name])
    assert archive.stat().st_size > 0
    manifest = json.loads((unpack(archive, tmp_path / "out") / "manifest.json").read_text())
    assert manifest[LEFT_OUT] == sorted(left_out)
    with pytest.raises(UsageError, match="even without observations"):
        pack(run, archive, 10, forget)
    assert not list(tmp_path.glob(".a.tar.xz*"))


def test_what_takes_little_room_in_the_archive_stays_although_it_is_long(run: Path, tmp_path: Path) -> None:
    drawn = random.Random(1)
    (run / "observations/dense.json").write_text(json.dumps([drawn.random() for _ in range(10_000)]))
    (run / "observations/long.json").write_text(json.dumps(["the same words"] * 100_000))
    assert pack(run, tmp_path / "a.tar.xz", 80_000, lambda _copy: None)[0] == "dense"
    assert (unpack(tmp_path / "a.tar.xz", tmp_path / "out") / "observations/long.json").exists()


def test_each_figure_is_read_as_far_as_it_was_measured(run: Path) -> None:
    def names() -> list[str]:
        profile = open_session(Options(evidence=run, recorded_only=True), run).profile
        return [name for name, _ in figures(Source(Evidence(run, recording=False), profile))]

    assert names()[:3] == ["acceptance length", "share of equal texts", "speedup in a row"]
    for name in ("observations/load.json", "manifest.json"):
        (run / name).unlink()
    assert names() == ["share of equal texts"]


def test_what_a_busy_machine_spoiled_is_left_out_by_name(run: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.xz"
    assert pack_release(run, archive, ["numerics"]) == ("numerics",)
    again, _ = judge_again(unpack(archive, tmp_path / "out"))
    judged = {record.id for record in again.records}
    assert "NUM-01" not in judged
    assert "DRAFT-01" in judged
    with pytest.raises(UsageError, match="There is no observation numbers to leave out"):
        pack_release(run, archive, ["numbers"])


def test_a_run_that_did_not_finish_is_not_packed(run: Path, tmp_path: Path) -> None:
    (run / "manifest.json").unlink()
    archive = tmp_path / "a.tar.xz"
    with pytest.raises(UsageError, match="finish the run with --resume"):
        pack_release(run, archive)
    assert not archive.exists()


def test_an_interrupted_run_is_packed_if_asked(run: Path, tmp_path: Path) -> None:
    (run / "manifest.json").unlink()
    (run / "observations" / "numerics.json").unlink()
    archive = tmp_path / "a.tar.xz"
    assert pack_release(run, archive, unfinished=True) == ()
    directory = unpack(archive, tmp_path / "out")
    assert "finished" not in json.loads((directory / "manifest.json").read_text())
    again, _ = judge_again(directory)
    assert {record.id: record.verdict for record in again.records}["DRAFT-01"] is Verdict.PASS


def test_what_is_no_archive_of_evidence_is_refused(tmp_path: Path) -> None:
    broken, empty = tmp_path / "broken.tar.xz", tmp_path / "empty.tar.xz"
    broken.write_bytes(b"no archive")
    with tarfile.open(empty, "w:xz"):
        pass
    with pytest.raises(ObservationError, match="cannot be unpacked"):
        unpack(broken, tmp_path / "x")
    with pytest.raises(ObservationError, match="0 folders of evidence"):
        unpack(empty, tmp_path / "y")


def test_checks_without_their_observation_leave_the_journal(run: Path, tmp_path: Path) -> None:
    from conformance.evidence.archive import copy_for_judging
    from conformance.run.judge_releases import forget_unrecorded

    copy = tmp_path / "copy"
    copy_for_judging(run, copy)
    (copy / "observations/numerics.json").unlink()
    forget_unrecorded(copy)
    ids = {json.loads(line).get("id") for line in (copy / JOURNAL).read_text().splitlines()}
    assert ids & {"DRAFT-01", "ACC-01"}
    assert not ids & {"NUM-01", "NUM-02"}
