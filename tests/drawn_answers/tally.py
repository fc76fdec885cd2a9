"""The result of all batches so far, as one small file that a later run continues."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conformance import FIXTURES
from conformance.errors import UsageError
from conformance.inside_vllm.answer_trials import Causes, Given, Kinds
from drawn_answers.batch import PROPERTIES, Batch

RESULT, DIGESTS = "answers.json", "answers.digests"  # the digests of the inputs, eight bytes each, tell repeated ones
KEPT_FAILURES = 200
CLASSIFIED = FIXTURES.parent / "docs" / "results" / "parsers" / "kinds.json"


@dataclass
class Counted:
    """One property: its finished batches, and what they found together."""

    done: set[int] = field(default_factory=set)
    answers: int = 0
    kinds: Kinds = field(default_factory=Kinds)
    failed: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)

    def add(self, batch: Batch) -> None:
        """Add a finished batch; the smallest example of each finding is kept."""
        self.done.add(batch.number)
        self.answers += batch.answers
        self.kinds.examples += batch.judged
        self.kinds.refused += batch.refused
        self.failed += len(batch.failures)
        self.failures = (self.failures + batch.failures)[:KEPT_FAILURES]
        for key, each in batch.found.items():
            self.kinds.merge(key, each)


class Tally:
    """All properties. It is written as a whole, so that a process that is killed leaves a whole file."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Continue what the folder holds.

        ``about`` says what makes the answers: seed, versions. Results of others are not added to.

        Raises:
            UsageError: the folder has results of another seed, size of batches or version.
        """
        self._folder, self._about = folder, dict(about)
        self.properties = {name: Counted() for name in PROPERTIES}
        self.digests: set[int] = set()
        self.seconds = 0.0  # of earlier runs
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / RESULT).is_file():
            self._read()

    def _read(self) -> None:
        path, document = self._folder / RESULT, _read_result(self._folder)
        if {key: document.get(key) for key in self._about} != self._about:
            raise UsageError(f"{path}: it holds other answers than {self._about}; name another folder")
        self.seconds = document["seconds"]
        for name, row in document["properties"].items():
            each = self.properties[name]
            each.done = {number for first, last in row["batches"] for number in range(first, last + 1)}
            each.answers, each.kinds.examples, each.kinds.refused = row["answers"], row["judged"], row["refused"]
            each.failed, each.failures = row["failed"], row["failures"]
            for found in row["found"]:
                key: tuple[str, Causes] = (found["harm"], tuple(found["causes"]))
                each.kinds.merge(key, {"answers": found["answers"], "example": found["example"]})
        digests = array("Q")
        digests.frombytes((self._folder / DIGESTS).read_bytes())
        self.digests = set(digests)

    @property
    def judged(self) -> int:
        """The number of judged answers."""
        return sum(each.kinds.examples for each in self.properties.values())

    def add(self, batch: Batch) -> None:
        """Add a finished batch."""
        self.properties[batch.property].add(batch)
        self.digests |= batch.digests

    def write(self, seconds: float) -> None:
        """Write both files; ``seconds`` is the time of this run."""
        document = {
            **self._about,
            "seconds": round(self.seconds + seconds, 1),
            "answers": sum(each.answers for each in self.properties.values()),
            "judged": self.judged,
            "distinct": len(self.digests),
            "properties": {name: _row(each) for name, each in self.properties.items()},
        }
        _replace(self._folder / DIGESTS, array("Q", sorted(self.digests)).tobytes())
        _replace(self._folder / RESULT, json.dumps(document, ensure_ascii=True).encode())


def read_found(folder: Path) -> list[tuple[str, Given]]:
    """The smallest inputs of all findings in a result, each with its property.

    Raises:
        UsageError: the folder has no result.
    """
    return [
        (name, found["example"]["given"])
        for name, row in _read_result(folder)["properties"].items()
        for found in row["found"]
    ]


def summarize(folder: Path, classified: Path = CLASSIFIED) -> dict[str, Any]:
    """A result without its inputs: for each property the number of answers of each kind.

    A finding with several causes counts for the first that is a kind of its own here or in the table of kinds.

    Raises:
        UsageError: the folder has no result.
    """
    document, properties = _read_result(folder), {}
    table = json.loads(classified.read_text(encoding="utf-8"))["kinds"]
    known = {each["kind"] for each in table}
    for name, row in document.pop("properties").items():
        kinds = Kinds(refused=row["refused"])
        for found in row["found"]:
            kinds.merge((found["harm"], tuple(found["causes"])), found)
        named = kinds.as_json(name == "near_native", known)["kinds"]
        counts = {key: row[key] for key in ("answers", "judged", "refused", "failed")}
        properties[name] = counts | {"kinds": {each["kind"]: each["answers"] for each in named}}
    return document | {"properties": properties}


def _read_result(folder: Path) -> Any:
    path = folder / RESULT
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file; draw answers first")
    return json.loads(path.read_text(encoding="utf-8"))


def _row(each: Counted) -> dict[str, Any]:
    found = [{"harm": harm, "causes": list(causes), **row} for (harm, causes), row in sorted(each.kinds.found.items())]
    return {
        "batches": _ranges(each.done),
        "answers": each.answers,
        "judged": each.kinds.examples,
        "refused": each.kinds.refused,
        "failed": each.failed,
        "failures": each.failures,
        "found": found,
    }


def _ranges(numbers: set[int]) -> list[list[int]]:
    """The numbers as first and last of each run without a gap."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ranges


def _replace(path: Path, content: bytes) -> None:
    new = path.with_suffix(path.suffix + ".new")
    new.write_bytes(content)
    new.replace(path)
