"""A load of the same prompts with and without MTP, one after another and at once; the servers take turns.

Acceptance, equality of texts and speed are all judged by this one observation of answers, seconds and counters.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from conformance.errors import ObservationError
from conformance.evidence.folder import Evidence
from conformance.observers.refusals import require_sound_pair
from conformance.profile.arms import MTP, PLAIN
from conformance.profile.profile import Profile, Sizes
from conformance.serving import logs
from conformance.serving.metrics import Counters, read_after, read_when_still, require_consistent_counts
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.views.load import Load
from conformance.workload.client import Answer, Client, client
from conformance.workload.prompts import MIXED, Prompt, load_prompts, spread

WARM_UP_TOKENS = 16
LINEAR_FALLBACK = r"Failed to create oneDNN linear, fallback to torch linear"  # vllm/model_executor/layers/utils.py


@dataclass(frozen=True)
class Round:
    """One group of prompts, and the order in which the servers get it; PLAIN twice is the A/A comparison."""

    concurrency: int
    prompts: tuple[Prompt, ...]
    warm_up: bool
    order: tuple[str, ...]
    spare: bool = False  # only run while the speedup at this concurrency is not exact enough
    more: bool = False  # such a round that only counts where both servers run, and time is left


@dataclass(frozen=True)
class Block:
    """One group of prompts on one server."""

    answers: Sequence[Answer]
    seconds: float
    client_seconds: float  # CPU time of this process
    counted: Counters | None  # from /metrics; None without MTP


@dataclass(frozen=True)
class Asked:
    """One answer, and the client's CPU time for it."""

    answer: Answer
    client_seconds: float


Blocks = dict[int, Block]  # by position in the order of their round


def plan(prompts: Sequence[Prompt], sizes: Sizes, look: int) -> list[Round]:
    """Warm-up, measured and spare rounds for each concurrency; the server that goes first alternates.

    Measured rounds take the prompts in order, across concurrencies and looks, and begin again after the last prompt.
    Spare rounds continue after them. Warm-up rounds use the last prompts with short answers.
    """
    every = sizes.by_concurrency()
    asked = sum(rounds * Sizes.requests_of(concurrency) for concurrency, rounds in every.items())
    place, spare, planned = (look - 1) * asked, look * asked, []
    for concurrency, rounds in every.items():
        size = Sizes.requests_of(concurrency)
        last = rounds + sizes.spare(concurrency) + sizes.more(concurrency)
        for number in range(-sizes.warm_up_rounds if rounds else 0, last):
            start = -size if number < 0 else place if number < rounds else spare
            chosen = [prompts[(start + step) % len(prompts)] for step in range(size)]
            planned.append(_round(concurrency, chosen, number, sizes))
            place += size if 0 <= number < rounds else 0
            spare += size if number >= rounds else 0
    return planned


def plan_for_servers(prompts: Sequence[Prompt], sizes: Sizes, look: int, both: bool) -> list[Round]:
    """The plan for both servers, or only for the one with MTP if there is no other."""
    rounds = plan(prompts, sizes, look)
    return rounds if both else [replace(each, order=(MTP,)) for each in rounds if not each.spare]


def _round(concurrency: int, prompts: Sequence[Prompt], number: int, sizes: Sizes) -> Round:
    order: tuple[str, ...] = (MTP, PLAIN) if number % 2 == 0 else (PLAIN, MTP)
    if sizes.again_every and number >= 0 and number % sizes.again_every == 0:
        order = (*order, PLAIN)
    longest = WARM_UP_TOKENS if number < 0 else sizes.longest_answer
    chosen = tuple(cut(prompt, longest) for prompt in prompts)
    spare = number - sizes.by_concurrency()[concurrency]
    more = spare >= sizes.spare(concurrency)
    return Round(concurrency, chosen, number < 0, order, spare=spare >= 0, more=more)


def cut(prompt: Prompt, longest: int) -> Prompt:
    """The prompt with its answer limited to so many tokens; 0 keeps the limit of the prompt."""
    return replace(prompt, max_tokens=min(prompt.max_tokens, longest)) if longest else prompt


def turns(rounds: Sequence[Round], together: bool) -> list[tuple[int, tuple[int, ...]]]:
    """The order of work: pairs of a round and positions in its order.

    If both servers run, the rounds follow one another. If only one fits, every change is a restart, so the order is:
    the first half with MTP, everything without, the second half with MTP. This cancels a drift of the machine too.
    """
    if together:
        return [(number, tuple(range(len(each.order)))) for number, each in enumerate(rounds)]
    half = len(rounds) / 2

    def block(number: int, place: int) -> int:
        return 1 if rounds[number].order[place] == PLAIN else (0 if number < half else 2)

    every = [(number, place) for number, each in enumerate(rounds) for place in range(len(each.order))]
    return [(number, (place,)) for number, place in sorted(every, key=lambda turn: block(*turn))]


