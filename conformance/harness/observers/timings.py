"""Seconds for the same prompts with and without MTP: three in a row, and eight at once, servers taking turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from conformance.harness.evidence import Evidence
from conformance.harness.launch import MTP, PLAIN
from conformance.harness.observers.refusals import require_sound_pair
from conformance.harness.profile import Profile, Sizes
from conformance.harness.server import Server
from conformance.harness.servers import Servers
from conformance.harness.workload import MIXED, Answer, Client, Prompt, client, load_prompts, spread

IN_A_ROW, AT_ONCE = 3, 8  # the shape of the published figures

Timed = tuple[list[Answer], float]


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
    """Every round's seconds, output tokens and answers on each server."""
    require_sound_pair(profile, servers, evidence)
    prompts, sizes = spread(load_prompts(profile.prompts / MIXED), profile.sizes.mixed_prompts), profile.sizes
    with servers.exclusive():
        return {
            "k": profile.pair.k,
            "in_a_row": IN_A_ROW,
            "at_once": AT_ONCE,
            "sequential": _measure(
                profile, servers, plan(prompts, sizes, sizes.sequential_rounds, IN_A_ROW), Client.ask_in_turn
            ),
            "concurrent": _measure(
                profile, servers, plan(prompts, sizes, sizes.concurrent_rounds, AT_ONCE), Client.ask_at_once
            ),
        }


def _measure(
    profile: Profile, servers: Servers, rounds: Sequence[Round], ask: Callable[[Client, Sequence[Prompt]], Timed]
) -> list[dict[str, Any]]:
    timed: dict[tuple[int, int], Timed] = {}
    clients: dict[Server, Client] = {}
    with ExitStack() as opened:
        for number, place in turns(rounds, profile.hardware.two_servers):
            server = servers.mtp() if rounds[number].order[place] == MTP else servers.plain()
            if server not in clients:
                clients[server] = opened.enter_context(client(server, profile.hardware.bounds.request_seconds))
            timed[number, place] = ask(clients[server], rounds[number].prompts)
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
        "mtp_seconds": mtp[1],
        "plain_seconds": plain[1],
        "plain_again_seconds": again[0][1] if again else None,
        "mtp_tokens": [answer.output_tokens for answer in mtp[0]],
        "plain_tokens": [answer.output_tokens for answer in plain[0]],
        "mtp_answers": [answer.written() for answer in mtp[0]],
        "plain_answers": [answer.written() for answer in plain[0]],
    }
