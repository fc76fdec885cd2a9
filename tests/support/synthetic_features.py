"""Made-up observations of a healthy pair of servers in the configuration that people serve."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

ARMS = ("mtp", "plain")
TOKENS = list(range(20, 32))  # of an answer without options
CONTEXT, K = 2048, 4
COMBINED = ("batch_invariance", "lora", "expert_parallel", "one_worker", "no_custom_all_reduce", "v2_runner")
CALL = {"name": "count_letter", "arguments": '{"price": 1000, "city": "copper"}'}


def documents() -> dict[str, Any]:
    """Every observation of the family."""
    return {
        "prefix_caching": prefix_caching(),
        "sampling_options": sampling_options(),
        "token_scores": token_scores(),
        "cut_answers": cut_answers(),
        "context_limit": context_limit(),
        "preemption": preemption(),
        "seeds": seeds(),
        "thinking_budget": thinking_budget(),
        "combination_support": {"vllm_version": "0.32.0", "refusals": dict.fromkeys(COMBINED, "")},
        **{f"combination-{feature}": combination(feature) for feature in (*COMBINED, "as_served")},
    }


def reply(tokens: list[int], finish: str = "length", prompt: int = 700, **choice: Any) -> dict[str, Any]:
    """An answer of these tokens."""
    made = {"text": " ".join(map(str, tokens)), "token_ids": list(tokens), "finish_reason": finish, **choice}
    return {"status": 200, "message": "", "choices": [made], "usage": [prompt, len(tokens)]}


def refused(message: str, status: int | None = 400) -> dict[str, Any]:
    """A request that got no answer."""
    return {"status": status, "message": message, "choices": [], "usage": None}


def leading(tokens: list[int]) -> dict[str, Any]:
    """An answer in which every token leads by 3 nats."""
    return reply(tokens, gaps=[3.0] * len(tokens))


def prefix_caching() -> dict[str, Any]:
    prompts = {name: [base, base + 1, base + 2] for base, name in enumerate(("story", "call"), 10)}

    def row(prompt: str, hits: int) -> dict[str, Any]:
        return {"reply": leading(prompts[prompt]), "queries": 700, "hits": hits, "computed": 700 - hits}

    def arm(hits: int) -> dict[str, Any]:
        steps = [
            ("first", "story", False),
            ("second", "story", True),
            ("tool call, first", "call", None),
            ("tool call", "call", True),
            ("after other prompts filled the cache", "story", False),
        ]
        return {
            "cold": {
                "replies": {name: leading(tokens) for name, tokens in prompts.items()},
                "queries": 1400,
                "hits": 0,
                "computed": 1400,
            },
            "steps": [
                {"id": id, "prompt": prompt, "hit": hit, **row(prompt, hits if hit else 0)} for id, prompt, hit in steps
            ],
        }

    return {"arms": {"mtp": arm(512), "plain": arm(640)}}


def sampling_options() -> dict[str, Any]:
    def case(id: str, field: str, about: str, answer: Mapping[str, Any], with_mtp: Any = None) -> dict[str, Any]:
        facts = {"id": id, "field": field, "about": about, "question": "code", "shows": True, "set": {field: 1}}
        arms = {"mtp": with_mtp or answer, "plain": answer}
        return facts | {arm: [copy.deepcopy(found) for _ in range(2)] for arm, found in arms.items()}

    return {
        "k": K,
        "not_asked": {"n of two": "it would end the engine"},
        "baselines": {"code": TOKENS},
        "cases": [
            case("frequency_penalty", "frequency_penalty", "choice", reply([*TOKENS[:5], 90, 91, 92])),
            case("bad_words of two tokens", "bad_words", "choice", reply([*TOKENS[:8], 77])),
            case("stop string inside a block", "stop", "ending", reply(TOKENS[:8], "stop", stop="28")),
            case("max_tokens of 2", "max_tokens", "ending", reply(TOKENS[:2])),
        ],
    }


def token_scores() -> dict[str, Any]:
    def row(id: str) -> dict[str, Any]:
        values = [-1.5, -0.2, -2.25, -0.7, -0.1, -1.1]
        return {
            "id": id,
            "token_ids": TOKENS[:6],
            "scored_ids": TOKENS[:6],
            "logprobs": values,
            "best_ids": TOKENS[:6],
            "output_tokens": 6,
            "prompt_ids": [2, 5, 6, 7, 8, 9],
            "prompt_logprobs": [-3.0, -2.0, -4.5, -0.5, -1.25],
            "prompt_tokens": 6,
        }

    return {"arms": {arm: [[row(f"tale-{n}") for n in range(2)] for _ in range(2)] for arm in ARMS}}


def cut_answers() -> dict[str, Any]:
    whole = {
        "call": reply(TOKENS, "tool_calls", text="", calls=[CALL]),
        "thought": reply(TOKENS, "stop", reasoning="First I read it."),
    }
    rows = [
        {"question": "call", "max_tokens": 3, "stream": False, "reply": reply(TOKENS[:3], text="")},
        {
            "question": "call",
            "max_tokens": 9,
            "stream": True,
            "reply": reply(TOKENS[:9], text="", calls=[CALL | {"arguments": '{"price": 10'}]),
        },
        {"question": "thought", "max_tokens": 4, "stream": False, "reply": reply(TOKENS[:4], reasoning="First I")},
    ]
    return {"whole": whole, "arms": {arm: copy.deepcopy(rows) for arm in ARMS}}


def context_limit() -> dict[str, Any]:
    def row(asked: int, found: dict[str, Any]) -> dict[str, Any]:
        return {"asked": asked, "reply": found}

    arm = {
        "running": [row(12, leading(TOKENS)) for _ in range(2)],
        "ends": [row(left, leading(TOKENS[:left])) for left in (*range(1, K + 3), K + 2)],
        "beyond": [row(left + 1, leading(TOKENS[:left])) for left in (1, K)],
        "full": [row(1, refused("This model's maximum context length is 2048 tokens.")) for _ in range(2)],
    }
    return {"k": K, "context": CONTEXT, "arms": {name: copy.deepcopy(arm) for name in ARMS}}


def preemption() -> dict[str, Any]:
    def counted(preemptions: int, mtp: bool) -> dict[str, Any]:
        counts = {"preemptions": preemptions, "drafts": 30 * mtp, "accepted": 100 * mtp}
        return counts | {"replies": [leading([n, *TOKENS[1:]]) for n in range(3)]}

    arms = {
        arm: {"cache_blocks": 150, "few": counted(0, arm == "mtp"), "crowd": counted(5, arm == "mtp")} for arm in ARMS
    }
    return {"requests": 3, "asked": len(TOKENS), "arms": arms}


def seeds() -> dict[str, Any]:
    """Each seed gives a text of its own, and the i-th of several answers has the seed + i."""

    def sampled(seed: int, n: int) -> dict[str, Any]:
        texts = [[seed + number, *TOKENS[1:]] for number in range(n)]
        choices = [reply(text)["choices"][0] for text in texts]
        return {"status": 200, "message": "", "choices": choices, "usage": [6, n * len(TOKENS)]}

    rows = [
        {"seed": seed, "n": n, "replies": [sampled(seed, n) for _ in range(2)]} for seed, n in ((1, 1), (2, 1), (5, 3))
    ]
    arms = {"mtp": rows, "plain": copy.deepcopy(rows)}
    arms["plain"][0]["replies"] = [sampled(8, 1) for _ in range(2)]
    return {"temperature": 1, "asked": len(TOKENS), "arms": arms}


def thinking_budget() -> dict[str, Any]:
    """A thought of ten tokens between 100 and 101, which budgets end earlier."""

    def answer(budget: int) -> dict[str, Any]:
        return leading([100, *TOKENS[:10][:budget], 101, 50, 51])

    rows = [
        {"budget": budget, "alone": alone, "stream": stream, "reply": answer(budget)}
        for budget, alone, stream in ((0, False, False), (0, False, True), (4, False, False), (4, True, False))
    ]
    arm = {"whole": answer(10), "rows": [*rows, {"budget": 99, "alone": False, "stream": False, "reply": answer(10)}]}
    return {"open": 100, "close": 101, "arms": {name: copy.deepcopy(arm) for name in ARMS}}


def combination(feature: str) -> dict[str, Any]:
    """The requests of the preemption, with one more feature."""
    made = {"feature": feature, "settings": {"options": [f"--{feature}"], "environment": {}}, **preemption()}
    parallel = {"workers": 2 - (feature == "one_worker"), "custom_all_reduce": feature != "no_custom_all_reduce"}
    for arm in made["arms"].values():
        arm["parallel"] = dict(parallel)
    return made
