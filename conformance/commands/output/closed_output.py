"""Standard output whose reader may go away, as in ``qualify | head``: the run goes on, and its exit code holds."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Output(io.FileIO):
    """A file whose content is discarded after its reader has gone."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


def outlive_reader() -> None:
    """Let this process's standard output discard what nobody reads any more."""
    before = sys.stdout
    before.flush()
    output = io.BufferedWriter(Output(before.fileno(), "w", closefd=False))
    lines = before.isatty()
    sys.stdout = io.TextIOWrapper(output, encoding=before.encoding, errors=before.errors, line_buffering=lines)
