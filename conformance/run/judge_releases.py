"""Judges the archives of releases again, and says of each what ``fixtures/releases.json`` keeps."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from conformance import FIXTURES
from conformance.errors import ObservationError, UsageError
from conformance.evidence.archive import pack, unpack
from conformance.evidence.folder import MANIFEST, Evidence, read_header
from conformance.evidence.journal import JOURNAL
from conformance.formats.json_files import parse_json
from conformance.judging.diagnose import KnownFailure, diagnose, load_known_failures
from conformance.judging.stats import Estimate
from conformance.judging.verdict import Record, Verdict
from conformance.profile.release_facts import Judged, Release, in_order
from conformance.reports.source import Source
from conformance.run.judge_evidence import judge_again
from conformance.run.session import Options, open_session
from conformance.views.acceptance import everywhere
from conformance.views.texts import Texts

LIMIT = 300_000  # bytes of an archive, unless another limit is given
SUFFIXES = (".tar.xz", ".tar.gz")
LONGEST = 300  # characters of a sentence
UNRECORDED = "was not recorded in"
VERSIONS = ("vllm", "torch", "transformers")


def pack_release(
    directory: Path, into: Path, without: Sequence[str] = (), *, limit: int = LIMIT, unfinished: bool = False
) -> tuple[str, ...]:
    """Pack a run of a release; returns the observations that were left out.

    Raises:
        UsageError: the run is not finished, which ``unfinished`` allows, or lacks an observation of ``without``.
    """
    return pack(directory, into, limit, forget_unrecorded, without, unfinished=unfinished)


def forget_unrecorded(copy: Path) -> None:
    """Remove from the journal the verdicts of the checks whose observation the copy no longer has."""
    path = copy / JOURNAL
    (copy / MANIFEST).unlink(missing_ok=True)  # it lists an observation that is gone; a new one follows
    run, _ = judge_again(copy)
    gone = {record.id for record in run.records if UNRECORDED in record.sentence}
    rows = [parse_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
    kept = [row for row in rows if row.get("id") not in gone]
    for row in kept:
        if row["kind"] == "footer":
            row["verdicts"] -= len(rows) - len(kept)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept), encoding="utf-8")


def judge_archives(folder: Path, progress: Callable[[str], None]) -> tuple[Release, ...]:
    """Every archive of the folder, judged by today's checks, floors and known failures.

    Raises:
        UsageError: the folder holds no archive.
        ObservationError: an archive cannot be judged.
    """
    archives = sorted(path for path in folder.glob("*") if path.name.endswith(SUFFIXES))
    if not archives:
        raise UsageError(f"{folder} holds no archive of a release: scripts/releases makes them.")
    found = []
    for number, archive in enumerate(archives, 1):
        progress(f"judging {archive.name}, {number} of {len(archives)}")
        with tempfile.TemporaryDirectory() as scratch:
            found.append(judge_archive(archive, Path(scratch)))
    return in_order(found)


def judge_archive(archive: Path, scratch: Path) -> Release:
    """One archive, judged in the folder ``scratch``.

    Raises:
        ObservationError: it cannot be judged.
    """
    directory = unpack(archive, scratch)
    header = read_header(directory)
    run, judgement = judge_again(directory)
    source = Source(Evidence(directory, recording=False), open_session(_judging(directory), Path.cwd()).profile)
    known = load_known_failures(FIXTURES / "known_failures")
    return Release(
        release=(header.vllm or "").partition("+")[0],
        hardware=run.hardware,
        pair=run.pair,
        level=run.level,
        started=header.started,
        seconds=_seconds(directory, header.started),
        archive=archive.name,
        versions=_versions(source),
        sentence=judgement.sentence,
        checks={record.id: _judged(record, known) for record in run.records},
        figures={name: (each.value, each.low, each.high) for name, each in figures(source)},
    )


def _judging(directory: Path) -> Options:
    return Options(evidence=directory, recorded_only=True)


def _judged(record: Record, known: Sequence[KnownFailure]) -> Judged:
    """A verdict with the known failures of its own words, and only without one with those that a server's log shows."""
    if record.verdict is Verdict.PASS:
        return Judged(record.verdict)
    names = diagnose(record.id, record.sentence, known) or record.diagnoses
    return Judged(record.verdict, tuple(each.id for each in names), record.sentence[:LONGEST])


def _seconds(directory: Path, started: str) -> float:
    """How long the run took, by its header and the latest file of its manifest; 0 if the archive does not say."""
    finished = parse_json((directory / MANIFEST).read_bytes()).get("finished")
    return (datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds() if finished else 0.0


def _versions(source: Source) -> dict[str, str]:
    try:
        imported = source.observation("environment")["imported"]
    except (ObservationError, KeyError):
        return {}
    return {name: str(imported[name]) for name in VERSIONS if name in imported}


def figures(source: Source) -> Iterator[tuple[str, Estimate]]:
    """Acceptance length, share of equal texts, and speedup at each concurrency, as far as they were measured."""
    for measure in (_acceptance, _equal_texts, _speedups):
        try:
            yield from measure(source)
        except Exception:  # the check that reads the same value reports the error
            continue


def _acceptance(source: Source) -> Iterator[tuple[str, Estimate]]:
    yield "acceptance length", everywhere(source.load).length()


def _equal_texts(source: Source) -> Iterator[tuple[str, Estimate]]:
    yield "share of equal texts", Texts.of(source.observation("near_ties")).equal_share(with_mtp=True)


def _speedups(source: Source) -> Iterator[tuple[str, Estimate]]:
    for cell in source.load.cells.values():
        yield f"speedup {cell.name}", cell.speedup()
