"""Examples for the trials of the parser: recorded answers, published instances, and earlier failures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass as table

from conformance.formats.toml_tables import STRICT
from conformance.workload.prompts import load_rows

# In fixtures/prompts.
STREAMS, PUBLISHED, REGRESSIONS = "streams.jsonl", "json-schema-test-suite.jsonl", "regressions/parsers.jsonl"
SUITE, TOOLS = "json-schema-test-suite-whole.jsonl", "published-tools.jsonl"
DRAWN = ("schemas", "names", "near_native", "cut")  # properties of answers whose examples Hypothesis draws


@table(frozen=True, config=STRICT)
class Stream:
    """One answer: its text with special tokens, the end of its prompt, and the token that ended it."""

    id: str
    licence: str
    prompt: str
    text: str
    stop: str
    tools: tuple[dict[str, Any], ...] = ()
    chat_template_kwargs: dict[str, Any] | None = None


@table(frozen=True, config=STRICT)
class Instance:
    """Published arguments that are valid for a schema, both in the form of a tool."""

    id: str
    licence: str
    source: str
    parameters: dict[str, Any]
    arguments: dict[str, Any]


@table(frozen=True, config=STRICT)
class Regression:
    """A counterexample of an earlier run: the property that it broke, and the example in the form of evidence."""

    id: str
    licence: str
    property: str
    example: dict[str, Any]


def load_instances(path: Path) -> list[dict[str, Any]]:
    """All published instances.

    Raises:
        UsageError: the file is wrong; the sentence names the file, the line and the mend.
    """
    return [asdict(row) for row in load_rows(path, Instance)]


def load_regressions(path: Path) -> list[dict[str, Any]]:
    """All earlier counterexamples, none if the file does not exist yet.

    Raises:
        UsageError: the file is wrong; the sentence names the file, the line and the mend.
    """
    return [asdict(row) for row in load_rows(path, Regression)] if path.is_file() else []


def keep_regressions(path: Path, found: Mapping[str, Any]) -> int:
    """Add the counterexamples of a ``parsers`` observation to the file; return how many are new.

    Raises:
        UsageError: the file is wrong; the sentence names the file, the line and the mend.
    """
    broken = {**found["round_trip"], "any_text": found["any_text"]}
    known = load_regressions(path)
    examples = [(name, each["counterexample"]) for name, each in broken.items() if each["counterexample"]]
    examples += [
        (name, row["example"])
        for name, each in found.get("answers", {}).items()
        if name in DRAWN
        for row in each["kinds"]
    ]
    return write_regressions(path, known, examples)


def write_regressions(
    path: Path, known: Sequence[Mapping[str, Any]], examples: Iterable[tuple[str, Mapping[str, Any]]]
) -> int:
    """Write known rows and new examples, each with its property; return how many are new."""
    rows = [Regression(f"{name}-{_digest(each)}", "Apache-2.0", name, dict(each)) for name, each in examples]
    unique = {row.id: row for row in rows}  # one input may show several kinds
    new = [asdict(row) for id, row in unique.items() if id not in {each["id"] for each in known}]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in [*known, *new]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return len(new)


def _digest(example: Mapping[str, Any]) -> str:
    """A short hash of the input, so that the same example counts once."""
    text = json.dumps(example["given"], sort_keys=True) if "given" in example else example["text"]
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def load_streams(path: Path) -> list[dict[str, Any]]:
    """All recorded answers in the form of the trials.

    Raises:
        UsageError: the file is wrong; the sentence names the file, the line and the mend.
    """
    return [asdict(row) | {"chat_template_kwargs": row.chat_template_kwargs or {}} for row in load_rows(path, Stream)]
