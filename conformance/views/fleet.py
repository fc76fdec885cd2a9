"""Several runs in one table: a row for each run, grouped by pair and level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from conformance.judging.stats import Estimate
from conformance.judging.verdict import ExitCode, Verdict

LIMIT = 3.5  # of the modified z-score
MINIMUM = 5  # values: of three, two are so often close by chance that every other table had a mark
LENGTH = "acceptance length"
UNREAD = "not read"


@dataclass(frozen=True)
class Row:
    """One run; if it could not be judged, ``problem`` says why and the rest is empty."""

    evidence: str
    hardware: str = ""
    machine: str = ""
    pair: str = ""
    level: str = ""
    vllm: str = ""
    exit_code: ExitCode = ExitCode.INSTRUMENT
    sentence: str = ""
    figures: Mapping[str, Estimate] = field(default_factory=dict)  # acceptance length, and the speedups
    best_k: int | None = None
    not_passed: Mapping[str, Verdict] = field(default_factory=dict)
    problem: str = ""
    marks: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """The words at the beginning of its judgement."""
        return UNREAD if self.problem else self.sentence.partition(":")[0].partition(",")[0].lower()


@dataclass(frozen=True)
class Group:
    """The runs of one pair at one level."""

    pair: str
    level: str
    rows: tuple[Row, ...]

    @property
    def figures(self) -> list[str]:
        """The names of all figures in any of the runs."""
        return list(dict.fromkeys(name for row in self.rows for name in row.figures))


@dataclass(frozen=True)
class SizeRow:
    """One run of a published size; what was not observed is empty."""

    size: str  # "E2B" … "31B"
    quantisation: str
    archive: str
    hardware: str
    vllm: str
    workers: int
    refused: str = ""  # why the server with MTP did not serve
    draft: str = ""  # the checks of its bytes
    wiring: str = ""
    experts: str = ""
    attention: str = ""
    memory_gib: float | None = None  # of the weights of one worker, as vLLM's log says
    load_seconds: float | None = None
    step_ms: Mapping[str, float] = field(default_factory=dict)  # by arm, for one request at a time
    in_a_row: Estimate | None = None  # the speedup
    eight_at_once: Estimate | None = None
    later_tokens: float | None = None  # tokens/s after the first token with MTP over those without, at 32 at once
    not_passed: Mapping[str, Verdict] = field(default_factory=dict)
