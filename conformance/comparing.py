"""``qualify compare``: two recorded runs, judged again and held against each other."""

from __future__ import annotations

from pathlib import Path

from conformance.harness.judging import judge_again
from conformance.harness.session import Options, Session, open_session
from conformance.reports.changes import Comparison, Side, compare
from conformance.reports.source import Source


def compared(before: Path, after: Path) -> Comparison:
    """How the second run differs from the first, both by today's floors and waivers.

    Raises UsageError and ObservationError for what cannot be judged, before anything is.
    """
    sessions = [_opened(directory) for directory in (before, after)]
    return compare(*map(_judged, sessions))


def _opened(directory: Path) -> Session:
    return open_session(Options(evidence=directory, recorded_only=True), Path.cwd())


def _judged(session: Session) -> Side:
    return Side(*judge_again(session.evidence.directory), Source(session.evidence, session.profile))
