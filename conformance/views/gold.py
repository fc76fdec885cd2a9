"""How far the server's greedy answers follow those that transformers computed in float32."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pydantic

from conformance.errors import ObservationError, Unsupported
from conformance.formats import json_lines, toml_tables
from conformance.judging import stats
from conformance.judging.stats import Estimate
from conformance.views.load import Answer, Load

ARMS = {"mtp": "with MTP", "plain": "without MTP"}


@dataclass(frozen=True)
class GoldRow:
    """One gold answer: token ids, and at each place the runner-up and by how much it lost (nats)."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    runner_up: tuple[int, ...]
    gap: tuple[float, ...]


@dataclass(frozen=True)
class Divergence:
    """The first place where an answer leaves the gold one."""

    id: str
    place: int
    gap: float
    is_runner_up: bool

    def __str__(self) -> str:
        to = "to the runner-up" if self.is_runner_up else "to a token that is not even the runner-up"
        return f"{self.id} leaves the gold answer at token {self.place} {to}, which lost by {self.gap:.2f}"


@dataclass(frozen=True)
class Gold:
    """The answers of the ``load`` observation, each prompt's first, beside the gold file of the same target."""

    answers: Mapping[str, Mapping[str, Answer]]  # arm -> prompt id -> answer
    rows: Mapping[str, GoldRow]
    source: str = "observations/load.json"

    @classmethod
    def of(cls, load: Load, gold: Mapping[str, Any], folder: Path) -> Self:
        """Read both observations and the gold file; ObservationError where that was computed from other weights."""
        rows = load_gold(folder / gold["file"], gold["weights_sha256"])
        answers: dict[str, dict[str, Answer]] = {arm: {} for arm in ARMS}
        for _, each in load.rounds():
            for arm, block in (("mtp", each.mtp), ("plain", each.without)):
                for answer in block.answers if block else ():
                    if answer.id in rows:
                        answers[arm].setdefault(answer.id, answer)
        if not answers["plain"] and any(each.without is None for _, each in load.rounds()):
            del answers["plain"]
        return cls(answers, rows, load.source)

    def compared(self) -> int:
        """How many answers there are to compare, in each arm."""
        return min(len(answers) for answers in self.answers.values())

    def departures(self, arm: str, near_tie: float) -> list[str]:
        """Answers that leave the gold one where it was no near-tie, each as a sentence."""
        found = (self._divergence(arm, name) for name in self._answers(arm))
        return [f"{each} {ARMS[arm]}" for each in found if each and not (each.is_runner_up and each.gap <= near_tie)]

    def followed(self, arm: str) -> Estimate:
        """Share of the gold tokens that were written before the first divergence: what the comparison has covered."""
        ends = {name: self._divergence(arm, name) for name in self._answers(arm)}
        lengths = {name: len(self._expected(arm, name)) for name in ends}
        before = [lengths[name] if end is None else end.place for name, end in ends.items()]
        return stats.ratio(before, list(lengths.values()))

    def _answers(self, arm: str) -> Mapping[str, Answer]:
        """What this arm wrote; Unsupported where there was none."""
        if arm not in self.answers:
            raise Unsupported(f"Nobody was asked {ARMS[arm]}: attach such a server by --attach-plain URL.")
        return self.answers[arm]

    def _divergence(self, arm: str, name: str) -> Divergence | None:
        gold, found = self.rows[name], self.answers[arm][name].token_ids
        for place, token in enumerate(self._expected(arm, name)):
            if place >= len(found) or found[place] != token:
                runner_up = place < len(found) and found[place] == gold.runner_up[place]
                return Divergence(name, place, gold.gap[place], runner_up)
        return None

    def _expected(self, arm: str, name: str) -> tuple[int, ...]:
        """The gold answer, up to where the answer was cut because it had become long enough."""
        answer = self.answers[arm][name]
        return self.rows[name].answer[: answer.tokens if answer.finish_reason == "length" else None]


@pydantic.dataclasses.dataclass(frozen=True, config=toml_tables.STRICT)
class NearTie:
    """The widest gap between the two most likely tokens at which either may be written, in nats."""

    nats: float
    source: str
    date: str


def load_near_tie(path: Path) -> NearTie:
    """``[near_tie]`` of a TOML file; raises UsageError naming file, key and mend."""
    return toml_tables.convert(path, toml_tables.parse(path), dict[str, NearTie])["near_tie"]


def load_gold(file: Path, weights_sha256: str) -> dict[str, GoldRow]:
    """The gold rows by prompt; the header's SHA-256 must be that of the target's weights."""
    header, *rows = (json.loads(line) for _, line in json_lines.numbered_lines(file.read_text(encoding="utf-8")))
    if header["sha256"] != weights_sha256:
        raise ObservationError(
            f"{file} was computed from other weights: its header has SHA-256 {header['sha256'][:12]}…"
        )
    return {row["id"]: GoldRow(*(tuple(row[key]) for key in ("prompt", "answer", "runner_up", "gap"))) for row in rows}