def observe(profile: Profile, servers: ServerPool, evidence: Evidence, look: int = 1) -> Mapping[str, Any]:
    """Every round of every concurrency on each server; ``look`` 2 continues after 1.

    Raises:
        ObservationError: a server failed or its counters contradict the answers.
        Unsupported: there is no server without MTP, but a look needs one.
    """
    require_sound_pair(profile, servers, evidence)
    prompts = spread(load_prompts(profile.prompts / MIXED), profile.sizes.mixed_prompts)
    with servers.quiet():
        said = logs.lines_with(logs.read(servers.mtp().log), LINEAR_FALLBACK)  # this server starts first in any case
        done = _run_rounds(profile, servers, plan_for_servers(prompts, profile.sizes, look, servers.has_plain_server))
    return _document(profile.pair.k, done) | {"linear_fallback": said[0] if said else None}


def _document(k: int, done: Sequence[tuple[Round, Blocks]]) -> dict[str, Any]:
    answers = [answer for _, blocks in done for block in blocks.values() for answer in block.answers]
    tokens = {answer.id: list(answer.prompt_ids) for answer in answers}
    asked = {prompt.id: prompt for each, _ in done for prompt in each.prompts}
    return {
        "k": k,
        "prompts": {id: {"category": prompt.category, "token_ids": tokens[id]} for id, prompt in asked.items()},
        "rounds": [_row(each, blocks) for each, blocks in done],
    }


class Arm:
    """One server, its client, and, with MTP, its counters after the last block."""

    def __init__(self, server: Server, asking: Client, k: int | None) -> None:
        """``k`` is None for the server without MTP."""
        self._server, self._client, self._k = server, asking, k
        self._before = read_when_still(server) if k else None

    def ask(self, prompt: Prompt) -> Asked:
        """Ask one prompt."""
        begin = time.process_time()
        answer = self._client.ask(prompt, stream=True)
        return Asked(answer, time.process_time() - begin)

    def in_a_row(self, asked: Sequence[Asked]) -> Block:
        """The block of answers that were asked one after another; reading the counters is not timed.

        Raises:
            ObservationError: the counters contradict the answers.
        """
        answers = [each.answer for each in asked]
        seconds = sum(answer.seconds for answer in answers)
        return Block(answers, seconds, sum(each.client_seconds for each in asked), self._counted(answers))

    def at_once(self, prompts: Sequence[Prompt]) -> Block:
        """Ask all prompts at once; reading the counters is not timed.

        Raises:
            ObservationError: an answer failed, or the counters contradict the answers.
        """
        begin = time.process_time()
        answers, seconds = self._client.ask_at_once(prompts, stream=True)
        client_seconds = time.process_time() - begin
        return Block(answers, seconds, client_seconds, self._counted(answers))

    def _counted(self, answers: Sequence[Answer]) -> Counters | None:
        if self._before is None or self._k is None:
            return None
        before, tokens = self._before, sum(answer.output_tokens for answer in answers)
        self._before = read_after(self._server, before, tokens)
        counted = self._before - before
        require_consistent_counts(counted, self._k, requests=len(answers))
        return counted


def run_round(each: Round, arms: Sequence[Arm]) -> list[Block]:
    """Run the prompts of a round on every arm; one after another, arms alternate at every prompt to share noise."""
    if each.concurrency > 1:
        return [arm.at_once(each.prompts) for arm in arms]
    asked = [[arm.ask(prompt) for arm in arms] for prompt in each.prompts]
    return [arm.in_a_row(mine) for arm, mine in zip(arms, zip(*asked, strict=True), strict=True)]


def _run_rounds(profile: Profile, servers: ServerPool, rounds: Sequence[Round]) -> list[tuple[Round, Blocks]]:
    """Run the rounds and return each with its blocks; spare rounds that are not needed are left out.

    If only one server fits, all rounds but the additional ones are run: whether the spare ones are needed is known when
    both servers have run.
    """
    together, sizes = profile.hardware.two_servers, profile.sizes
    rounds = [each for each in rounds if together or not each.more]
    done, arms, spent = dict[int, Blocks](), dict[Server, Arm](), defaultdict[int, float](float)
    live = ""

    def finished() -> list[tuple[Round, Blocks]]:
        return [(rounds[number], done[number]) for number in sorted(done)]

    def known(concurrency: int) -> bool:
        alike = [(each, blocks) for each, blocks in finished() if each.concurrency == concurrency]
        try:
            return half_width(profile.pair.k, alike) <= sizes.half_width
        except ObservationError:  # more rounds do not help, and the checks report the error
            return True

    with ExitStack() as opened:

        def running(arm: str) -> Arm:
            server = servers.mtp() if arm == MTP else servers.plain()
            if server not in arms:
                asking = opened.enter_context(client(server, profile.hardware.bounds.request_seconds))
                arms[server] = Arm(server, asking, profile.pair.k if arm == MTP else None)
            return arms[server]

        for number, places in turns(rounds, together):
            each, begin = rounds[number], time.monotonic()
            if each.more and (spent[each.concurrency] > sizes.more_seconds):
                continue
            if each.spare and together and known(each.concurrency):
                spent[each.concurrency] = math.inf
                continue
            servers.tell(f"{each.concurrency} at once, round {number + 1} of at most {len(rounds)}{live}")
            asked = [running(each.order[place]) for place in places]
            blocks = run_round(each, asked)
            if each.warm_up:
                blocks = _until_still(each, asked, blocks, begin, sizes)
            spent[each.concurrency] += (time.monotonic() - begin) * each.spare
            done.setdefault(number, {}).update(zip(places, blocks, strict=True))
            live = _live(blocks) or live
    return finished()


