"""How fast every k is, and no MTP, for several numbers of requests at once, at the published acceptance rates.

vLLM decides about drafts by random numbers at these rates, so that only the cost of a step differs from k to k. Each k
takes turns with the server without MTP, where two servers fit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from conformance.errors import ObservationError
from conformance.evidence.folder import Evidence
from conformance.observers.calibration import synthetic_acceptance
from conformance.observers.draft_load import ask
from conformance.observers.load import WARM_UP_TOKENS, cut
from conformance.observers.refusals import require_sound_pair
from conformance.observers.sweep import lengths, no_time_left
from conformance.profile.arms import PLAIN, SYNTHETIC
from conformance.profile.graph_options import graph_options
from conformance.profile.known_rates import PUBLISHED, Rates, load_plan
from conformance.profile.profile import Profile
from conformance.serving.command import Launch, captures, synthetic, with_draft_length
from conformance.serving.metrics import read_after, read_when_still
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.workload.client import Client, client
from conformance.workload.prompts import MIXED, Prompt, load_prompts, spread

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is asked of every server: for each number of requests at once, the same prompts in every round."""

    numbers: tuple[int, ...]
    rounds: int
    prompts: tuple[Prompt, ...]  # at least as many as requests at once
    seconds: float  # for one request


class Arm:
    """A server, its client and its k; 0 without MTP."""

    def __init__(self, server: Server, asking: Client, k: int) -> None:
        self._server, self._client, self.k = server, asking, k
        self._before = read_when_still(server) if k else None

    def ask(self, prompts: Sequence[Prompt]) -> Row:
        """Ask all prompts at once: seconds until the last answer has ended, and what was generated and drafted.

        Raises:
            ObservationError: an answer failed.
        """
        answers, seconds = self._client.ask_at_once(prompts, ignore_eos=True)
        tokens = sum(answer.output_tokens for answer in answers)
        counted = {"drafts": 0, "draft_tokens": 0, "accepted": 0}
        if self._before is not None:
            before, self._before = self._before, read_after(self._server, self._before, tokens)
            grown = self._before - before
            counted = {name: getattr(grown, name) for name in counted}
        return {"k": self.k, "seconds": seconds, "output_tokens": tokens, **counted}


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """A row for each k, number of requests and round; rows of one turn were asked alternately.

    Raises:
        ObservationError: a server failed, or the level asks for nothing.
        Unsupported: the servers are attached, or this vLLM does not support known rates or another k.
    """
    servers.require_own_servers("its draft length and acceptance are not changed")
    require_sound_pair(profile, servers, evidence)
    plan, rates = make_plan(profile), load_plan().named(PUBLISHED)
    longest = max(profile.sizes.sweep_longest_draft, profile.pair.k)
    by_probe = profile.hardware.sweep == "probe"
    rows = (_by_probe if by_probe else _by_restart)(profile, servers, plan, rates)
    return {
        "k": profile.pair.k,
        "method": profile.hardware.sweep,
        "joint": list(rates.joint_for(longest)),
        "published": len(rates.joint),
        "source": rates.source,
        "rows": rows,
    }


def make_plan(profile: Profile) -> Plan:
    """The plan of this level.

    Raises:
        ObservationError: the level asks for nothing, or has fewer prompts than requests at once.
    """
    sizes = profile.sizes
    if not (sizes.batch_at_once and sizes.batch_rounds and sizes.batch_tokens):
        raise ObservationError(f"level {profile.level} asks nothing: set batch_… in fixtures/levels.toml")
    prompts = spread(load_prompts(profile.prompts / MIXED), sizes.mixed_prompts)
    if len(prompts) < max(sizes.batch_at_once):
        raise ObservationError(f"{len(prompts)} prompts are fewer than {max(sizes.batch_at_once)} requests at once")
    asked = tuple(replace(each, max_tokens=sizes.batch_tokens) for each in prompts)
    return Plan(tuple(sorted(sizes.batch_at_once)), sizes.batch_rounds, asked, profile.hardware.bounds.request_seconds)


