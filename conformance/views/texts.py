"""Whether MTP changes what is written: first divergences, held against the server's own without MTP."""

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
LONGEST_PERIOD = 16  # tokens of a phrase that is repeated


@dataclass(frozen=True)
class Divergence:
    """The first place where two answers to one prompt differ; ``gap`` in nats, by the server without MTP."""

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
    """The ``ties`` observation: how many answers were compared, and where they diverged.

    The server with MTP is compared with the one without, and that one with itself, again and in other batches (A/A).
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
        """Share of comparisons without a divergence."""
        diverged = len(self._of(with_mtp))
        return stats.share(self.compared[with_mtp] - diverged, self.compared[with_mtp])

    def of_itself(self, fewest: float) -> Estimate:
        """The share without MTP; ObservationError where fewer comparisons were made than say something."""
        if self.compared[False] < fewest:
            compared = f"{self.compared[False]} answers without MTP were held against themselves"
            raise ObservationError(f"{self.source}: {compared}, where {fewest:g} are needed to know their noise")
        return self.equal_share(with_mtp=False)

    def near(self, resolution: float, widest: float) -> float:
        """How near a tie has to be for either token to be written, in nats.

        As far as the server without MTP moved a gap, or the widest gap at which it differed from itself; never less
        than the logits resolve, and never more than ``widest``.
        """
        if not self.positions:
            raise ObservationError(f"{self.source}: no scores were compared across batches")
        return min(widest, max(self.largest_shift, resolution, *(found.gap for found in self._of(False)), 0.0))

    def no_ties(self, resolution: float, widest: float) -> list[str]:
        """The divergences with MTP at which no near-tie excuses it, each as a sentence."""
        return [str(found) for found in self._of(True) if found.gap > self.near(resolution, widest)]

    def note(self, resolution: float, widest: float) -> str:
        """What the comparison of the server without MTP with itself has shown."""
        itself = f"{len(self._of(False))} of {self.compared[False]} answers differ"
        shift = f"at most {self.largest_shift:.3f} nats at {self.positions} places"
        near = f"a tie is near up to {self.near(resolution, widest):.3f}"
        noise = f"A/A, without MTP against itself: {itself}, the lead of the most likely token moves by {shift}; {near}"
        return "; ".join([noise, *(str(found) for found in self._of(True)[:SHOWN])])

    def _of(self, with_mtp: bool) -> list[Divergence]:
        return [found for found in self.divergences if found.with_mtp == with_mtp]


@dataclass(frozen=True)
class Fork:
    """A divergence as a reader sees it: the text that both answers share, and how each goes on."""

    divergence: Divergence
    shared: str
    tails: tuple[str, str]

    @classmethod
    def of(cls, divergence: Divergence, documents: Sequence[Mapping[str, Any]]) -> Self | None:
        """Find both answers in the looks of the load; None where no two of them part at that place."""
        ones, others = (_answers(documents, divergence.id, name) for name in divergence.between)
        for one, other in itertools.product(ones, others):
            if _place(one["token_ids"], other["token_ids"]) == divergence.place:
                texts = one["text"], other["text"]
                place = _place(*texts)
                shared = texts[0][:place]  # all of it where the answers differ in a token that is no text
                return cls(divergence, shared, (texts[0][len(shared) :], texts[1][len(shared) :]))
        return None


def _place(one: Sequence[object], other: Sequence[object]) -> int | None:
    """Where two sequences differ first; None where they are the same."""
    both = itertools.zip_longest(one, other)
    return next((place for place, (a, b) in enumerate(both) if a != b), None)


def _answers(documents: Sequence[Mapping[str, Any]], id: str, name: str) -> list[Mapping[str, Any]]:
    """What an arm, named with its concurrency as in "mtp 8", has answered to one prompt."""
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
    """Answers with MTP beside those without, in everything but their words."""

    pairs: tuple[tuple[Answer, Answer], ...]  # without, with
    pad: int
    source: str

    @classmethod
    def of(cls, load: Load, checkpoint: Mapping[str, Any]) -> Self:
        """Read the answers of every round, and which token pads."""
        pad = (checkpoint["target"]["special_tokens"] or {}).get("<pad>")
        if pad is None:
            raise ObservationError("observations/checkpoint.json: the target's tokenizer has no <pad>")
        pairs = [pair for _, each in load.rounds() for pair in zip(each.plain.answers, each.mtp.answers, strict=True)]
        return cls(tuple(pairs), pad, load.source)

    def objections(self) -> list[str]:
        """One sentence for each answer with MTP that has something wrong which the one without has not."""
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
            yield f'ends by "{mtp.finish_reason}" with MTP, by "{plain.finish_reason}" without'


def loops(tokens: Sequence[int]) -> bool:
    """Whether the end is one phrase of at most ``LONGEST_PERIOD`` tokens over and over, three times at least.

    A phrase of one token counts from twelve on: digits, blanks and rules repeat in good text.
    """
    return any(
        len(tokens) >= period * times and list(tokens[-period * times :]) == list(tokens[-period:]) * times
        for period in range(1, LONGEST_PERIOD + 1)
        for times in (max(3, 12 // period),)
    )
