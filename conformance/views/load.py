"""The same prompts with and without MTP: what the answers took, at each concurrency."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from conformance.errors import ObservationError, Unsupported
from conformance.judging import stats
from conformance.judging.stats import CONFIDENCE, Estimate
from conformance.profile.floors import Floor
from conformance.profile.tolerances import load_tolerances

PERCENTILES = (50, 95, 99)
MINIMUM_ROUNDS = 3  # with answers of a category, or its interval says nothing
TOKEN_BY_TOKEN = (
    "this CPU lacks the instructions by which oneDNN multiplies BF16 (such as AVX-512), so that vLLM multiplies token "
    "by token; the published figures are of machines that do not"
)


@dataclass(frozen=True)
class Counts:
    """Counters of one request, or of several that were counted together; ``name`` is the prompt's, or empty.

    ``drafts``: target steps that checked a draft; ``draft_tokens``: tokens proposed in them; ``per_position[i]``:
    drafts of which the first i + 1 tokens were all accepted (joint); ``output_tokens``: tokens of the answers.
    """

    name: str
    requests: int
    category: str
    drafts: int
    draft_tokens: int
    accepted: int
    per_position: tuple[int, ...]
    output_tokens: int

    def contradiction(self, k: int) -> str:
        """In what these counters contradict each other; empty if in nothing.

        Every step yields one token of the target's own beside the accepted ones, and each request's first token comes
        from its prompt alone. The end of an answer may cut off up to k tokens of the last step, and steps without a
        draft, at the end of the context, add some that are not counted here.
        """
        made = self.requests + self.drafts + self.accepted
        if len(self.per_position) != k:
            return f"{len(self.per_position)} positions are counted, but k is {k}"
        if self.draft_tokens != k * self.drafts:
            return f"{self.draft_tokens} tokens were drafted in {self.drafts} drafts of {k}"
        if sum(self.per_position) != self.accepted:
            return f"the positions sum to {sum(self.per_position)}, but {self.accepted} tokens were accepted"
        if list(self.per_position) != sorted(self.per_position, reverse=True) or self.per_position[0] > self.drafts:
            return f"joint counts {list(self.per_position)} of {self.drafts} drafts must not rise"
        if abs(made - self.output_tokens) > k * self.requests:
            return f"{self.output_tokens} tokens came out of {self.drafts} drafts with {self.accepted} accepted"
        return ""

    @property
    def times(self) -> int:
        """How often one prompt was asked; 1 for requests that were counted together."""
        return self.requests if self.name else 1

    def __add__(self, other: Counts) -> Counts:
        """Both together, under the name of the first."""
        return Counts(
            self.name,
            self.requests + other.requests,
            self.category,
            self.drafts + other.drafts,
            self.draft_tokens + other.draft_tokens,
            self.accepted + other.accepted,
            tuple(one + two for one, two in zip(self.per_position, other.per_position, strict=True)),
            self.output_tokens + other.output_tokens,
        )


@dataclass(frozen=True)
class Answer:
    """One answer: seconds from the request until its end and until its first token, and what was written."""

    id: str
    category: str
    seconds: float
    first_seconds: float
    gaps_ms: tuple[float, ...]
    token_ids: tuple[int, ...]
    finish_reason: str
    counts: Counts | None

    @property
    def tokens(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True)
class Block:
    """One group of prompts on one server; ``client_seconds`` is the CPU time that asking cost."""

    seconds: float
    client_seconds: float
    answers: tuple[Answer, ...]
    counts: tuple[Counts, ...]  # by request where vLLM tells, else of the whole block; empty without MTP

    @property
    def tokens(self) -> int:
        return sum(answer.tokens for answer in self.answers)


@dataclass(frozen=True)
class Round:
    """One group of prompts on each server; ``without`` is None where only the server with MTP was asked."""

    mtp: Block
    without: Block | None
    again: Block | None

    @property
    def plain(self) -> Block:
        """The same without MTP; Unsupported where nobody was asked."""
        if self.without is None:
            raise Unsupported("There was no server without MTP to compare with: attach one by --attach-plain URL.")
        return self.without


@dataclass(frozen=True)
class Pair:
    """The answers of two blocks to one prompt, and the number of the round that asked it."""

    round: int
    slower: Answer
    faster: Answer


@dataclass(frozen=True)
class Cell:
    """The measured rounds at one concurrency; their warm-up is left out by what the plan has marked so."""

    concurrency: int
    rounds: tuple[Round, ...]
    source: str

    @property
    def name(self) -> str:
        return "in a row" if self.concurrency == 1 else f"{self.concurrency} at once"

    def speedup(self, confidence: float = CONFIDENCE) -> Estimate:
        """Seconds without MTP over seconds with: in a row prompt by prompt, at once until a round's last answer.

        That is how the published figures were taken. An ObservationError where the arms did not write as much as each
        other.
        """
        mtp, plain = (sum(getattr(each, arm).tokens for each in self.rounds) for arm in ("mtp", "plain"))
        if self.rounds and abs(mtp - plain) > load_tolerances()["length_ratio"] * plain:
            raise ObservationError(f"{mtp} tokens with MTP against {plain} without: the times do not compare")
        return self._compared([(each.plain, each.mtp) for each in self.rounds], confidence)

    def against_itself(self) -> Estimate | None:
        """The same for the server without MTP against itself (A/A): the noise that a speedup is seen through."""
        pairs = [(each.plain, each.again) for each in self.rounds if each.again is not None]
        if len(pairs) < 2:
            return None
        return self._compared(pairs, CONFIDENCE)

    def noise(self) -> str:
        """A/A as a note."""
        found = self.against_itself()
        if found is None:
            return "no A/A comparison"
        return f"A/A, the server without MTP against itself: {found} (n = {found.n})"

    def by_answer(self) -> Estimate:
        """Geometric mean over prompts, of requests at once as well, where short answers wait for others' prompts."""
        return self._answers([(each.plain, each.mtp) for each in self.rounds], CONFIDENCE)

    def by_category(self) -> dict[str, Estimate]:
        """The same for each category of prompts that enough rounds have asked."""
        groups: dict[str, list[Pair]] = defaultdict(list)
        for pair in _pairs([(each.plain, each.mtp) for each in self.rounds]):
            groups[pair.slower.category].append(pair)
        enough = {name: pairs for name, pairs in groups.items() if len({p.round for p in pairs}) >= MINIMUM_ROUNDS}
        return {name: self._of_pairs(pairs, CONFIDENCE) for name, pairs in enough.items()}

    def latencies(self) -> str:
        """Decode rate, time to first token, time between tokens and to the end, without and with MTP, as a note."""
        arms = {"without": "plain", "with": "mtp"}
        said = [f"{word} MTP {_latency([getattr(each, arm) for each in self.rounds])}" for word, arm in arms.items()]
        return "; ".join(said)

    def account(self) -> str:
        """What stands beside a speedup, as a note: noise, latencies, and what asking cost."""
        blocks = [block for each in self.rounds for block in (each.mtp, each.plain)]
        cost = 1000 * sum(block.client_seconds for block in blocks) / sum(block.tokens for block in blocks)
        return (
            f"{self.name}: {self.noise()}; an answer comes {self.by_answer()} times sooner (geometric mean); "
            f"{self.latencies()}; client {cost:.2f} CPU seconds per 1,000 tokens"
        )

    def _compared(self, pairs: Sequence[tuple[Block, Block]], confidence: float) -> Estimate:
        if self.concurrency == 1:
            return self._answers(pairs, confidence)
        slower, faster = zip(*pairs, strict=True)
        return stats.speedup(
            [each.seconds for each in slower], [each.seconds for each in faster], confidence=confidence
        )

    def _answers(self, blocks: Sequence[tuple[Block, Block]], confidence: float) -> Estimate:
        return self._of_pairs(_pairs(blocks), confidence)

    def _of_pairs(self, pairs: Sequence[Pair], confidence: float) -> Estimate:
        return stats.speedup(
            [pair.slower.seconds for pair in pairs],
            [pair.faster.seconds for pair in pairs],
            strata=[pair.slower.category for pair in pairs],
            clusters=None if self.concurrency == 1 else [pair.round for pair in pairs],
            confidence=confidence,
        )


