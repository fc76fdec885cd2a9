"""A sweep of k: seconds and accepted tokens for a few prompts at every k, without MTP, and at the pair's own k."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from conformance.errors import ObservationError
from conformance.evidence.folder import Evidence
from conformance.observers.draft_load import ask
from conformance.observers.load import counts, counts_of
from conformance.observers.refusals import require_sound_pair
from conformance.profile.arms import MTP, PLAIN, SWEEP
from conformance.profile.profile import Profile, Sizes
from conformance.serving.command import with_draft_length
from conformance.serving.metrics import read_after, read_when_still
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.workload.client import Answer, Client, client
from conformance.workload.prompts import MIXED, Prompt, load_prompts, spread

FEWEST = 3  # swept draft lengths, in any case
SUMMED = ("drafts", "draft_tokens", "accepted")


@dataclass(frozen=True)
class Arm:
    """A server and its k: without MTP (k = 0), the one under test, or the swept one."""

    server: str
    k: int


def arms(profile: Profile) -> list[Arm]:
    """All arms; the swept server has k = 1 up to the longest draft."""
    swept = [Arm(SWEEP, k) for k in range(1, profile.sizes.sweep_longest_draft + 1)]
    return [Arm(PLAIN, 0), Arm(MTP, profile.pair.k), *swept]


def turns(every: Sequence[Arm], prompts: Sequence[Prompt]) -> list[tuple[Arm, Prompt]]:
    """Every prompt on all arms, in alternating order of the arms, so that a drift of the machine cancels."""
    return [
        (arm, prompt)
        for number, prompt in enumerate(prompts)
        for arm in (every if number % 2 == 0 else list(reversed(every)))
    ]


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """A row for each prompt and arm, and the counters of each server with MTP over all its rows.

    Raises:
        ObservationError: a server failed, or an answer has no token.
        Unsupported: the servers are attached, or this vLLM cannot change k.
    """
    servers.require_own_servers("its draft length is not changed")
    require_sound_pair(profile, servers, evidence)
    chosen = spread(load_prompts(profile.prompts / MIXED), profile.sizes.sweep_prompts)
    prompts = [replace(each, max_tokens=profile.sizes.sweep_tokens) for each in chosen]
    if profile.hardware.sweep == "probe":
        with servers.quiet():
            rows, counted = _by_probe(profile, servers, prompts)
    else:
        rows, counted = _by_restart(profile, servers, prompts)
    return {"k": profile.pair.k, "method": profile.hardware.sweep, "rows": rows, "counted": counted}


class _Asked:
    """A server with its client, the counts of its rows, and its counters."""

    def __init__(self, server: Server, asking: Client, drafts: bool, warm_up: Prompt) -> None:
        self.server, self._client = server, asking
        before = read_when_still(server) if drafts else None
        tokens = asking.ask(warm_up, stream=True, ignore_eos=True).output_tokens
        self._first = self._before = read_after(server, before, tokens) if before else None
        self._tokens = 0

    def row(self, arm: Arm, prompt: Prompt) -> dict[str, Any]:
        """Ask one prompt alone.

        Raises:
            ObservationError: the answer has no token.
        """
        answer = self._client.ask(prompt, stream=True, ignore_eos=True)  # short answers have too few steps for timing
        self._tokens += answer.output_tokens
        if not answer.arrivals:
            raise ObservationError(f"{self.server.name} server: the answer to {prompt.id} has no token")
        return {
            "server": self.server.name,
            "k": arm.k,
            "prompt": prompt.id,
            "seconds": answer.seconds,
            "first_token_seconds": answer.arrivals[0],
            "output_tokens": answer.output_tokens,
            "token_ids": list(answer.token_ids),
            **self._counts(arm, answer),
        }

    def _counts(self, arm: Arm, answer: Answer) -> dict[str, Any]:
        if self._before is None:
            return {**dict.fromkeys(SUMMED, 0), "accepted_per_position": []}
        if answer.speculation is not None:
            found = counts_of(answer.speculation, answer.output_tokens)
        else:
            before, self._before = self._before, read_after(self.server, self._before, answer.output_tokens)
            found = counts(self._before - before)
        positions = found["accepted_per_position"][: arm.k]
        return {**{name: found[name] for name in SUMMED}, "accepted_per_position": positions}

    def counted(self) -> dict[str, Any] | None:
        """The counters over all rows; None without MTP.

        Raises:
            ObservationError: the counters contradict the answers.
        """
        if self._first is None:
            return None
        last = read_after(self.server, self._first, self._tokens) - self._first
        return {"server": self.server.name, **{name: getattr(last, name) for name in SUMMED}}


@contextmanager
def _asked(server: Server, profile: Profile, drafts: bool, warm_up: Prompt) -> Iterator[_Asked]:
    with client(server, profile.hardware.bounds.request_seconds) as asking:
        yield _Asked(server, asking, drafts, warm_up)


def _by_probe(
    profile: Profile, servers: ServerPool, prompts: Sequence[Prompt]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Use one server and set its k before each request."""
    planned = turns(arms(profile), prompts)
    if not profile.hardware.two_servers:  # every change is a restart
        planned.sort(key=lambda turn: turn[0].server)
    last = {arm.server: place for place, (arm, _) in enumerate(planned)}
    running = {PLAIN: servers.plain, MTP: servers.mtp, SWEEP: servers.sweep}
    asked, rows, counted, length = dict[str, _Asked](), [], [], 0
    with ExitStack() as opened:
        for place, (arm, prompt) in enumerate(planned):
            if arm.server not in asked:
                made = _asked(running[arm.server](), profile, arm.k > 0, prompts[0])
                asked[arm.server] = opened.enter_context(made)
            if arm.server == SWEEP and arm.k != length:
                length = arm.k
                ask(asked[SWEEP].server, "conformance_draft_length", profile.hardware.bounds.request_seconds, k=length)
            rows.append(asked[arm.server].row(arm, prompt))
            if place == last[arm.server]:  # if only one server fits, the next turn stops it
                counted += _totals(asked[arm.server])
    return rows, counted


