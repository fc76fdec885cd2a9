"""``qualify compare``: two recorded runs, judged again and held against each other."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from conformance.harness.errors import ObservationError
from conformance.harness.judging import judge_again
from conformance.harness.session import Options, Session, open_session
from conformance.harness.verdict import ExitCode
from conformance.reports.changes import Comparison, Side, compare
from conformance.reports.comparison import as_json, as_markdown, as_text
from conformance.reports.source import Source


def run(before: Path, after: Path, form: str = "table") -> int:
    """Print how the second run differs from the first; 1 where it is worse, 4 where one of them cannot be judged."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else None
    forms: dict[str, Callable[[Comparison], str]]
    forms = {"markdown": as_markdown, "json": as_json, "table": partial(as_text, width=width, colour=terminal)}
    try:
        sessions = [_opened(directory) for directory in (before, after)]  # all input before the first is judged
        found = compare(*map(_judged, sessions))
    except ObservationError as error:
        print(f"qualify: {error}", file=sys.stderr)
        return ExitCode.INSTRUMENT
    print(forms[form](found), end="")
    return found.exit_code


def _opened(directory: Path) -> Session:
    return open_session(Options(evidence=directory, recorded_only=True), Path.cwd())


def _judged(session: Session) -> Side:
    """By today's floors and waivers."""
    return Side(*judge_again(session.evidence.directory), Source(session.evidence, session.profile))
