"""Thoughts that ``thinking_token_budget`` ends, with MTP and without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from conformance.errors import Unsupported
from conformance.evidence.folder import Evidence
from conformance.observers.served_answers import CHAT, GREEDY, Reply, as_served, ask, ask_at_once, ask_both
from conformance.profile.facts import load_facts
from conformance.profile.profile import Profile
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.workload.cut_questions import QUESTIONS

OPTION = "thinking_token_budget"
OPEN, CLOSE = "<|channel>", "<channel|>"  # around a thought
LEAD = {"logprobs": True, "top_logprobs": 2}  # to see how far the most likely token leads
NO_LIMIT = 4096  # a budget beyond every answer here
BEHIND = 8  # tokens of an answer behind the longest thought that a budget ends


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """The whole answer of each server, and its answers with every budget: alone, and all at once in both deliveries.

    Raises:
        ObservationError: a server has died.
        Unsupported: this vLLM has no thinking budget, or both servers refuse it.
    """
    seconds, ids = profile.hardware.bounds.request_seconds, load_facts().tokens.ids
    with as_served(profile, servers, evidence):
        refusal = ask(servers.served_plain(), CHAT, question(0, 1), seconds)
        if 400 <= (refusal["status"] or 0) < 500:
            raise Unsupported(f"vLLM refuses {OPTION} without MTP, too: {refusal['message'][:200]}")
        work = partial(_all, budgets=budgets(profile.pair.k), seconds=seconds)
        return {"open": ids[OPEN], "close": ids[CLOSE], "arms": ask_both(profile, servers, work)}


def budgets(k: int) -> list[int]:
    """Budgets that end inside the first blocks of drafted tokens and at their ends, and one that ends nothing."""
    return [0, 1, k, k + 1, 2 * k + 3, NO_LIMIT]


def question(budget: int | None, tokens: int, *, stream: bool = False) -> dict[str, Any]:
    """The question for a thought, without a budget if it is None."""
    limit = {} if budget is None else {OPTION: budget}
    return {**GREEDY, **LEAD, **QUESTIONS["thought"], "max_tokens": tokens, "stream": stream, **limit}


def _all(server: Server, budgets: Sequence[int], seconds: float) -> dict[str, Any]:
    tokens = budgets[-2] + BEHIND
    rows: list[dict[str, Any]] = [
        {"budget": budget, "alone": False, "stream": stream} for budget in budgets for stream in (False, True)
    ]
    rows.append({"budget": budgets[2], "alone": True, "stream": False})
    asked = [question(row["budget"], tokens, stream=row["stream"]) for row in rows]
    whole: Reply = ask(server, CHAT, question(None, tokens), seconds)
    replies = [*ask_at_once(server, CHAT, asked[:-1], seconds), ask(server, CHAT, asked[-1], seconds)]
    return {"whole": whole, "rows": [{**row, "reply": reply} for row, reply in zip(rows, replies, strict=True)]}