def _by_restart(
    profile: Profile, servers: ServerPool, prompts: Sequence[Prompt]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Start a server for each k: the few that a line needs at once, then one after another while time allows."""
    rows, counted = list[dict[str, Any]](), list[dict[str, Any]]()

    def ask_all(arm: Arm, server: Server) -> None:
        servers.tell(f"sweep: asking at k = {arm.k}" if arm.k else "sweep: asking without MTP")
        with _asked(server, profile, arm.k > 0, prompts[0]) as asked:
            rows.extend(asked.row(arm, prompt) for prompt in prompts)
            counted.extend(_totals(asked))

    with servers.quiet():
        ask_all(Arm(PLAIN, 0), servers.plain())
        ask_all(Arm(MTP, profile.pair.k), servers.mtp())
    ordered = lengths(profile.pair.k, profile.sizes.sweep_longest_draft)
    first, others = ordered[:FEWEST], ordered[FEWEST:]
    begin = time.monotonic()
    for place, ks in enumerate([first, *([k] for k in others)]):
        took = time.monotonic() - begin
        if place and no_time_left(profile.sizes, took, place):
            servers.tell(f"sweep: no time for k = {', '.join(map(str, others[place - 1 :]))} after {took:.0f} s")
            break
        servers.tell(f"sweep: starting a server for k = {', '.join(map(str, ks))}")
        changes = {f"{SWEEP}-{k}": partial(with_draft_length, k=k) for k in ks}
        with closing(servers.extras(changes)) as started:
            for k, server in zip(ks, started, strict=True):
                ask_all(Arm(SWEEP, k), server)
    return rows, counted


def no_time_left(sizes: Sizes, took: float, count: int) -> bool:
    """Whether one more k would end after the time that the level allows, as ``count`` of them took so many seconds."""
    return bool(sizes.sweep_seconds) and took * (1 + 1 / count) > sizes.sweep_seconds


def lengths(own: int, longest: int) -> list[int]:
    """The swept k: the pair's own, the ends, and then always the middle of the widest gap."""
    found = list(dict.fromkeys((own, 1, longest)))
    while len(found) < longest:
        known = sorted(found)
        low, high = max(itertools.pairwise(known), key=lambda ends: ends[1] - ends[0])
        found.append((low + high) // 2)
    return found


def _totals(asked: _Asked) -> list[dict[str, Any]]:
    counted = asked.counted()
    return [] if counted is None else [counted]
