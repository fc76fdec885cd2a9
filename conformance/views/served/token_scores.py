"""The logprobs of answers and prompts with MTP, compared with those without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError
from conformance.profile.arms import MTP, PLAIN

SCORED = ("logprobs", "prompt_logprobs")
FEWEST = 4  # scores that cannot all be zero by chance


@dataclass(frozen=True)
class TokenScores:
    """The ``token_scores`` observation: rows by server, round and prompt."""

    arms: Mapping[str, list[list[Mapping[str, Any]]]]
    source: str = "observations/token_scores.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation.

        Raises:
            ObservationError: the server without MTP was not asked twice.
        """
        if len(facts["arms"][PLAIN]) < 2 or not all(facts["arms"][PLAIN]):
            raise ObservationError("the server without MTP was not compared with itself, so the noise is not known")
        return cls(facts["arms"])

    @property
    def answers(self) -> int:
        """The number of scored answers with MTP."""
        return sum(len(rows) for rows in self.arms[MTP])

    def malformed(self) -> list[str]:
        """A sentence for each answer whose scores do not belong to its tokens, or are no scores."""
        return [
            f"{row['id']} with MTP has {problem}"
            for rows in self.arms[MTP]
            for row in rows
            for problem in _malformed(row)
        ]

    def shift_without(self) -> float:
        """The largest difference of the server without MTP from itself, in nats."""
        first, *others = self.arms[PLAIN]
        return max((_shift(*pair)[0] for rows in others for pair in zip(first, rows, strict=True)), default=0.0)

    def limit(self, resolution: float, widest: float) -> float:
        """The largest difference that is none: the server's own shift, at least the resolution, at most ``widest``."""
        return min(widest, max(resolution, self.shift_without()))

    def shifted(self, resolution: float, widest: float) -> list[str]:
        """A sentence for each answer with MTP whose scores differ by more than the limit."""
        limit = self.limit(resolution, widest)
        found = (
            (row["id"], *_shift(plain, row))
            for rows in self.arms[MTP]
            for plain, row in zip(self.arms[PLAIN][0], rows, strict=True)
        )
        return [
            f"{id} has {where} with MTP, which is {shift:.3f} nats off" for id, shift, where in found if shift > limit
        ]

    def note(self, resolution: float, widest: float) -> str:
        """The noise and the limit."""
        shift, limit = self.shift_without(), self.limit(resolution, widest)
        return f"A/A, without MTP against itself: at most {shift:.4f} nats; at most {limit:.4f} are allowed"


def _malformed(row: Mapping[str, Any]) -> Iterator[str]:
    for name, count in (("token_ids", "output_tokens"), ("logprobs", "output_tokens"), ("prompt_ids", "prompt_tokens")):
        if len(row[name]) != row[count]:
            yield f"{len(row[name])} {name} where usage counts {row[count]}"
    if len(row["prompt_logprobs"]) != row["prompt_tokens"] - 1:
        yield f"{len(row['prompt_logprobs'])} prompt_logprobs for a prompt of {row['prompt_tokens']} tokens"
    if row["scored_ids"] != row["token_ids"]:
        yield "logprobs of other tokens than its own"
    for name in SCORED:
        if None in row[name]:
            yield f"a value in {name} that is missing or no finite number, at place {row[name].index(None)}"
        elif len(row[name]) >= FEWEST and not any(row[name]):
            yield f"zeros only in {name}"
        elif any(value > 0 for value in row[name]):
            yield f"{name} above zero"


def _shift(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float, str]:
    """The largest difference of two scores of the same text, and where it is.

    After the first different token the scores are of different texts, so they are not compared.
    """
    pairs = list(zip(one["token_ids"], other["token_ids"], strict=False))
    same = next((place for place, (a, b) in enumerate(pairs) if a != b), len(pairs))
    found = [(0.0, "")]
    for name, length in (("logprobs", same), ("prompt_logprobs", len(one["prompt_logprobs"]))):
        values = zip(one[name][:length], other[name][:length], strict=False)
        found += [
            (abs(a - b), f"{b:.3f} where {a:.3f} is right in {name} at place {place}")
            for place, (a, b) in enumerate(values)
            if a is not None and b is not None
        ]
    return max(found)
