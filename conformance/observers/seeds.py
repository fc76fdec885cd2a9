"""Texts that are sampled with seeds, each request twice, by both servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from conformance.errors import Unsupported
from conformance.evidence.folder import Evidence
from conformance.observers.served_answers import COMPLETIONS, as_served, ask, ask_both
from conformance.profile.profile import Profile
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.workload.prompts import SAMPLING, load_prefixes

TOKENS = 16  # of an answer
# (seed, n): the i-th of n answers gets the seed + i from vLLM.
REQUESTS = ((11, 1), (12, 1), (13, 1), (21, 3))
# top_p and top_k are set, because a checkpoint's generation_config.json may set others.
SAMPLED = {"temperature": 1, "top_p": 1, "top_k": 0, "ignore_eos": True, "return_token_ids": True}
NOT_ON_CPU = (
    "On a CPU with MTP, vLLM divides by temperatures that it never writes (vllm#55005), so a text depends on what lies "
    "in memory, whatever the seed is."
)


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """The replies to each request, which is asked alone, and again after all others.

    Raises:
        ObservationError: a server has died.
        Unsupported: vLLM cannot sample with MTP on this hardware.
    """
    if profile.hardware.sm is None:
        raise Unsupported(NOT_ON_CPU)
    prompt = load_prefixes(profile.prompts / SAMPLING)[0].text
    seconds = profile.hardware.bounds.request_seconds
    with as_served(profile, servers, evidence):
        arms = ask_both(profile, servers, partial(_rounds, prompt=prompt, seconds=seconds))
    return {"temperature": SAMPLED["temperature"], "asked": TOKENS, "arms": arms}


def _rounds(server: Server, prompt: str, seconds: float) -> list[dict[str, Any]]:
    """Nothing else runs, and nothing is cached: another batch or a hit would change the numbers a little."""
    rounds: Sequence[list[dict[str, Any]]] = [
        [ask(server, COMPLETIONS, question(prompt, seed, n, f"seeds {again} {seed}"), seconds) for seed, n in REQUESTS]
        for again in range(2)
    ]
    return [
        {"seed": seed, "n": n, "replies": list(replies)} for (seed, n), *replies in zip(REQUESTS, *rounds, strict=True)
    ]


def question(prompt: str, seed: int, n: int, salt: str) -> dict[str, Any]:
    """A request for ``n`` sampled answers that finds nothing in the prefix cache."""
    return {**SAMPLED, "prompt": prompt, "max_tokens": TOKENS, "seed": seed, "n": n, "cache_salt": salt}