def _live(blocks: Sequence[Block]) -> str:
    """Acceptance length and speed of these blocks with MTP, for the user who waits; empty if none has MTP."""
    with_mtp = [(block, block.counted) for block in blocks if block.counted and block.counted.drafts]
    if not with_mtp:
        return ""
    length = 1 + sum(each.accepted for _, each in with_mtp) / sum(each.drafts for _, each in with_mtp)
    speed = sum(each.generated for _, each in with_mtp) / sum(block.seconds for block, _ in with_mtp)
    return f": acceptance length {length:.2f}, {speed:.0f} tokens/s with MTP"


def _until_still(each: Round, arms: Sequence[Arm], blocks: list[Block], begin: float, sizes: Sizes) -> list[Block]:
    """The blocks of the last warm-up round: it is repeated while a server still gets faster and there is time."""
    while time.monotonic() - begin < sizes.warm_up_seconds:
        before, blocks = blocks, run_round(each, arms)
        if all(now.seconds >= (1 - sizes.still) * then.seconds for now, then in zip(blocks, before, strict=True)):
            break
    return blocks


def half_width(k: int, done: Sequence[tuple[Round, Blocks]]) -> float:
    """The half-width of the speedup, relative to it, as it will be judged; all rounds have one concurrency."""
    (cell,) = Load.of([_document(k, done)]).cells.values()
    return cell.speedup().half_width


def _row(each: Round, done: Blocks) -> dict[str, Any]:
    blocks: dict[str, list[dict[str, Any] | None]] = {MTP: [], PLAIN: []}
    for place, arm in enumerate(each.order):
        blocks[arm].append(as_row(done[place]))
    (mtp,), (plain, again) = blocks[MTP], [*blocks[PLAIN], None, None][:2]
    return {
        "concurrency": each.concurrency,
        "prompts": [prompt.id for prompt in each.prompts],
        "warm_up": each.warm_up,
        "order": list(each.order),
        "mtp": mtp,
        "plain": plain,
        "plain_again": again,
    }


def as_row(block: Block) -> dict[str, Any]:
    """A block in the form that evidence keeps."""
    return {
        "seconds": block.seconds,
        "client_seconds": block.client_seconds,
        "counted": None if block.counted is None else counts(block.counted),
        "answers": [_answer(answer) for answer in block.answers],
    }


def _answer(answer: Answer) -> dict[str, Any]:
    first, *_ = (*answer.arrivals, answer.seconds)
    return {
        "seconds": answer.seconds,
        "first_seconds": first,
        "gaps_ms": [round(1000 * gap, 2) for gap in _gaps(answer.arrivals)],
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "tokens": answer.output_tokens,
        "token_ids": list(answer.token_ids),
        "counts": None if answer.speculation is None else counts_of(answer.speculation, answer.output_tokens),
    }


def _gaps(arrivals: Sequence[float]) -> Iterator[float]:
    return (later - earlier for earlier, later in itertools.pairwise(arrivals))


def counts_of(speculation: Mapping[str, Any], output_tokens: int) -> dict[str, Any]:
    """vLLM's own count of one request (a histogram over the accepted tokens of a draft) as counters."""
    histogram: list[int] = speculation["acceptance_histogram"]
    per_position = [sum(histogram[position:]) for position in range(1, len(histogram))]
    return {
        "drafts": sum(histogram),
        "draft_tokens": speculation["num_draft_tokens"],
        "accepted": sum(per_position),
        "accepted_per_position": per_position,
        "output_tokens": output_tokens,
    }


def counts(counted: Counters) -> dict[str, Any]:
    """The counters of /metrics in the form that evidence keeps."""
    return {
        "drafts": counted.drafts,
        "draft_tokens": counted.draft_tokens,
        "accepted": counted.accepted,
        "accepted_per_position": list(counted.per_position),
        "output_tokens": counted.generated,
    }