def measure(arms: Sequence[Arm], plan: Plan, turn: int) -> list[Row]:
    """The rows of these arms, which take turns in every round; the order alternates. A warm-up comes first."""
    rows = []
    for number in plan.numbers:
        prompts = plan.prompts[:number]
        for arm in arms:
            arm.ask([cut(prompt, WARM_UP_TOKENS) for prompt in prompts])
        for count in range(plan.rounds):
            for arm in arms if count % 2 == 0 else list(reversed(arms)):
                rows.append({"turn": turn, "at_once": number, "round": count, **arm.ask(prompts)})
    return rows


@contextmanager
def _arm(server: Server, plan: Plan, k: int) -> Iterator[Arm]:
    with client(server, plan.seconds) as asking:
        yield Arm(server, asking, k)


def _by_probe(profile: Profile, servers: ServerPool, plan: Plan, rates: Rates) -> list[Row]:
    """One server, whose k the probe sets, and whose drafts its seeded random numbers decide."""
    longest, rows = profile.sizes.sweep_longest_draft, list[Row]()
    with servers.quiet(), ExitStack() as opened:
        plain, together = opened.enter_context(_arm(servers.plain(), plan, 0)), profile.hardware.two_servers
        if not together:
            rows += measure([plain], plan, 0)
        swept = servers.sweep()  # this stops the other server where only one fits
        opened.enter_context(synthetic_acceptance(profile, swept, rates.joint_for(longest), rates.seed))
        for k in range(1, longest + 1):
            servers.tell(f"k by batch: asking at k = {k} of {longest}")
            ask(swept, "conformance_draft_length", plan.seconds, k=k)
            with _arm(swept, plan, k) as arm:
                rows += measure([plain, arm] if together else [arm], plan, k)
    return rows


def _by_restart(profile: Profile, servers: ServerPool, plan: Plan, rates: Rates) -> list[Row]:
    """A server for each k, since a CUDA graph is captured for one draft length."""
    longest, together, rows = profile.sizes.sweep_longest_draft, profile.hardware.roomy, list[Row]()
    ks = lengths(profile.pair.k, longest)
    wide = partial(widened, profile=profile, tokens=max(plan.numbers) * (1 + longest), requests=max(plan.numbers))
    changes = {f"{SYNTHETIC}-{k}": partial(_at_rates, k=k, rates=rates, wide=wide) for k in ks}
    with ExitStack() as opened:
        server = opened.enter_context(servers.extra(f"{PLAIN}-wide", wide, PLAIN))
        plain = opened.enter_context(_arm(server, plan, 0))
        if not together:
            servers.tell("k by batch: asking without MTP")
            rows += measure([plain], plan, 0)
            opened.close()
        started, begin = opened.enter_context(closing(servers.extras(changes))), time.monotonic()
        for place, (k, swept) in enumerate(zip(ks, started, strict=True), 1):
            servers.tell(f"k by batch: asking at k = {k}, the longest is {longest}")
            with _arm(swept, plan, k) as arm:
                rows += measure([plain, arm] if together else [arm], plan, k)
            if no_time_left(profile.sizes, time.monotonic() - begin, place) and ks[place:]:
                servers.tell(f"k by batch: no time for k = {', '.join(map(str, ks[place:]))}")
                break
    return rows


def _at_rates(launch: Launch, k: int, rates: Rates, wide: Any) -> Launch:
    made: Launch = wide(synthetic(with_draft_length(launch, k), rates.joint_for(k)))
    return made


def widened(launch: Launch, profile: Profile, tokens: int, requests: int) -> Launch:
    """The same server with room for so many requests at once, and with CUDA graphs of so many tokens."""
    given = graph_options(profile.hardware, profile.pair.serve_args)
    more: list[str] = []
    if given.max_num_seqs is not None and given.max_num_seqs < requests:
        more += ["--max-num-seqs", str(requests)]
    if captures(profile) and given.sizes is None and (given.maximum or 0) < tokens:
        more += ["--max-cudagraph-capture-size", str(tokens)]
    return replace(launch, command=(*launch.command, *more))
