"""What is counted where the rates are known: drafts whose acceptance chance alone decides, in many small trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from typing import Any

from conformance.errors import ObservationError
from conformance.evidence.folder import Evidence
from conformance.observers.draft_load import ask
from conformance.observers.load import counts, counts_of
from conformance.observers.refusals import require_sound_pair
from conformance.profile.arms import SYNTHETIC
from conformance.profile.known_rates import Plan, Rates, conditional_rates, load_plan
from conformance.profile.profile import Profile
from conformance.serving.command import synthetic
from conformance.serving.metrics import read_after, read_when_still, require_consistent_counts
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.workload.client import Answer, Client, client
from conformance.workload.prompts import MIXED, Prompt, load_prompts

Row = dict[str, Any]


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """For each vector of known rates the counts of every request, trial by trial, beside the rates themselves."""
    servers.must_be_ours("what it accepts is left to itself")
    require_sound_pair(profile, servers, evidence)
    plan, coins = load_plan(), profile.hardware.calibration == "coins"
    measure = _by_coins if coins else _by_vllm
    with servers.exclusive():
        rows = [measure(profile, servers, plan, rates) for rates in plan.rates]
    method = "coins" if coins else SYNTHETIC
    return {"k": profile.pair.k, "method": method, "max_tokens": plan.max_tokens, "rates": rows}


def _by_coins(profile: Profile, servers: ServerPool, plan: Plan, rates: Rates) -> Row:
    """The server with MTP, in which the probe's coins decide until the trials are done."""
    joint = rates.joint_for(profile.pair.k)
    with _asking(profile, servers.mtp(), plan) as count, _coins(profile, servers.mtp(), joint, rates.seed) as decided:
        trials = count()
    return {"name": rates.name, "joint": list(joint), "seed": rates.seed, "decided": decided[0], "trials": trials}


def _by_vllm(profile: Profile, servers: ServerPool, plan: Plan, rates: Rates) -> Row:
    """A server of its own, in which vLLM accepts drafts at random; its generator is seeded by its own --seed."""
    joint = rates.joint_for(profile.pair.k)
    with (
        servers.extra(SYNTHETIC, partial(synthetic, joint=joint)) as server,
        _asking(profile, server, plan) as count,
    ):
        return {"name": rates.name, "joint": list(joint), "seed": None, "decided": None, "trials": count()}


@contextmanager
def _coins(profile: Profile, server: Server, joint: tuple[float, ...], seed: int) -> Iterator[list[int]]:
    """Coins decide in the server; the number of drafts that they decided is in the list at the end."""
    seconds = profile.hardware.bounds.request_seconds
    decided: list[int] = []
    ask(server, "conformance_coins_begin", seconds, rates=list(conditional_rates(joint)), seed=seed)
    try:
        yield decided
    finally:
        decided.append(ask(server, "conformance_coins_end", seconds)["drafts"])


@contextmanager
def _asking(profile: Profile, server: Server, plan: Plan) -> Iterator[Any]:
    """What makes all trials of one vector, once it is called: a list of trials, each a list of counts by request."""
    sizes, k = profile.sizes, profile.pair.k
    if not sizes.calibration_trials or not sizes.calibration_prompts:
        raise ObservationError(f"level {profile.level} names no trials: set calibration_… in fixtures/levels.toml")
    shortest = sorted(load_prompts(profile.prompts / MIXED), key=lambda prompt: len(str(prompt.messages)))
    cut = [replace(prompt, max_tokens=plan.max_tokens) for prompt in shortest[: plan.at_once]]
    prompts = list(islice(cycle(cut), sizes.calibration_trials * sizes.calibration_prompts))
    with client(server, profile.hardware.bounds.request_seconds) as asking:
        tells = asking.ask(cut[0], ignore_eos=True).speculation is not None  # before any coin is flipped

        def count() -> list[list[Row]]:
            rows = _told(asking, prompts, plan.at_once) if tells else _counted(server, asking, prompts, k)
            size = sizes.calibration_prompts
            return [rows[begin : begin + size] for begin in range(0, len(rows), size)]

        yield count


def _told(asking: Client, prompts: Sequence[Prompt], at_once: int) -> list[Row]:
    """The counts that vLLM gives with each answer; many requests at a time."""
    with ThreadPoolExecutor(at_once) as pool:
        return [_row(answer) for answer in pool.map(partial(asking.ask, ignore_eos=True), prompts)]


def _row(answer: Answer) -> Row:
    if answer.speculation is None:
        raise ObservationError(f"the answer to {answer.id} says nothing of its drafts, as others before it did")
    return _kept(counts_of(answer.speculation, answer.output_tokens))


def _counted(server: Server, asking: Client, prompts: Sequence[Prompt], k: int) -> list[Row]:
    """The counters of /metrics around each request; one at a time."""
    before, rows = read_when_still(server), []
    for prompt in prompts:
        answer = asking.ask(prompt, ignore_eos=True)
        after = read_after(server, before, answer.output_tokens)
        require_consistent_counts(after - before, k, requests=1)
        rows.append(_kept(counts(after - before)))
        before = after
    return rows


def _kept(counted: Mapping[str, Any]) -> Row:
    """What a trial keeps of the counters of a request; the sum over positions follows from them."""
    return {name: counted[name] for name in ("drafts", "draft_tokens", "accepted_per_position", "output_tokens")}
