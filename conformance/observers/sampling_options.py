"""What every sampling option does with MTP and without: which tokens it chooses, and where it ends the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import httpx

from conformance.evidence.folder import Evidence
from conformance.observers.served_answers import CHAT, GREEDY, Reply, as_served, ask_at_once, ask_both
from conformance.profile.profile import Profile
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.workload.option_cases import OPTIONS, Baseline, OptionCase, filled, load_options

QUESTIONS: Mapping[str, Mapping[str, Any]] = {
    "code": {"messages": [{"role": "user", "content": "Write lift_door of price and text in Python."}]},
    "short": {
        "messages": [
            {
                "role": "user",
                "content": 'The code of Jonas is "red". The code of Bruno is 8894. What is the code of Bruno?',
            }
        ],
    },
    "tale": {"messages": [{"role": "user", "content": "Tell 8 sentences about the baker."}]},
}
TOKENS = 32  # of an answer, unless the case says otherwise


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """The answers without options, and those of every case, twice from each server.

    Raises:
        ObservationError: a server has died, or the answer without options is too short.
    """
    every = load_options(profile.prompts / OPTIONS)
    skipped = {case.id: case.not_on_cpu for case in every if case.not_on_cpu and profile.hardware.sm is None}
    cases = [case for case in every if case.id not in skipped]
    seconds = profile.hardware.bounds.request_seconds
    with as_served(profile, servers, evidence):
        baselines = {name: _baseline(servers.served_plain(), name, profile.pair.k, seconds) for name in QUESTIONS}
        asked = [_question(case, baselines[case.question]) for case in cases]
        arms = ask_both(profile, servers, partial(_rounds, asked=asked, seconds=seconds))
    return {
        "k": profile.pair.k,
        "not_asked": skipped,
        "baselines": {name: list(baseline.token_ids) for name, baseline in baselines.items()},
        "cases": [
            {
                "id": case.id,
                "field": case.field,
                "about": case.about,
                "question": case.question,
                "shows": case.shows,
                "set": asking["set"],
                **{arm: [replies[place] for replies in rounds] for arm, rounds in arms.items()},
            }
            for place, (case, asking) in enumerate(zip(cases, asked, strict=True))
        ],
    }


def _baseline(server: Server, name: str, k: int, seconds: float) -> Baseline:
    """The answer of the server without MTP to a question without options.

    Raises:
        ObservationError: there is no usable answer.
    """
    question = {**GREEDY, "max_tokens": TOKENS, **QUESTIONS[name], "logprobs": True, "top_logprobs": 0}
    try:
        answer = server.request("POST", CHAT, seconds, {"model": server.model, **question}).json()
        (choice,) = answer["choices"]
        return Baseline(choice["token_ids"], [place["token"] for place in choice["logprobs"]["content"]], k)
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        raise server.failure(f"the question {name} got no usable answer without options ({why})") from None


def _question(case: OptionCase, baseline: Baseline) -> dict[str, Any]:
    changes = filled(case.set, baseline)
    return {"set": changes, "ask": {**GREEDY, "max_tokens": TOKENS, **QUESTIONS[case.question], **changes}}


def _rounds(server: Server, asked: Sequence[Mapping[str, Any]], seconds: float) -> list[list[Reply]]:
    """All cases at once; twice, so that the server without MTP is compared with itself."""
    return [ask_at_once(server, CHAT, [each["ask"] for each in asked], seconds) for _ in range(2)]
