"""Calibration at known rates: many small trials in which random numbers decide whether drafts are accepted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from typing import Any

from conformance.errors import ObservationError, Unsupported
from conformance.evidence.folder import Evidence
from conformance.observers.draft_load import ask, ask_all
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
    """For each vector of known rates, the rates and the counts of every request, trial by trial.

    Raises:
        ObservationError: a server failed or its counts contradict each other.
        Unsupported: the servers are attached, or this vLLM does not support known rates.
    """
    servers.require_own_servers("its acceptance is not changed")
    require_sound_pair(profile, servers, evidence)
    plan, coins = load_plan(), profile.hardware.calibration == "coins"
    if coins:
        with servers.exclusive():
            rows = [_by_probe(profile, servers, plan, rates) for rates in plan.rates]
    else:
        rows = _by_vllm(profile, servers, plan)
    method = "coins" if coins else SYNTHETIC
    return {"k": profile.pair.k, "method": method, "max_tokens": plan.max_tokens, "rates": rows}


def _by_probe(profile: Profile, servers: ServerPool, plan: Plan, rates: Rates) -> Row:
    """Use the server with MTP; the probe's seeded random numbers decide until the trials are done."""
    joint = rates.joint_for(profile.pair.k)
    with (
        _asking(profile, servers.mtp(), plan) as count,
        synthetic_acceptance(profile, servers.mtp(), joint, rates.seed) as decided,
    ):
        trials = count()
    return {"name": rates.name, "joint": list(joint), "seed": rates.seed, "decided": decided[0], "trials": trials}


def _by_vllm(profile: Profile, servers: ServerPool, plan: Plan) -> list[Row]:
    """Use an extra server, in which vLLM accepts drafts at random, and switch its rates while it runs.

    Where this vLLM keeps the rates elsewhere, each further vector has a server of its own. Its option --seed seeds the
    generator.
    """
    left = {rates.name: rates.joint_for(profile.pair.k) for rates in plan.rates}
    rows: list[Row] = []

    def measure(name: str, server: Server) -> None:
        servers.tell(f'calibration: asking at the rates "{name}"')
        with _asking(profile, server, plan) as count:
            joint = left.pop(name)
            rows.append({"name": name, "joint": list(joint), "seed": None, "decided": None, "trials": count()})

    first, *others = left
    with servers.extra(SYNTHETIC, partial(synthetic, joint=left[first])) as server:
        measure(first, server)
        for name in others:
            if not _switch(profile, server, left[name]):
                break
            measure(name, server)
    changes = {
        f"{SYNTHETIC}-{n}": partial(synthetic, joint=joint) for n, joint in enumerate(left.values(), len(rows) + 1)
    }
    with closing(servers.extras(changes)) as started:
        for name, server in zip(list(left), started, strict=True):
            measure(name, server)
    return rows


def _switch(profile: Profile, server: Server, joint: tuple[float, ...]) -> bool:
    """Whether the server now accepts at these rates."""
    try:
        rates = list(conditional_rates(joint))
        ask_all(server, "conformance_synthetic_rates", profile.hardware.bounds.request_seconds, rates=rates)
    except Unsupported:
        return False
    return True


@contextmanager
def synthetic_acceptance(profile: Profile, server: Server, joint: tuple[float, ...], seed: int) -> Iterator[list[int]]:
    """Turn on synthetic acceptance in the server; at the end, the list holds the number of drafts that it decided."""
    seconds = profile.hardware.bounds.request_seconds
    decided: list[int] = []
    ask(server, "conformance_coins_begin", seconds, rates=list(conditional_rates(joint)), seed=seed)
    try:
        yield decided
    finally:
        decided.append(ask(server, "conformance_coins_end", seconds)["drafts"])


@contextmanager
def _asking(profile: Profile, server: Server, plan: Plan) -> Iterator[Any]:
    """A function that makes all trials of one vector and returns, for each trial, a list of counts by request.

    Raises:
        ObservationError: the level has no trials.
    """
    sizes, k = profile.sizes, profile.pair.k
    if not sizes.calibration_trials or not sizes.calibration_prompts:
        raise ObservationError(
            f"level {profile.level} has no calibration trials: set calibration_… in fixtures/levels.toml"
        )
    shortest = sorted(load_prompts(profile.prompts / MIXED), key=lambda prompt: len(str(prompt.messages)))
    cut = [replace(prompt, max_tokens=plan.max_tokens) for prompt in shortest[: plan.at_once]]
    prompts = list(islice(cycle(cut), sizes.calibration_trials * sizes.calibration_prompts))
    with client(server, profile.hardware.bounds.request_seconds) as asking:
        tells = asking.ask(cut[0], ignore_eos=True).speculation is not None  # before synthetic acceptance begins

        def count() -> list[list[Row]]:
            rows = (
                _counts_from_answers(asking, prompts, plan.at_once)
                if tells
                else _counts_from_metrics(server, asking, prompts, k)
            )
            size = sizes.calibration_prompts
            return [rows[begin : begin + size] for begin in range(0, len(rows), size)]

        yield count


def _counts_from_answers(asking: Client, prompts: Sequence[Prompt], at_once: int) -> list[Row]:
    """Send many requests at a time; take the counts from vLLM's answers."""
    with ThreadPoolExecutor(at_once) as pool:
        return [_row(answer) for answer in pool.map(partial(asking.ask, ignore_eos=True), prompts)]


def _row(answer: Answer) -> Row:
    if answer.speculation is None:
        raise ObservationError(f"the answer to {answer.id} does not report its drafts, but earlier answers did")
    return _trial_counts(counts_of(answer.speculation, answer.output_tokens))


def _counts_from_metrics(server: Server, asking: Client, prompts: Sequence[Prompt], k: int) -> list[Row]:
    """Send one request at a time; take the counts from /metrics before and after it."""
    before, rows = read_when_still(server), []
    for prompt in prompts:
        answer = asking.ask(prompt, ignore_eos=True)
        after = read_after(server, before, answer.output_tokens)
        require_consistent_counts(after - before, k, requests=1)
        rows.append(_trial_counts(counts(after - before)))
        before = after
    return rows


def _trial_counts(counted: Mapping[str, Any]) -> Row:
    """The counters of a request that a trial keeps; the sum over positions follows from them."""
    return {name: counted[name] for name in ("drafts", "draft_tokens", "accepted_per_position", "output_tokens")}