def _pairs(blocks: Sequence[tuple[Block, Block]]) -> list[Pair]:
    return [
        Pair(number, one, other)
        for number, (slower, faster) in enumerate(blocks)
        for one, other in zip(slower.answers, faster.answers, strict=True)
    ]


def _latency(blocks: Sequence[Block]) -> str:
    answers = [answer for block in blocks for answer in block.answers]
    decoding = sum(answer.seconds - answer.first_seconds for answer in answers)
    rate = sum(answer.tokens - 1 for answer in answers) / decoding if decoding > 0 else float("nan")
    gaps = [gap for answer in answers for gap in answer.gaps_ms] or [0.0]
    between = "/".join(f"{value:.0f}" for value in np.percentile(gaps, PERCENTILES))
    first = "/".join(f"{1000 * v:.0f}" for v in np.percentile([a.first_seconds for a in answers], PERCENTILES))
    end = "/".join(f"{v:.2f}" for v in np.percentile([a.seconds for a in answers], PERCENTILES))
    return (
        f"{rate:.0f} tokens/s a request, first token {first} ms, between deliveries {between} ms, "
        f"end {end} s (p{'/p'.join(map(str, PERCENTILES))})"
    )


@dataclass(frozen=True)
class Load:
    """The ``load`` observation, of one look or of several together.

    ``token_by_token``: on this CPU a linear layer takes as long for each further token, so what MTP verifies at once
    costs as much as one after another.
    """

    k: int
    cells: Mapping[int, Cell]
    source: str
    token_by_token: bool = False

    @classmethod
    def of(cls, documents: Sequence[Mapping[str, Any]]) -> Self:
        """Read the observations of the looks so far.

        ObservationError where counters contradict each other, or vLLM's count by request its count of the whole.
        """
        source = "observations/load.json" if len(documents) == 1 else f"observations/load-{len(documents)}.json"
        rounds: dict[int, list[Round]] = defaultdict(list)
        for document in documents:
            for row in document["rounds"]:
                if not row["warm_up"]:
                    rounds[row["concurrency"]].append(_round(row, document))
        cells = {concurrency: Cell(concurrency, tuple(found), source) for concurrency, found in sorted(rounds.items())}
        return cls(documents[0]["k"], cells, source, any(document.get("linear_fallback") for document in documents))

    def at(self, concurrency: int) -> Cell:
        """The rounds at one concurrency; ObservationError where there are none."""
        if concurrency not in self.cells:
            raise ObservationError(f"{self.source}: no measured rounds with {concurrency} requests at once")
        return self.cells[concurrency]

    def floor_here(self, floor: Floor) -> Floor:
        """The floor of a speedup; none where the CPU is no such machine as the figure is of."""
        return replace(floor, value=None, reason=TOKEN_BY_TOKEN) if self.token_by_token else floor

    def rounds(self) -> Iterator[tuple[int, Round]]:
        """Every measured round with its concurrency."""
        return ((cell.concurrency, each) for cell in self.cells.values() for each in cell.rounds)

    def pays(self) -> str:
        """Up to how many requests at once MTP is faster, as a sentence."""
        found = {concurrency: cell.speedup() for concurrency, cell in self.cells.items()}
        pays = [concurrency for concurrency, estimate in found.items() if estimate.low > 1]
        costs = [concurrency for concurrency, estimate in found.items() if estimate.high < 1]
        grid = ", ".join(f"{concurrency}: {estimate}" for concurrency, estimate in found.items())
        if not pays:
            said = f"MTP does not pay at k = {self.k}" if costs else f"whether MTP pays at k = {self.k} is not settled"
        elif len(pays) == len(found):
            said = f"MTP pays at k = {self.k} up to concurrency {max(pays)}, the most that was tried"
        else:
            rest = ", ".join(str(c) for c in found if c not in pays)
            said = f"MTP pays at k = {self.k} at concurrency {', '.join(map(str, pays))}, not shown at {rest}"
        return f"{said} (speedup by concurrency: {grid})"


