"""Whether MTP changes the text: first divergences, compared with those of the server without MTP from itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError
from conformance.judging import stats
from conformance.judging.stats import Estimate
from conformance.views.load import Answer, Load

SHOWN = 3
LONGEST_PERIOD = 16  # tokens of a repeated phrase


@dataclass(frozen=True)
class Divergence:
    """The first place where two answers to one prompt differ; ``gap`` is in nats, by the server without MTP."""

    id: str
    between: tuple[str, str]
    place: int
    tokens: tuple[int | None, int | None]
    gap: float

    @property
    def with_mtp(self) -> bool:
        return any(name.startswith("mtp") for name in self.between)

    def __str__(self) -> str:
        one, other = ("its end" if token is None else f"token {token}" for token in self.tokens)
        return (
            f"{self.id} differs at token {self.place} ({self.between[0]}: {one}, {self.between[1]}: {other}), "
            f"where the most likely token led by {self.gap:.2f} nats"
        )


@dataclass(frozen=True)
class Texts:
    """The ``near_ties`` observation: the number of compared answers, and where they diverge.

    The server with MTP is compared with the server without MTP, and that one with itself, repeated and in other batches
    (A/A).
    """

    compared: Mapping[bool, int]  # with MTP or not -> comparisons
    divergences: tuple[Divergence, ...]
    largest_shift: float  # of the gap between the two most likely tokens, over batches; nats
    positions: int  # at which it was measured
    source: str = "observations/near_ties.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation."""
        divergences = tuple(
            Divergence(row["id"], tuple(row["between"]), row["place"], tuple(row["tokens"]), row["gap"])
            for row in facts["divergences"]
        )
        shifts = [row["largest"] for row in facts["shifts"]]
        compared = {True: facts["compared"]["with_mtp"], False: facts["compared"]["without_mtp"]}
        return cls(compared, divergences, max(shifts, default=0.0), sum(row["positions"] for row in facts["shifts"]))

    def equal_share(self, *, with_mtp: bool) -> Estimate:
        """The share of comparisons without a divergence."""
        diverged = len(self._of(with_mtp))
        return stats.share(self.compared[with_mtp] - diverged, self.compared[with_mtp])

    def share_without_mtp(self, fewest: float) -> Estimate:
        """The share of equal texts of the server without MTP compared with itself.

        Raises:
            ObservationError: there are fewer than ``fewest`` comparisons.
        """
        if self.compared[False] < fewest:
            compared = f"{self.compared[False]} answers without MTP were compared with each other"
            raise ObservationError(f"{self.source}: {compared}, where {fewest:g} are needed to measure the noise")
        return self.equal_share(with_mtp=False)

    def near_tie_limit(self, resolution: float, widest: float) -> float:
        """The widest gap of a near-tie, in nats.

        It is the largest change of a gap on the server without MTP, or the widest gap at which that server differs from
        itself. It is at least the resolution of the logits, and at most ``widest``.

        Raises:
            ObservationError: no scores were compared across batches.
        """
        if not self.positions:
            raise ObservationError(f"{self.source}: no scores were compared across batches")
        return min(widest, max(self.largest_shift, resolution, *(found.gap for found in self._of(False)), 0.0))

    def wide_divergences(self, resolution: float, widest: float) -> list[str]:
        """A sentence for each divergence with MTP that is not at a near-tie.

        Raises:
            ObservationError: no scores were compared across batches.
        """
        return [str(found) for found in self._of(True) if found.gap > self.near_tie_limit(resolution, widest)]

    def note(self, resolution: float, widest: float) -> str:
        """As a note: the comparison of the server without MTP with itself, and the first divergences with MTP."""
        itself = f"{len(self._of(False))} of {self.compared[False]} answers differ"
        shift = f"at most {self.largest_shift:.3f} nats at {self.positions} places"
        near = f"gaps up to {self.near_tie_limit(resolution, widest):.3f} nats count as near-ties"
        noise = f"A/A, without MTP against itself: {itself}, the lead of the most likely token moves by {shift}; {near}"
        return "; ".join([noise, *(str(found) for found in self._of(True)[:SHOWN])])

    def _of(self, with_mtp: bool) -> list[Divergence]:
        return [found for found in self.divergences if found.with_mtp == with_mtp]


