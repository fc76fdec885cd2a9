"""Samples of both servers at temperature 1 after a few short prefixes, with many fixed seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from conformance.evidence.folder import Evidence
from conformance.observers.refusals import require_sound_pair
from conformance.profile.profile import Profile
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.workload.prompts import SAMPLING, Prefix, load_prefixes

# Each arm has other seeds: with equal seeds the samples would be correlated, and the test weaker than it claims.
FIRST_SEEDS = 0, 1_000_000  # with MTP, without


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """How often each sequence of k + 1 tokens occurs: the first comes from the prefix, the others from one draft.

    Nothing is timed, so both servers are asked at the same time if both run.
    """
    require_sound_pair(profile, servers, evidence)
    prefixes = load_prefixes(profile.prompts / SAMPLING)[: profile.sizes.sampling_prompts]
    tokens, seeds = profile.pair.k + 1, profile.sizes.sampling_seeds
    seconds = profile.hardware.bounds.request_seconds

    def sample_all(server: Server, first_seed: int) -> list[dict[str, Any]]:
        return _sample_all(server, prefixes, first_seed, seeds, tokens, seconds)

    with servers.exclusive():
        if profile.hardware.two_servers:
            both = servers.mtp(), servers.plain()
            with ThreadPoolExecutor(len(both)) as pool:
                mtp, plain = pool.map(sample_all, both, FIRST_SEEDS)
        else:
            mtp = sample_all(servers.mtp(), FIRST_SEEDS[0])
            plain = sample_all(servers.plain(), FIRST_SEEDS[1])
    return {
        "temperature": 1,
        "tokens": tokens,
        "seeds": seeds,
        "prompts": [
            {"id": prefix.id, "category": prefix.category, "text": prefix.text, "mtp": with_it, "plain": without}
            for prefix, with_it, without in zip(prefixes, mtp, plain, strict=True)
        ],
    }


def _sample_all(
    server: Server, prefixes: Sequence[Prefix], first_seed: int, seeds: int, tokens: int, seconds: float
) -> list[dict[str, Any]]:
    """Ask all prefixes at once; no two requests share a seed."""

    def ask(number: int) -> dict[str, Any]:
        seed = first_seed + number * seeds
        return {"first_seed": seed, "samples": sample(server, prefixes[number], seed, seeds, tokens, seconds)}

    with ThreadPoolExecutor(max(len(prefixes), 1)) as pool:
        return list(pool.map(ask, range(len(prefixes))))


def sample(server: Server, prefix: Prefix, seed: int, seeds: int, tokens: int, seconds: float) -> dict[str, int]:
    """How often each sequence of token ids, such as "5 17 33", occurs with the seeds ``seed`` … ``seed + seeds - 1``.

    vLLM gives the i-th of ``n`` answers the seed ``seed + i``. The request sets top_p and top_k, because a checkpoint's
    generation_config.json may set others.

    Raises:
        ObservationError: the server gives no usable answer.
    """
    question = {
        "model": server.model,
        "prompt": prefix.text,
        "n": seeds,
        "seed": seed,
        "max_tokens": tokens,
        "temperature": 1,
        "top_p": 1,
        "top_k": 0,
        "return_token_ids": True,
    }
    try:
        answer = server.request("POST", "/v1/completions", seconds, question)
        answer.raise_for_status()
        written = [choice["token_ids"] for choice in answer.json()["choices"]]
        return dict(Counter(" ".join(map(str, ids)) for ids in written).most_common())
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        raise server.failure(f"prefix {prefix.id} got no usable samples ({why})") from None
