"""Ends a run that cannot give a verdict: one sentence on stderr, and the exit code."""

from __future__ import annotations

import sys

from conformance.errors import ObservationError, Unsupported, UsageError
from conformance.judging.verdict import ExitCode

Refusal = UsageError | ObservationError | Unsupported
REFUSALS = (UsageError, ObservationError, Unsupported)


def report_refusal(error: Refusal) -> ExitCode:
    """Print the sentence; return USAGE for bad input, INSTRUMENT if something could not be observed."""
    print(f"qualify: {error}", file=sys.stderr)
    return ExitCode.USAGE if isinstance(error, UsageError) else ExitCode.INSTRUMENT
