"""Answers whose prompts the prefix cache holds, beside the answers to the same prompts that it does not hold.

A request with a ``cache_salt`` of its own finds nothing in the cache, so its answer is the cold one. All others share
one cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any
from uuid import uuid4

from conformance.evidence.folder import Evidence
from conformance.observers.bad_requests import wait_until_idle
from conformance.observers.served_answers import CHAT, GREEDY, Reply, as_served, ask, ask_at_once, ask_both, drafts
from conformance.profile.profile import Profile
from conformance.serving.metrics import cache_blocks, cache_counts, cache_counts_after
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.workload.client import official
from conformance.workload.prompts import LONG, load_prefixes

TOKENS = 24  # of an answer, at most
# The cache is full while requests run that together need more blocks than it has. On a CPU, such a prompt needs so many
# blocks, and twice as many after a few steps. With so many steps, all requests run at the same time.
FILL_BLOCKS, FILL_STEPS = 6, 24
LEAD = {"logprobs": True, "top_logprobs": 2}  # to see how far the most likely token leads
BOOK = {
    "type": "function",
    "function": {
        "name": "set_bridge",
        "description": "set bridge.",
        "parameters": {
            "type": "object",
            "properties": {"color": {"type": "boolean"}, "tags": {"type": "boolean"}},
        },
    },
}


@dataclass(frozen=True)
class Step:
    """One request: whose prompt it has, and whether the cache should hold a part of that prompt."""

    id: str
    prompt: str
    hit: bool | None  # None: it depends on how much two prompts share
    before: str = ""  # what happens first: "leave" (a client leaves) or "evict" (other prompts fill the cache)


# In this order, because each step relies on what the earlier ones left in the cache.
STEPS = (
    Step("first", "story", False),
    Step("second", "story", True),
    Step("third", "story", True),
    Step("longer prompt that begins alike", "sequel", True),
    Step("after another prompt", "other", None),
    Step("after a client left", "story", True, before="leave"),
    Step("tool call, first", "call", None),
    Step("tool call", "call", True),
    Step("thought, first", "thought", None),
    Step("thought", "thought", True),
    Step("after other prompts filled the cache", "story", False, before="evict"),
)


@dataclass(frozen=True)
class _Asking:
    server: Server
    seconds: float
    prompts: Mapping[str, Mapping[str, Any]]
    k: int
    run: str  # part of every salt, so that nothing is found that an earlier observation of the same server left

    def ask(self, prompt: str, salt: str, **change: Any) -> Reply:
        own = f"{self.run} {salt}"
        question = {**GREEDY, **LEAD, "max_tokens": TOKENS, "cache_salt": own, **self.prompts[prompt], **change}
        return ask(self.server, CHAT, question, self.seconds)

    def _ask_cold(self, prompt: str) -> Reply:
        return self.ask(prompt, f"cold {prompt}")

    def cold(self) -> dict[str, Any]:
        """The cold answers to the prompts of all steps, asked at once, and what the cache counted meanwhile."""
        before, prompts = cache_counts(self.server), list(dict.fromkeys(step.prompt for step in STEPS))
        with ThreadPoolExecutor(len(prompts)) as pool:
            replies = dict(zip(prompts, pool.map(self._ask_cold, prompts), strict=True))
        tokens = sum(_prompt_tokens(each) for each in replies.values())
        return {"replies": replies, **asdict(cache_counts_after(self.server, before, tokens))}

    def prepare(self, what: str) -> None:
        """Do what comes before a step."""
        if what == "leave":
            leave(self.server, {**self.prompts["story"], "cache_salt": f"{self.run} shared"}, self.seconds)
        if what == "evict":
            steps = FILL_STEPS * (self.k + 1 if drafts(self.server) else 1)
            ask_for = {**self.prompts["fill"], **GREEDY, "max_tokens": steps, "ignore_eos": True}
            fillers = range(cache_blocks(self.server) // FILL_BLOCKS)
            ask_at_once(
                self.server, CHAT, [{**ask_for, "cache_salt": f"{self.run} fill {n}"} for n in fillers], self.seconds
            )


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """Every step of both servers, with the counters of the prefix cache around it, and the cold answers."""
    story, sequel, other = (row.text for row in load_prefixes(profile.prompts / LONG)[:3])
    prompts = questions(story, sequel, other)
    seconds, evicts = profile.hardware.bounds.request_seconds, profile.hardware.as_served().small_cache
    with as_served(profile, servers, evidence):
        asking = partial(_Asking, seconds=seconds, prompts=prompts, k=profile.pair.k, run=uuid4().hex)
        arms = ask_both(profile, servers, lambda server: _all_steps(asking(server), evicts))
    return {"arms": arms}


def questions(story: str, sequel: str, other: str) -> dict[str, dict[str, Any]]:
    """The requests by the name of their prompt."""
    quiet, loud = {"enable_thinking": False}, {"enable_thinking": True}

    def of(text: str, **more: Any) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": text}], "chat_template_kwargs": quiet, **more}

    return {
        "story": of(f"{story} What is the code of Bruno?"),
        "sequel": of(f"{story} {sequel} What is the code of Jonas?"),
        "other": of(f"{other} What is the code of Nils?"),
        "fill": of(other[: len(other) // 4]),
        "call": of(f"{story} Call set_bridge with color true, tags false.", tools=[BOOK]),
        "thought": of(f"{story} What is the code of Jonas?", chat_template_kwargs=loud),
    }


def _all_steps(asking: _Asking, evicts: bool) -> dict[str, Any]:
    cold = asking.cold()
    steps = []
    for step in STEPS:
        if step.before == "evict" and not evicts:
            continue
        asking.prepare(step.before)
        row = {"id": step.id, "prompt": step.prompt, "hit": step.hit}
        steps.append({**row, **_counted(asking.server, partial(asking.ask, step.prompt, "shared"))})
    return {"cold": cold, "steps": steps}


def _counted(server: Server, send: partial[Reply]) -> dict[str, Any]:
    before = cache_counts(server)
    reply = send()
    return {"reply": reply, **asdict(cache_counts_after(server, before, _prompt_tokens(reply)))}


def _prompt_tokens(reply: Reply) -> int:
    return int(reply["usage"][0]) if reply["usage"] else 0


def leave(server: Server, question: Mapping[str, Any], seconds: float) -> None:
    """Let a client read the first delivery of a long answer and leave; wait until the server has noticed."""
    ask_for = {"model": server.model, "messages": question["messages"], "max_tokens": 256, "stream": True}
    more = {name: value for name, value in question.items() if name != "messages"} | {"ignore_eos": True}
    with (
        closing(official(server, seconds)) as client,
        client.chat.completions.create(**ask_for, temperature=0, extra_body=more) as stream,
    ):
        next(iter(stream), None)
    wait_until_idle(server)