@dataclass(frozen=True)
class Fork:
    """A divergence for a reader: the text that both answers share, and how each continues."""

    divergence: Divergence
    shared: str
    tails: tuple[str, str]

    @classmethod
    def of(cls, divergence: Divergence, documents: Sequence[Mapping[str, Any]]) -> Self | None:
        """Find both answers in the looks of the load; None if no two answers diverge at that place."""
        ones, others = (_answers(documents, divergence.id, name) for name in divergence.between)
        for one, other in itertools.product(ones, others):
            if _first_difference(one["token_ids"], other["token_ids"]) == divergence.place:
                texts = one["text"], other["text"]
                place = _first_difference(*texts)
                shared = texts[0][:place]  # the whole text if the answers differ only in a token without text
                return cls(divergence, shared, (texts[0][len(shared) :], texts[1][len(shared) :]))
        return None


def _first_difference(one: Sequence[object], other: Sequence[object]) -> int | None:
    """The first place where two sequences differ; None if they are equal."""
    both = itertools.zip_longest(one, other)
    return next((place for place, (a, b) in enumerate(both) if a != b), None)


def _answers(documents: Sequence[Mapping[str, Any]], id: str, name: str) -> list[Mapping[str, Any]]:
    """The answers to one prompt by an arm and its concurrency, as in "mtp 8"."""
    return [
        answer
        for document in documents
        for row in document["rounds"]
        for arm in ("mtp", "plain", "plain_again")
        if row[arm] and not row["warm_up"] and f"{arm} {row['concurrency']}" == name
        for prompt, answer in zip(row["prompts"], row[arm]["answers"], strict=True)
        if prompt == id
    ]


@dataclass(frozen=True)
class Form:
    """Answers with MTP compared with those without MTP, in everything but their words."""

    pairs: tuple[tuple[Answer, Answer], ...]  # without, with
    pad: int
    source: str

    @classmethod
    def of(cls, load: Load, checkpoint: Mapping[str, Any]) -> Self:
        """Read the answers of every round, and the id of the padding token.

        Raises:
            ObservationError: the target's tokenizer has no padding token.
            Unsupported: there was no server without MTP.
        """
        pad = (checkpoint["target"]["special_tokens"] or {}).get("<pad>")
        if pad is None:
            raise ObservationError("observations/checkpoint.json: the target's tokenizer has no <pad>")
        pairs = [pair for _, each in load.rounds() for pair in each.plain.paired(each.mtp)]
        return cls(tuple(pairs), pad, load.source)

    def objections(self) -> list[str]:
        """A sentence for each answer with MTP that has a problem which the answer without MTP does not have."""
        found = ((mtp.id, " and ".join(self._problems(plain, mtp))) for plain, mtp in self.pairs)
        return [f"{id} {problems}" for id, problems in found if problems]

    def length_ratio(self) -> Estimate:
        """Tokens with MTP over tokens without, by prompt."""
        plain, mtp = ([answer.tokens for answer in side] for side in zip(*self.pairs, strict=True))
        return stats.speedup(mtp, plain)

    def _problems(self, plain: Answer, mtp: Answer) -> Iterator[str]:
        if self.pad in mtp.token_ids:
            yield f"has <pad> at token {mtp.token_ids.index(self.pad)} with MTP"
        if loops(mtp.token_ids) and not loops(plain.token_ids):
            yield f"repeats itself at its end with MTP: {list(mtp.token_ids[-LONGEST_PERIOD:])}"
        same = plain.token_ids == mtp.token_ids
        if same and plain.finish_reason != mtp.finish_reason:
            yield f'has finish_reason "{mtp.finish_reason}" with MTP, "{plain.finish_reason}" without'


def loops(tokens: Sequence[int]) -> bool:
    """Whether the end repeats a phrase of at most ``LONGEST_PERIOD`` tokens, three times or more.

    Shorter phrases must occur more often, one token twelve times, because digits, blanks and rules repeat in good text.
    """
    return any(
        len(tokens) >= period * times and list(tokens[-period * times :]) == list(tokens[-period:]) * times
        for period in range(1, LONGEST_PERIOD + 1)
        for times in (max(3, 12 // period),)
    )
