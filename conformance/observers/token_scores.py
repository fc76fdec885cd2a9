"""The logprobs of answers and of prompts, with MTP and without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx

from conformance.evidence.folder import Evidence
from conformance.observers.served_answers import COMPLETIONS, GREEDY, as_served, ask_both
from conformance.profile.profile import Profile
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.workload.prompts import SAMPLING, Prefix, load_prefixes

TOKENS, TOP = 24, 3  # of an answer, and alternatives at each of its places
ROUNDS = 2  # each server is asked twice, so that the one without MTP is compared with itself


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """Tokens, their logprobs and the best alternatives of every answer and prompt, by server and round."""
    prefixes = load_prefixes(profile.prompts / SAMPLING)
    seconds = profile.hardware.bounds.request_seconds
    with as_served(profile, servers, evidence):
        return {"arms": ask_both(profile, servers, partial(_rounds, prefixes=prefixes, seconds=seconds))}


def _rounds(server: Server, prefixes: Sequence[Prefix], seconds: float) -> list[list[dict[str, Any]]]:
    """All prefixes at once in the first round, two at once in the second: other batches shift the scores a little."""
    found = []
    for at_once in (len(prefixes), 2)[:ROUNDS]:
        with ThreadPoolExecutor(at_once) as pool:
            found.append(list(pool.map(lambda prefix: score(server, prefix, seconds), prefixes)))
    return found


def score(server: Server, prefix: Prefix, seconds: float) -> dict[str, Any]:
    """One answer with its scores.

    Raises:
        ObservationError: the server gives no usable answer.
    """
    question = {
        **GREEDY,
        "model": server.model,
        "prompt": prefix.text,
        "max_tokens": TOKENS,
        "logprobs": TOP,
        "prompt_logprobs": 1,
        "return_tokens_as_token_ids": True,
    }
    try:
        response = server.request("POST", COMPLETIONS, seconds, question)
        response.raise_for_status()
        return _row(prefix.id, response.json())
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        raise server.failure(f"prefix {prefix.id} got no usable scores ({why})") from None


def _row(id: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    (choice,) = answer["choices"]
    scores, prompt = choice["logprobs"], choice["prompt_logprobs"]
    prompt_ids = choice.get("prompt_token_ids") or answer["prompt_token_ids"]
    return {
        "id": id,
        "token_ids": choice["token_ids"],
        "scored_ids": [_id(token) for token in scores["tokens"]],
        "logprobs": [_number(value) for value in scores["token_logprobs"]],
        "best_ids": [_id(max(top, key=lambda token: top[token])) for top in scores["top_logprobs"]],
        "output_tokens": answer["usage"]["completion_tokens"],
        "prompt_ids": prompt_ids,
        "prompt_logprobs": [
            _number((place or {}).get(str(token), {}).get("logprob"))
            for token, place in zip(prompt_ids[1:], prompt[1:], strict=False)
        ],
        "prompt_tokens": answer["usage"]["prompt_tokens"],
    }


def _id(token: str) -> int:
    return int(token.removeprefix("token_id:"))


def _number(value: float | None) -> float | None:
    """A logprob to four digits; None for one that is missing or not a finite number, which JSON cannot hold."""
    return None if value is None or value != value or abs(value) == float("inf") else round(value, 4)
