"""The same prompts with and without MTP: the time of the answers at each concurrency."""

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
MINIMUM_ROUNDS = 3  # with answers of a category; with fewer, its interval has no meaning
TOGETHER = "mixed"  # the category of requests of several categories that were counted together
TOKEN_BY_TOKEN = (
    "this CPU lacks the BF16 instructions that oneDNN needs (such as AVX-512); vLLM multiplies token by token on it, "
    "unlike on the machines of the published figures"
)


@dataclass(frozen=True)
class Counts:
    """The counters of one request, or of several requests together; ``name`` is the prompt's name or empty.

    ``drafts``: target steps that verified a draft; ``draft_tokens``: tokens that these drafts proposed;
    ``per_position[i]``: drafts whose first i + 1 tokens were all accepted (joint); ``output_tokens``: tokens of the
    answers.
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
        """How these counters contradict each other; empty if they do not.

        Every step yields one token of the target beside the accepted tokens, and the first token of each request comes
        from its prompt alone. The end of an answer may cut off up to k tokens of the last step, and steps without a
        draft, at the end of the context, add tokens that are not counted here.
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
            counted = f"{self.drafts} drafts with {self.accepted} accepted tokens"
            return f"{self.output_tokens} output tokens do not fit {counted}"
        return ""

    @property
    def times(self) -> int:
        """How often the prompt was asked; 1 for requests that were counted together."""
        return self.requests if self.name else 1

    def __add__(self, other: Counts) -> Counts:
        """The sum of both, under the name of the first."""
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
    """One answer: seconds from the request to its end and to its first token, its tokens, and those of its prompt."""

    id: str
    category: str
    seconds: float
    first_seconds: float
    gaps_ms: tuple[float, ...]
    token_ids: tuple[int, ...]
    finish_reason: str
    counts: Counts | None
    prompt_tokens: int

    @property
    def tokens(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True)
class Block:
    """One group of prompts on one server; ``client_seconds`` is the CPU time of the client."""

    seconds: float
    client_seconds: float
    answers: tuple[Answer, ...]
    counts: tuple[Counts, ...]  # by request if vLLM reports them, else of the whole block; empty without MTP

    @property
    def tokens(self) -> int:
        return sum(answer.tokens for answer in self.answers)

    def paired(self, other: Block) -> list[tuple[Answer, Answer]]:
        """The answers of both blocks, prompt by prompt."""
        return list(zip(self.answers, other.answers, strict=True))


@dataclass(frozen=True)
class Round:
    """One group of prompts on each server; ``without`` is None if only the server with MTP was asked."""

    mtp: Block
    without: Block | None
    again: Block | None

    @property
    def plain(self) -> Block:
        """The block of the server without MTP.

        Raises:
            Unsupported: there was no server without MTP.
        """
        if self.without is None:
            raise Unsupported("There was no server without MTP to compare with: attach one by --attach-plain URL.")
        return self.without


@dataclass(frozen=True)
class Pair:
    """The answers of two blocks to one prompt, and the number of their round."""

    round: int
    slower: Answer
    faster: Answer


@dataclass(frozen=True)
class Cell:
    """The measured rounds at one concurrency, without the rounds that the plan marks as warm-up."""

    concurrency: int
    rounds: tuple[Round, ...]
    source: str

    @property
    def name(self) -> str:
        return "in a row" if self.concurrency == 1 else f"{self.concurrency} at once"

    def speedup(self, confidence: float = CONFIDENCE) -> Estimate:
        """Seconds without MTP over seconds with MTP, as the published figures were measured.

        Requests in a row are compared prompt by prompt, concurrent ones by the time to the last answer of a round.

        Raises:
            ObservationError: the two arms wrote different amounts of text.
            Unsupported: there was no server without MTP.
        """
        mtp, plain = (sum(getattr(each, arm).tokens for each in self.rounds) for arm in ("mtp", "plain"))
        if self.rounds and abs(mtp - plain) > load_tolerances()["length_ratio"] * plain:
            raise ObservationError(f"{mtp} tokens with MTP against {plain} without: the times do not compare")
        return self._compared([(each.plain, each.mtp) for each in self.rounds], confidence)

    def against_itself(self) -> Estimate | None:
        """The same for the server without MTP against itself (A/A), which shows the noise of a speedup."""
        pairs = [(each.plain, each.again) for each in self.rounds if each.again is not None]
        if len(pairs) < 2:
            return None
        return self._compared(pairs, CONFIDENCE)

    def noise(self) -> str:
        """The A/A comparison as a note."""
        found = self.against_itself()
        if found is None:
            return "no A/A comparison"
        return f"A/A, the server without MTP against itself: {found} (n = {found.n})"

    def by_answer(self) -> Estimate:
        """The geometric mean of the speedups of single answers; concurrent short answers wait for other prompts."""
        return self._answers([(each.plain, each.mtp) for each in self.rounds], CONFIDENCE)

    def by_category(self) -> dict[str, Estimate]:
        """The same for each category of prompts that occurs in enough rounds."""
        groups: dict[str, list[Pair]] = defaultdict(list)
        for pair in _pairs([(each.plain, each.mtp) for each in self.rounds]):
            groups[pair.slower.category].append(pair)
        enough = {name: pairs for name, pairs in groups.items() if len({p.round for p in pairs}) >= MINIMUM_ROUNDS}
        return {name: self._of_pairs(pairs, CONFIDENCE) for name, pairs in enough.items()}

    def latencies(self) -> str:
        """As a note: decode rate, and times to the first token, between deliveries, and in all, in both arms."""
        arms = {"without": "plain", "with": "mtp"}
        said = [f"{word} MTP {_latency([getattr(each, arm) for each in self.rounds])}" for word, arm in arms.items()]
        return "; ".join(said)

    def account(self) -> str:
        """As a note beside a speedup: the noise, the latencies, and the CPU time of the client."""
        blocks = [block for each in self.rounds for block in (each.mtp, each.plain)]
        cost = 1000 * sum(block.client_seconds for block in blocks) / sum(block.tokens for block in blocks)
        return (
            f"{self.name}: {self.noise()}; speedup of single answers {self.by_answer()} (geometric mean); "
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
        for one, other in slower.paired(faster)
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
        f"{rate:.0f} tokens/s per request, time to first token {first} ms, time between deliveries {between} ms, "
        f"total time {end} s (p{'/p'.join(map(str, PERCENTILES))})"
    )


