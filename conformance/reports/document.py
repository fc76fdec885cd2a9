"""The verdicts of a run as one JSON document, valid against harness/schemas/report.json."""

from __future__ import annotations

import json

from conformance.harness.journal import record_to_json
from conformance.harness.verdict import Judgement, Run
from conformance.reports.characters import printable

FORMAT = 1


def as_json(run: Run, judgement: Judgement) -> str:
    """What the table of a terminal says, for programs."""
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
    }
    return printable(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
