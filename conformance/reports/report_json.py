"""The verdicts of a run as one JSON document, valid against reports/report.schema.json."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from conformance.errors import ObservationError
from conformance.evidence.journal import record_to_json
from conformance.judging.verdict import Judgement, Run
from conformance.reports.sanitize import json_text
from conformance.serving.start_records import read_starts

FORMAT = 1


def as_json(run: Run, judgement: Judgement) -> str:
    """The table of the terminal, for programs."""
    document = {
        "format": FORMAT,
        "exit_code": int(judgement.exit_code),
        "sentence": judgement.sentence,
        "hardware": run.hardware,
        "pair": run.pair,
        "level": run.level,
        "certify": run.certify,
        "unlocked": run.unlocked,
        "complete": run.complete,
        "evidence": run.evidence,
        "expected": list(run.expected),
        "problems": list(run.problems),
        "verdicts": [record_to_json(record) for record in run.records],
        "servers": list(_servers(run)),
    }
    return json_text(document)


def _servers(run: Run) -> Iterator[dict[str, Any]]:
    """How each server was started. The page reports a damaged record; here it is left out, so that verdicts stay."""
    with contextlib.suppress(ObservationError):
        for note in read_starts(Path(run.evidence)):
            yield asdict(note)