@dataclass(frozen=True)
class Load:
    """The ``load`` observation of one group-sequential look, or of several looks together.

    ``token_by_token``: on this CPU a linear layer takes the same time for each further token, so MTP saves no time by
    verifying several tokens together.
    """

    k: int
    cells: Mapping[int, Cell]
    source: str
    token_by_token: bool = False

    @classmethod
    def of(cls, documents: Sequence[Mapping[str, Any]]) -> Self:
        """Read the observations of the looks so far.

        Raises:
            ObservationError: counters contradict each other, or the counts by request contradict the total counts.
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
        """The rounds at one concurrency.

        Raises:
            ObservationError: there are none.
        """
        if concurrency not in self.cells:
            raise ObservationError(f"{self.source}: no measured rounds with {concurrency} requests at once")
        return self.cells[concurrency]

    def floor_here(self, floor: Floor) -> Floor:
        """The floor of a speedup, without its value if the published figure does not apply to this CPU."""
        return replace(floor, value=None, reason=TOKEN_BY_TOKEN) if self.token_by_token else floor

    def rounds(self) -> Iterator[tuple[int, Round]]:
        """Every measured round with its concurrency."""
        return ((cell.concurrency, each) for cell in self.cells.values() for each in cell.rounds)

    def pays(self) -> str:
        """A sentence that says up to which concurrency MTP is faster."""
        found = {concurrency: cell.speedup() for concurrency, cell in self.cells.items()}
        faster = [concurrency for concurrency, estimate in found.items() if estimate.low > 1]
        slower = [concurrency for concurrency, estimate in found.items() if estimate.high < 1]
        grid = ", ".join(f"{concurrency}: {estimate}" for concurrency, estimate in found.items())
        if not faster:
            said = (
                f"MTP is not faster at k = {self.k}" if slower else f"it is open whether MTP is faster at k = {self.k}"
            )
        elif len(faster) == len(found):
            said = f"MTP is faster at k = {self.k} up to concurrency {max(faster)}, the highest tested"
        else:
            rest = ", ".join(str(c) for c in found if c not in faster)
            known = ", ".join(map(str, faster))
            said = f"MTP is faster at k = {self.k} at concurrency {known}; this is not shown at {rest}"
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
        _answer(id, prompts[id], found, k) for id, found in zip(row["prompts"], block["answers"], strict=True)
    )
    by_request = tuple(answer.counts for answer in answers if answer.counts is not None)
    counts: tuple[Counts, ...] = ()
    if block["counted"] is not None:
        categories = {answer.category for answer in answers}
        whole = _counts(block["counted"], len(answers), categories.pop() if len(categories) == 1 else TOGETHER, k)
        counts = by_request if len(by_request) == len(answers) else (whole,)
        _check_sums(counts, whole)
    return Block(block["seconds"], block["client_seconds"], answers, counts)


def _answer(id: str, prompt: Mapping[str, Any], found: Mapping[str, Any], k: int) -> Answer:
    category = prompt["category"]
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
        prompt_tokens=len(prompt["token_ids"]),
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


def _check_sums(parts: Sequence[Counts], whole: Counts) -> None:
    """Require that the counts by request equal what /metrics counted meanwhile; other clients would change it.

    Raises:
        ObservationError: the counts differ.
    """
    for name in ("drafts", "draft_tokens", "accepted", "output_tokens"):
        summed = sum(getattr(part, name) for part in parts)
        if summed != getattr(whole, name):
            raise ObservationError(
                f"{name}: the requests of a round sum to {summed}, but /metrics counted {getattr(whole, name)}"
            )
