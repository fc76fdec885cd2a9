"""The server's greedy answers compared with those of transformers in float32."""

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
    """One gold answer: token ids, and at each place the second most likely token and its distance in nats.

    ``others`` has the distances of further tokens that are nearly as likely, by place and token.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    runner_up: tuple[int, ...]
    gap: tuple[float, ...]
    others: Mapping[tuple[int, int], float]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """A row of a gold file. Older files list no further tokens."""
        prompt, answer, runner_up, gap = (tuple(row[key]) for key in ("prompt", "answer", "runner_up", "gap"))
        others = {(place, token): gap for place, token, gap in row.get("others", ())}
        return cls(prompt, answer, runner_up, gap, others)


@dataclass(frozen=True)
class Divergence:
    """The first place where an answer differs from the gold answer."""

    id: str
    place: int
    token: str
    gap: float
    is_likely: bool

    def sentence(self, arm: str) -> str:
        """What the answer of this arm has instead of the gold token."""
        return (
            f"{self.id} {ARMS[arm]} differs from the gold answer at token {self.place}: its token is {self.token}, "
            f"which is {self.gap:.2f} nats behind"
        )


@dataclass(frozen=True)
class Gold:
    """The first answer to each prompt in the ``load`` observation, and the gold file of the same target."""

    answers: Mapping[str, Mapping[str, Answer]]  # arm -> prompt id -> answer
    rows: Mapping[str, GoldRow]
    source: str = "observations/load.json"

    @classmethod
    def of(cls, load: Load, gold: Mapping[str, Any], folder: Path) -> Self:
        """Read both observations and the gold file.

        Raises:
            ObservationError: the gold file was computed from other weights.
        """
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

    def answer_count(self) -> int:
        """The number of answers to compare, in the arm with the fewest."""
        return min(len(answers) for answers in self.answers.values())

    def divergences(self, arm: str, near_tie: float) -> list[str]:
        """A sentence for each answer that differs from the gold answer where there is no near-tie.

        Raises:
            Unsupported: this arm has no server.
        """
        found = (self._divergence(arm, name) for name in self._answers(arm))
        return [each.sentence(arm) for each in found if each and not (each.is_likely and each.gap <= near_tie)]

    def share_compared(self, arm: str) -> Estimate:
        """The share of gold tokens before the first divergence, which is the share that the comparison covers.

        Raises:
            Unsupported: this arm has no server.
        """
        ends = {name: self._divergence(arm, name) for name in self._answers(arm)}
        lengths = {name: len(self._expected(arm, name)) for name in ends}
        before = [lengths[name] if end is None else end.place for name, end in ends.items()]
        return stats.ratio(before, list(lengths.values()))

    def _answers(self, arm: str) -> Mapping[str, Answer]:
        """The answers of this arm.

        Raises:
            Unsupported: this arm has no server.
        """
        if arm not in self.answers:
            raise Unsupported(f"There was no server {ARMS[arm]} to compare with: attach one by --attach-plain URL.")
        return self.answers[arm]

    def _divergence(self, arm: str, name: str) -> Divergence | None:
        gold, found = self.rows[name], self.answers[arm][name].token_ids
        for place, token in enumerate(self._expected(arm, name)):
            if place >= len(found) or found[place] != token:
                other = found[place] if place < len(found) else None
                if other == gold.runner_up[place]:
                    return Divergence(name, place, "the second most likely one", gold.gap[place], True)
                if other is not None and (place, other) in gold.others:
                    return Divergence(name, place, "a likely one", gold.others[place, other], True)
                return Divergence(name, place, "not even the second most likely one", gold.gap[place], False)
        return None

    def _expected(self, arm: str, name: str) -> tuple[int, ...]:
        """The gold answer, cut to the length of an answer that ended at its token limit."""
        answer = self.answers[arm][name]
        return self.rows[name].answer[: answer.tokens if answer.finish_reason == "length" else None]


@pydantic.dataclasses.dataclass(frozen=True, config=toml_tables.STRICT)
class NearTie:
    """The widest gap between two tokens, in nats, at which an answer may have either."""

    nats: float
    source: str
    date: str


def load_near_tie(path: Path) -> NearTie:
    """Read ``[near_tie]`` of a TOML file.

    Raises:
        UsageError: the file is not valid.
    """
    return toml_tables.convert(path, toml_tables.parse(path), dict[str, NearTie])["near_tie"]


def load_gold(file: Path, weights_sha256: str) -> dict[str, GoldRow]:
    """Read the gold rows by prompt.

    Raises:
        ObservationError: the header's SHA-256 is not that of the target's weights.
    """
    header, *rows = (json.loads(line) for _, line in json_lines.numbered_lines(file.read_text(encoding="utf-8")))
    if header["sha256"] != weights_sha256:
        raise ObservationError(
            f"{file} was computed from other weights: its header has SHA-256 {header['sha256'][:12]}…"
        )
    return {row["id"]: GoldRow.of(row) for row in rows}
