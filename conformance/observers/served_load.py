"""The first prompts of the load once more, in a row, on the servers in the configuration that people serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from conformance.errors import ObservationError, Unsupported
from conformance.evidence.folder import Evidence
from conformance.observers.draft_load import ask
from conformance.observers.load import WARM_UP_TOKENS, cut
from conformance.observers.served_answers import as_served
from conformance.profile.arms import MTP, PLAIN
from conformance.profile.profile import Profile
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.workload.client import Answer, client
from conformance.workload.prompts import MIXED, Prompt, load_prompts, spread


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """The times of every answer on both servers, and the configurations that vLLM arrived at.

    Raises:
        ObservationError: a server has died, an answer has no token, or the level asks no prompt.
        Unsupported: the hardware has no configuration that people serve, or the servers are attached.
    """
    sizes = profile.sizes
    if not sizes.served_prompts:
        raise ObservationError(f"level {profile.level} asks no prompt: set served_prompts in fixtures/levels.toml")
    every = spread(load_prompts(profile.prompts / MIXED), sizes.mixed_prompts)
    prompts, last = every[: sizes.served_prompts], every[-1]  # the last one is not timed, so the cache may hold it
    with as_served(profile, servers, evidence):
        asked = [cut(prompt, sizes.served_tokens) for prompt in prompts]
        answers, configs = _ask(profile, servers, asked, cut(last, WARM_UP_TOKENS))
    rows = [
        {
            "id": prompt.id,
            "category": prompt.category,
            **{arm: _row(each) for arm, each in zip(answers, pair, strict=True)},
        }
        for prompt, pair in zip(prompts, zip(*answers.values(), strict=True), strict=True)
    ]
    return {"rows": rows, "configs": configs}


def _ask(
    profile: Profile, servers: ServerPool, prompts: Sequence[Prompt], warm_up: Prompt
) -> tuple[dict[str, list[Answer]], dict[str, Any]]:
    """The answers and the configuration of each server: in turns if both fit, else one server after the other."""
    start = {PLAIN: servers.served_plain, MTP: servers.served}
    answers: dict[str, list[Answer]] = {arm: [] for arm in start}
    configs, seconds = dict[str, Any](), profile.hardware.bounds.request_seconds
    for arms in [tuple(start)] if profile.hardware.two_servers else [(arm,) for arm in start]:
        with ExitStack() as opened:
            running = {arm: start[arm]() for arm in arms}
            clients = {arm: opened.enter_context(client(server, seconds)) for arm, server in running.items()}
            configs |= {arm: config_of(server, seconds) for arm, server in running.items()}
            for each in clients.values():
                each.ask(warm_up, stream=True)
            for number, prompt in enumerate(prompts):
                for arm in arms if number % 2 == 0 else reversed(arms):
                    answers[arm].append(clients[arm].ask(prompt, stream=True))
    return answers, configs


def config_of(server: Server, seconds: float) -> dict[str, Any] | None:
    """Every field of the configuration; None if this vLLM does not tell."""
    try:
        found: dict[str, Any] = ask(server, "conformance_config", seconds)["fields"]
    except Unsupported:
        return None
    return found


def _row(answer: Answer) -> dict[str, Any]:
    if not answer.arrivals:
        raise ObservationError(f"the answer to {answer.id} has no token")
    return {
        "seconds": answer.seconds,
        "first_seconds": answer.arrivals[0],
        "tokens": answer.output_tokens,
        "prompt_tokens": answer.prompt_tokens,
    }
