"""What a parser is tried on beside drawn examples: recorded answers, published instances, and earlier failures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass as table

from conformance.formats.toml_tables import STRICT
from conformance.workload.prompts import load_rows

# In fixtures/prompts.
STREAMS, PUBLISHED, REGRESSIONS = "streams.jsonl", "json-schema-test-suite.jsonl", "regressions/parsers.jsonl"


@table(frozen=True, config=STRICT)
class Stream:
    """One answer: its text with special tokens written out, the end of its prompt, and the token that ended it."""

    id: str
    licence: str
    prompt: str
    text: str
    stop: str
    tools: tuple[dict[str, Any], ...] = ()
    chat_template_kwargs: dict[str, Any] | None = None


@table(frozen=True, config=STRICT)
class Instance:
    """Arguments that others published as valid for a schema; both wrapped as a tool wants them."""

    id: str
    licence: str
    source: str
    parameters: dict[str, Any]
    arguments: dict[str, Any]


@table(frozen=True, config=STRICT)
class Regression:
    """A counterexample of an earlier run: the property that it broke, and the example as evidence has it."""

    id: str
    licence: str
    property: str
    example: dict[str, Any]


def load_instances(path: Path) -> list[dict[str, Any]]:
    """Every row; raises UsageError naming file, line and mend."""
    return [asdict(row) for row in load_rows(path, Instance)]


def load_regressions(path: Path) -> list[dict[str, Any]]:
    """Every row, none where there is no file yet; raises UsageError naming file, line and mend."""
    return [asdict(row) for row in load_rows(path, Regression)] if path.is_file() else []


def keep_regressions(path: Path, found: Mapping[str, Any]) -> int:
    """Put the counterexamples of a ``parsers`` observation into the file; how many were not there yet."""
    broken = {**found["round_trip"], "any_text": found["any_text"]}
    known = load_regressions(path)
    rows = [
        Regression(f"{name}-{_digest(each['counterexample'])}", "Apache-2.0", name, each["counterexample"])
        for name, each in broken.items()
        if each["counterexample"]
    ]
    new = [asdict(row) for row in rows if row.id not in {each["id"] for each in known}]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in [*known, *new]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return len(new)


def _digest(example: Mapping[str, Any]) -> str:
    """Of what went in: the same example found in another way is no other one."""
    return hashlib.sha256(example["text"].encode()).hexdigest()[:8]


def load_streams(path: Path) -> list[dict[str, Any]]:
    """Every row as the trials read it; raises UsageError naming file, line and mend."""
    return [asdict(row) | {"chat_template_kwargs": row.chat_template_kwargs or {}} for row in load_rows(path, Stream)]
