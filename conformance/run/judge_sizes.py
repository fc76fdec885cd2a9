"""Judges recorded runs of published sizes again, and says of each what the matrix of sizes shows."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from conformance.errors import UsageError
from conformance.evidence.archive import unpack
from conformance.evidence.folder import Evidence, read_header
from conformance.judging.verdict import Record, Verdict
from conformance.profile.arms import MTP
from conformance.profile.facts import load_facts
from conformance.reports.source import Source
from conformance.run.judge_evidence import judge_again
from conformance.run.judge_releases import UNRECORDED
from conformance.run.session import Options, open_session
from conformance.views.fleet import SizeRow
from conformance.views.steps.graph_steps import GraphSteps

LOADED = re.compile(r"Model loading took ([\d.]+) GiB memory and ([\d.]+) seconds")
BYTES = ("DRAFT-01", "DRAFT-02", "DRAFT-03")
WIRING = tuple(f"DRAFT-{number:02}" for number in range(4, 12))
MANY = 32  # requests at once
LONGEST = 200  # characters of a sentence

T = TypeVar("T")


def judge_sizes(runs: Sequence[Path], progress: Callable[[str], None]) -> list[SizeRow]:
    """The row of each run: a folder of evidence, an archive, or a folder of archives.

    Raises:
        UsageError: a path is none of these.
        ObservationError: an archive cannot be unpacked or judged.
    """
    found = list(_archives(runs))
    rows = []
    for number, path in enumerate(found, 1):
        progress(f"judging {path.name}, {number} of {len(found)}")
        with tempfile.TemporaryDirectory() as scratch:
            directory = path if path.is_dir() else unpack(path, Path(scratch))
            rows.append(read_row(directory, path.name))
    return rows


def _archives(runs: Iterable[Path]) -> Iterable[Path]:
    for path in runs:
        if (path / "header.json").is_file() or path.is_file():
            yield path
        elif path.is_dir() and (inside := sorted(path.glob("*.tar.*"))):
            yield from inside
        else:
            raise UsageError(f"{path} is no evidence, no archive and no folder of archives; name one of these.")


def read_row(directory: Path, name: str) -> SizeRow:
    """The row of one run."""
    header = read_header(directory)
    profile = open_session(Options(evidence=directory, recorded_only=True), Path.cwd()).profile
    run, _ = judge_again(directory)
    source = Source(Evidence(directory, recording=False), profile)
    records = {record.id: record for record in run.records}
    config = _attempt(lambda: source.observation("checkpoint")["target"]["config"]) or {}
    log = _attempt(lambda: _log(directory)) or ""
    loaded = [tuple(map(float, each)) for each in LOADED.findall(log)]
    steps = _attempt(lambda: GraphSteps.of(source.observation("graph_steps")))
    return SizeRow(
        size=load_facts().known_target(config) or profile.pair.name,
        quantisation=profile.pair.quantisation,
        archive=name,
        hardware=run.hardware,
        vllm=(header.vllm or "").partition("+")[0],
        workers=profile.workers,
        refused=_refusal(records),
        draft=_summary(records, BYTES),
        wiring=_summary(records, WIRING),
        experts=_named(_attempt(lambda: [row["backend"] for row in source.observation("moe")["layers"].values()])),
        attention=_named(_attempt(lambda: list(_described(source)["attention_backends"].values()))),
        memory_gib=max((each[0] for each in loaded), default=None),
        load_seconds=max((each[1] for each in loaded), default=None),
        step_ms={arm.name: arm.step_ms[1] for arm in steps.arms if 1 in arm.step_ms} if steps else {},
        in_a_row=_attempt(lambda: source.load.at(1).speedup()),
        eight_at_once=_attempt(lambda: source.load.at(8).speedup()),
        later_tokens=_later_tokens(steps) if steps else None,
        not_passed={
            record.id: record.verdict
            for record in run.records
            if record.verdict is not Verdict.PASS and UNRECORDED not in record.sentence
        },
    )


def _described(source: Source) -> Mapping[str, Any]:
    found: Mapping[str, Any] = source.observation("wiring")["described"]
    return found


def _log(directory: Path) -> str:
    """What the first server with MTP wrote."""
    return (directory / "logs" / f"{MTP}.log").read_text(encoding="utf-8", errors="replace")


def _later_tokens(steps: GraphSteps) -> float | None:
    """Tokens/s after the first token with MTP over those without, with ``MANY`` requests at once."""
    plain, mtp = (arm.rates for arm in steps.arms)
    return max(mtp[MANY]) / max(plain[MANY]) if MANY in plain and MANY in mtp else None


def _refusal(records: Mapping[str, Record]) -> str:
    """Why the server with MTP did not serve, in the words of the first check that needs it; empty if it served."""
    first = next((records[id] for id in BYTES if id in records), None)
    if first is None or first.verdict is not Verdict.ERROR or UNRECORDED in first.sentence:
        return ""
    names = [f"{each.id}, {each.upstream}" for each in first.diagnoses]
    return "; ".join([first.sentence[:LONGEST], *names])


def _summary(records: Mapping[str, Record], ids: Sequence[str]) -> str:
    """How many of the checks passed, and the others with their verdicts."""
    found = [records[id] for id in ids if id in records]
    others = [f"{record.id} {record.verdict}" for record in found if record.verdict is not Verdict.PASS]
    return "; ".join([f"{len(found) - len(others)} of {len(found)}", *others]) if found else ""


def _named(values: Sequence[Any] | None) -> str:
    """Each different value once."""
    return ", ".join(sorted({value if isinstance(value, str) else "not told" for value in values or ()}))


def _attempt(make: Callable[[], T]) -> T | None:
    try:
        return make()
    except Exception:  # the check that reads the same value reports the error
        return None
