"""The verdicts of a run as JSON Lines: a header, one line for each verdict in the order of judging, a footer.

A stopped run writes no footer, so a reader sees that the file is incomplete.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from conformance.errors import ObservationError
from conformance.formats.json_files import parse_json
from conformance.judging.verdict import Diagnosis, Finding, Judgement, Record, Run, Verdict

FORMAT = 1
JOURNAL = "verdicts.jsonl"  # in the evidence


class Journal:
    """Writes ``verdicts.jsonl`` and flushes every line, so that a kill loses at most one line."""

    def __init__(self, path: Path) -> None:
        """Begin the file.

        Raises:
            ObservationError: it cannot be written; the other methods raise it too.
        """
        self._path = path
        with self._written():
            self._file = path.open("w", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def header(self, run: Run) -> None:
        """Write the subject of the run and the ids of the checks at its level."""
        subject = {key: getattr(run, key) for key in ("hardware", "pair", "level", "certify", "unlocked")}
        self._line({"kind": "header", "format": FORMAT, **subject, "expected": list(run.expected)})

    def verdict(self, record: Record) -> None:
        """Write one verdict."""
        self._line({"kind": "verdict", **record_to_json(record)})

    def footer(self, run: Run, judgement: Judgement) -> None:
        """Write the judgement; it marks the file as complete."""
        self._line(
            {
                "kind": "footer",
                "verdicts": len(run.records),
                "problems": list(run.problems),
                "exit_code": int(judgement.exit_code),
                "sentence": judgement.sentence,
            }
        )

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._written():
            self._file.close()

    def _line(self, document: dict[str, Any]) -> None:
        with self._written():
            self._file.write(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ObservationError(f"{self._path} cannot be written ({error.strerror})") from None


def read_journal(path: Path) -> Run:
    """The run in a ``verdicts.jsonl``; ``complete`` is False if the footer or verdicts are missing.

    Raises:
        ObservationError: the header cannot be read, or another version wrote the file.
    """
    try:
        lines = [_parse_line(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return _run(path, [line for line in lines if line is not None])
    except (OSError, KeyError, TypeError, ValueError) as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise ObservationError(f"{path} is no journal of verdicts that this version reads ({said})") from error


def _run(path: Path, rows: Sequence[dict[str, Any]]) -> Run:
    if not rows or rows[0].get("kind") != "header":
        raise ObservationError(f"{path} has no header: it is no journal of verdicts")
    header, verdicts = rows[0], [record_from_json(row) for row in rows if row["kind"] == "verdict"]
    footer = rows[-1] if rows[-1]["kind"] == "footer" else None
    return Run(
        hardware=header["hardware"],
        pair=header["pair"],
        level=header["level"],
        evidence=str(path.parent),
        expected=tuple(header["expected"]),
        records=tuple(verdicts),
        problems=tuple(footer["problems"]) if footer else (f"{path} is cut short: it has no footer",),
        certify=header["certify"],
        unlocked=header["unlocked"],
        complete=footer is not None and footer["verdicts"] == len(verdicts),
    )


def record_to_json(record: Record) -> dict[str, Any]:
    """A record as plain JSON values; pytest-xdist's workers send records in this form too."""
    document: dict[str, Any] = json.loads(json.dumps(asdict(record), allow_nan=False))
    return document


def record_from_json(document: dict[str, Any]) -> Record:
    """The inverse of ``record_to_json``; an additional key ``kind`` is ignored."""
    fields = {key: value for key, value in document.items() if key != "kind"}
    findings = tuple(
        Finding(
            **{
                **finding,
                "verdict": Verdict(finding["verdict"]),
                "interval": tuple(finding["interval"]) if finding["interval"] else None,
            }
        )
        for finding in fields.pop("findings")
    )
    diagnoses = tuple(Diagnosis(**diagnosis) for diagnosis in fields.pop("diagnoses"))
    return Record(**{**fields, "verdict": Verdict(fields["verdict"])}, findings=findings, diagnoses=diagnoses)


def _parse_line(line: str) -> dict[str, Any] | None:
    try:
        row = parse_json(line)
    except ValueError:  # an incomplete line from a killed run
        return None
    return row if isinstance(row, dict) and "kind" in row else None
