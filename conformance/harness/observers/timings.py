"""Seconds for the same prompts with and without MTP: three in a row, and eight at once, servers taking turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from conformance.harness.evidence import Evidence
from conformance.harness.launch import MTP, PLAIN
from conformance.harness.metrics import Counters, must_agree, read_after, read_when_still
from conformance.harness.observers.refusals import require_sound_pair
from conformance.harness.profile import Profile, Sizes
from conformance.harness.server import Server
from conformance.harness.servers import Servers
from conformance.harness.workload import MIXED, Answer, Client, Prompt, client, load_prompts, spread

IN_A_ROW, AT_ONCE = 3, 8  # the shape of the published figures


@dataclass(frozen=True)
class Timed:
    """One group of prompts on one server: the answers, their seconds together, and the counters of each request."""

    answers: Sequence[Answer]
    seconds: float
    counts: Sequence[Counters | None]


@dataclass(frozen=True)
class Round:
    """One group of prompts, and the order in which the servers get it; plain twice gives the A/A comparison."""

    prompts: tuple[Prompt, ...]
    warm_up: bool
    order: tuple[str, ...]


def plan(prompts: Sequence[Prompt], sizes: Sizes, rounds: int, group: int) -> list[Round]:
    """Warm-up rounds, then ``rounds`` measured ones; the server that goes first alternates.

    Measured rounds walk through the prompts from the first one on, and begin anew at their end; warm-up rounds take
    the last prompts.
    """
    planned = []
    for number in range(-sizes.warm_up_rounds if rounds else 0, rounds):
        chosen = tuple(prompts[(number * group + place) % len(prompts)] for place in range(group))
        order: tuple[str, ...] = (MTP, PLAIN) if number % 2 == 0 else (PLAIN, MTP)
        if sizes.again_every and number >= 0 and number % sizes.again_every == 0:
            order = (*order, PLAIN)
        planned.append(Round(chosen, number < 0, order))
    return planned


def turns(rounds: Sequence[Round], together: bool) -> list[tuple[int, int]]:
    """In which order to run what: (round, place in its order).

    Round by round where both servers are up. Where only one fits, so that every change is a restart: the first half
    with MTP, everything without, the second half with MTP, which cancels a drift of the machine as alternation does.
    """
    every = [(number, place) for number, each in enumerate(rounds) for place in range(len(each.order))]
    if together:
        return every
    half = len(rounds) / 2

    def block(turn: tuple[int, int]) -> int:
        number, place = turn
        return 1 if rounds[number].order[place] == PLAIN else (0 if number < half else 2)

    return sorted(every, key=block)


def observe(profile: Profile, servers: Servers, evidence: Evidence) -> Mapping[str, Any]:
    """Every round's seconds, tokens and answers on each server; in a row, the counters of each request with MTP too."""
    require_sound_pair(profile, servers, evidence)
    prompts, sizes = spread(load_prompts(profile.prompts / MIXED), profile.sizes.mixed_prompts), profile.sizes
    with servers.exclusive():
        return {
            "k": profile.pair.k,
            "in_a_row": IN_A_ROW,
            "at_once": AT_ONCE,
            "sequential": _measure(profile, servers, plan(prompts, sizes, sizes.sequential_rounds, IN_A_ROW), _in_turn),
            "concurrent": _measure(profile, servers, plan(prompts, sizes, sizes.concurrent_rounds, AT_ONCE), _at_once),
        }


class Asking:
    """A client of one arm; of the server with MTP it reads the counters as well."""

    def __init__(self, server: Server, asking: Client, k: int | None) -> None:
        """``k`` is None for the server without MTP."""
        self.client, self._server, self._k = asking, server, k
        self._before = read_when_still(server) if k else None

    def counted(self, answer: Answer) -> Counters | None:
        """The counters of the one request since the last, outside its seconds; None without MTP."""
        if self._before is None or self._k is None:
            return None
        before, self._before = self._before, read_after(self._server, self._before, answer.output_tokens)
        must_agree(self._before - before, self._k, requests=1)
        return self._before - before


def _in_turn(asking: Asking, prompts: Sequence[Prompt]) -> Timed:
    answers, counts = [], []
    for prompt in prompts:
        answers.append(asking.client.ask(prompt))
        counts.append(asking.counted(answers[-1]))
    return Timed(answers, sum(answer.seconds for answer in answers), counts)


def _at_once(asking: Asking, prompts: Sequence[Prompt]) -> Timed:
    answers, seconds = asking.client.ask_at_once(prompts)
    return Timed(answers, seconds, [])


def _measure(
    profile: Profile, servers: Servers, rounds: Sequence[Round], ask: Callable[[Asking, Sequence[Prompt]], Timed]
) -> list[dict[str, Any]]:
    timed: dict[tuple[int, int], Timed] = {}
    arms: dict[Server, Asking] = {}
    with ExitStack() as opened:
        for number, place in turns(rounds, profile.hardware.two_servers):
            arm = rounds[number].order[place]
            server = servers.mtp() if arm == MTP else servers.plain()
            if server not in arms:
                asking = opened.enter_context(client(server, profile.hardware.bounds.request_seconds))
                arms[server] = Asking(server, asking, profile.pair.k if arm == MTP else None)
            timed[number, place] = ask(arms[server], rounds[number].prompts)
    return [_row(number, each, timed) for number, each in enumerate(rounds)]


def _row(number: int, each: Round, timed: Mapping[tuple[int, int], Timed]) -> dict[str, Any]:
    by_arm: dict[str, list[Timed]] = {MTP: [], PLAIN: []}
    for place, arm in enumerate(each.order):
        by_arm[arm].append(timed[number, place])
    (mtp,), (plain, *again) = by_arm[MTP], by_arm[PLAIN]
    return {
        "prompts": [prompt.id for prompt in each.prompts],
        "warm_up": each.warm_up,
        "order": list(each.order),
        "mtp_seconds": mtp.seconds,
        "plain_seconds": plain.seconds,
        "plain_again_seconds": again[0].seconds if again else None,
        "mtp_tokens": [answer.output_tokens for answer in mtp.answers],
        "plain_tokens": [answer.output_tokens for answer in plain.answers],
        "mtp_answers": [answer.written() for answer in mtp.answers],
        "plain_answers": [answer.written() for answer in plain.answers],
        "mtp_counts": [_counts(counted) for counted in mtp.counts if counted is not None],
    }


def _counts(counted: Counters) -> dict[str, Any]:
    return {
        "drafts": counted.drafts,
        "draft_tokens": counted.draft_tokens,
        "accepted": counted.accepted,
        "accepted_per_position": list(counted.per_position),
        "output_tokens": counted.generated,
    }
