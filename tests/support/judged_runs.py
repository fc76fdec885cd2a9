"""Verdicts beside recorded evidence, as a run leaves them."""

from __future__ import annotations

from pathlib import Path

from conformance.evidence.folder import Evidence
from conformance.evidence.journal import JOURNAL, Journal
from conformance.judging.verdict import Judgement, Run
from conformance.run.judge_evidence import judge_again
from support import synthetic


def record(directory: Path) -> Path:
    """Write a healthy run with its verdicts into this folder, and return the folder."""
    synthetic.record(directory, synthetic.healthy(), finished=False)
    write_verdicts(directory, *judge_again(directory))
    Evidence(directory, recording=True).finish()
    return directory


def write_verdicts(directory: Path, run: Run, judgement: Judgement | None) -> None:
    """Write the journal of this run; without a judgement it has no end, as after an interruption."""
    with Journal(directory / JOURNAL) as journal:
        journal.header(run)
        for record in run.records:
            journal.verdict(record)
        if judgement is not None:
            journal.footer(run, judgement)