def _round(row: Mapping[str, Any], document: Mapping[str, Any]) -> Round:
    plain, again = row["plain"], row["plain_again"]
    return Round(
        _block(row["mtp"], row, document),
        _block(plain, row, document) if plain else None,
        _block(again, row, document) if again else None,
    )


def _block(block: Mapping[str, Any], row: Mapping[str, Any], document: Mapping[str, Any]) -> Block:
    k, prompts = document["k"], document["prompts"]
    answers = tuple(
        _answer(id, prompts[id]["category"], found, k)
        for id, found in zip(row["prompts"], block["answers"], strict=True)
    )
    by_request = tuple(answer.counts for answer in answers if answer.counts is not None)
    counts: tuple[Counts, ...] = ()
    if block["counted"] is not None:
        categories = {answer.category for answer in answers}
        whole = _counts(block["counted"], len(answers), categories.pop() if len(categories) == 1 else "mixed", k)
        counts = by_request if len(by_request) == len(answers) else (whole,)
        _must_sum(counts, whole)
    return Block(block["seconds"], block["client_seconds"], answers, counts)


def _answer(id: str, category: str, found: Mapping[str, Any], k: int) -> Answer:
    if len(found["token_ids"]) != found["tokens"]:
        raise ObservationError(f"{id}: {len(found['token_ids'])} token ids for {found['tokens']} output tokens")
    return Answer(
        id=id,
        category=category,
        seconds=found["seconds"],
        first_seconds=found["first_seconds"],
        gaps_ms=tuple(found["gaps_ms"]),
        token_ids=tuple(found["token_ids"]),
        finish_reason=found["finish_reason"],
        counts=None if found["counts"] is None else _counts(found["counts"], 1, category, k, id),
    )


def _counts(found: Mapping[str, Any], requests: int, category: str, k: int, id: str = "") -> Counts:
    counts = Counts(
        id,
        requests,
        category,
        found["drafts"],
        found["draft_tokens"],
        found["accepted"],
        tuple(found["accepted_per_position"]),
        found["output_tokens"],
    )
    if wrong := counts.contradiction(k):
        raise ObservationError(f"the counters of {f'prompt {id}' if id else 'a round'} contradict each other: {wrong}")
    return counts


def _must_sum(parts: Sequence[Counts], whole: Counts) -> None:
    """vLLM's count by request must be what /metrics counted meanwhile, or somebody else sent requests."""
    for name in ("drafts", "draft_tokens", "accepted", "output_tokens"):
        summed = sum(getattr(part, name) for part in parts)
        if summed != getattr(whole, name):
            raise ObservationError(
                f"{name}: the requests of a round sum to {summed}, but /metrics counted {getattr(whole, name)}"
            )
