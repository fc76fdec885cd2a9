"""A recorded healthy run with its verdicts, as a finished run leaves it."""

from __future__ import annotations

from pathlib import Path

from conformance.evidence.folder import Evidence
from conformance.evidence.journal import JOURNAL, Journal
from conformance.run.judge_evidence import judge_again
from support import synthetic


def record(directory: Path) -> Path:
    """Write the run into this folder, and return the folder."""
    synthetic.record(directory, synthetic.healthy())
    found, judgement = judge_again(directory)
    with Journal(directory / JOURNAL) as journal:
        journal.header(found)
        for record in found.records:
            journal.verdict(record)
        journal.footer(found, judgement)
    Evidence(directory, recording=False).finish()
    return directory
