"""What may differ between the servers that a speedup compares: fixtures/facts/arms.toml."""

from __future__ import annotations

import functools
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from conformance import FIXTURES
from conformance.errors import UsageError
from conformance.formats import toml_tables
from conformance.formats.toml_tables import STRICT

ARM_FACTS = FIXTURES / "facts" / "arms.toml"


@dataclass(frozen=True, config=STRICT)
class Difference:
    """Fields of vLLM's configuration that may differ between the arms, or must not, with the reason."""

    fields: tuple[str, ...]  # patterns; "*" stands for anything
    kind: Literal["needed", "neutral", "confounding"]
    reason: str
    name: str = ""  # what part of a speedup comes from it, where it is confounding
    within: float = 0.0  # numbers that differ by at most this share count as equal
    empty_means: str = ""  # the field that vLLM uses instead of null

    def names(self, field: str) -> bool:
        """Whether the row is about this field."""
        return any(fnmatchcase(field, pattern) for pattern in self.fields)


@dataclass(frozen=True, config=STRICT)
class PromptClasses:
    """Classes of prompts by their number of tokens: up to each edge, and above the last one."""

    edges: tuple[int, ...]
    least: int  # prompts of a class, below which it is not judged

    def of(self, tokens: int) -> int:
        """The number of the class of a prompt, from 0."""
        return sum(tokens > edge for edge in self.edges)

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of each class: "up to 64", "65 to 320", "above 320"."""
        between = [f"{low + 1} to {high}" for low, high in zip(self.edges, self.edges[1:], strict=False)]
        return (f"up to {self.edges[0]}", *between, f"above {self.edges[-1]}")


@dataclass(frozen=True, config=STRICT)
class NoFaster:
    """By which factor MTP may seem faster where it does strictly more, and which factor a PASS must exclude."""

    alarm: float
    missed: float
    source: str
    date: str

    def alarm_beyond(self, shift: float) -> float:
        """The alarm, at least the factor ``shift`` by which the server without MTP differs from itself."""
        return round(max(self.alarm, shift, 1 / shift), 3)


@dataclass(frozen=True, config=STRICT)
class ArmFacts:
    """The whole file."""

    difference: tuple[Difference, ...]
    prompts: PromptClasses
    first_token: NoFaster
    step: NoFaster

    def about(self, field: str) -> Difference | None:
        """The first row that names this field."""
        return next((row for row in self.difference if row.names(field)), None)


@functools.cache
def load_arm_facts(path: Path = ARM_FACTS) -> ArmFacts:
    """Read the file.

    Raises:
        UsageError: the file is wrong; the sentence names the file, the key and the mend.
    """
    facts = toml_tables.read(path, ArmFacts)
    for row in facts.difference:
        if row.kind == "confounding" and not row.name:
            raise UsageError(f'{path}: the row of {row.fields[0]} is confounding; add the key "name".')
    edges = facts.prompts.edges
    if not edges or list(edges) != sorted(set(edges)):
        raise UsageError(f'{path}: key "prompts.edges" is {list(edges)}; write rising numbers such as [64, 320].')
    return facts
