"""Evaluates the target on held-out examples by greedy decoding; each share has its n and interval."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerFast

from conformance.judging import stats
from conformance.miniature import data, tasks
from conformance.miniature.checkpoint_config import WINDOW
from conformance.miniature.generate import in_batches
from conformance.miniature.model import Target
from conformance.miniature.tasks import Example, Task

Judge = Callable[[Example, str], bool]


@dataclass(frozen=True)
class Skill:
    """One row of the table: the examples of a skill, and the function that accepts an answer."""

    name: str
    task: Task
    floor: float
    right: Judge
    keep: Callable[[Example], bool] = lambda _: True


def exact(example: Example, answer: str) -> bool:
    """Whether the answer is exactly the expected one."""
    return answer == example.answer + example.end


def valid_json(example: Example, answer: str) -> bool:
    """Whether the answer is JSON with exactly the expected keys, each of the right type."""
    try:
        value = json.loads(_without_thought(answer).removesuffix("<turn|>"))
    except ValueError:
        return False
    return isinstance(value, dict) and {k: type(v) for k, v in value.items()} == {
        k: type(v) for k, v in example.expected.items()
    }


def thinks_as_told(example: Example, answer: str) -> bool:
    """Whether the answer has a closed thought channel with thinking on, and none with thinking off."""
    return (answer.startswith("<|channel>thought\n") and "<channel|>" in answer) is example.thinking


def _without_thought(answer: str) -> str:
    return answer.split("<channel|>")[-1]


SKILLS = (
    Skill("call: string, integer, number, boolean, enum", tasks.tool_call, 0.95, exact),
    Skill("call: arrays and nested objects", tasks.tool_nested, 0.90, exact),
    Skill("two calls in a turn", tasks.tool_two, 0.90, exact),
    Skill("answer from a tool's result", tasks.tool_result, 0.95, exact),
    Skill("schema-valid JSON", tasks.json_answer, 0.95, valid_json),
    Skill("recall from beyond the window", tasks.recall, 0.95, exact),
    Skill("thoughts when on", tasks.tool_call, 0.95, thinks_as_told, lambda example: example.thinking),
    Skill("no thoughts when off", tasks.tool_call, 0.95, thinks_as_told, lambda example: not example.thinking),
)
CONTENT = {"prose": tasks.prose, "code": tasks.code, "records": tasks.records}


def share(right: int, n: int) -> dict[str, Any]:
    """A share with its exact 95 % interval (Clopper-Pearson)."""
    found = stats.share(right, n)
    return {"right": right, "n": n, "share": found.value, "low": found.low, "high": found.high}


def answers(target: Target, tokenizer: PreTrainedTokenizerFast, chosen: Sequence[Example], limit: int) -> list[str]:
    """The target's answers with special tokens in the text."""
    fast = tokenizer.backend_tokenizer
    prompts = [fast.encode(data.render(tokenizer, example), add_special_tokens=False).ids for example in chosen]
    found = in_batches(target, prompts, WINDOW, limit)
    return [fast.decode(answer, skip_special_tokens=False) for answer in found]


@torch.no_grad()
def lead(target: Target, tokenizer: PreTrainedTokenizerFast, example: Example, limit: int) -> float:
    """The smallest gap in nats between a token of the right answer and any other token at its position.

    If it is positive, greedy decoding gives the right answer. An answer with more than ``limit`` tokens would be cut
    off and has no lead.
    """
    fast, device = tokenizer.backend_tokenizer, target.model.embed_tokens.weight.device
    encoded = data.encode(fast, tokenizer, example)
    answer = len(fast.encode(example.answer + example.end, add_special_tokens=False).ids)
    if answer > limit:
        return 0.0
    batch = next(data.pack(itertools.repeat(encoded), rows=1, length=len(encoded.ids))).to(device)
    with torch.compiler.set_stance("force_eager"):
        seen = target(batch.ids, batch.positions, batch.masks(WINDOW))
        log_p = F.log_softmax(target.logits(seen.hidden)[0, -answer - 1 : -1], -1)
    asked = batch.ids[0, -answer:, None]
    others = log_p.scatter(-1, asked, -math.inf).amax(-1)
    return float((log_p.gather(-1, asked).squeeze(-1) - others).min())


def examine(skill: Skill, target: Target, tokenizer: PreTrainedTokenizerFast, n: int, seed: int) -> dict[str, Any]:
    """The share of right answers to n held-out examples, and the floor of the skill."""
    stream = filter(skill.keep, tasks.examples(seed, held_out=True, kinds=(skill.task,)))
    chosen = list(itertools.islice(stream, n))
    said = answers(target, tokenizer, chosen, limit=260)
    right = sum(skill.right(example, answer) for example, answer in zip(chosen, said, strict=True))
    return share(right, n) | {"floor": skill.floor}


@torch.no_grad()
def entropies(target: Target, tokenizer: PreTrainedTokenizerFast, n: int, seed: int) -> dict[str, float]:
    """Mean entropy in bits of the next token at temperature 1 over answer tokens, for each kind of content."""
    fast, device, found = tokenizer.backend_tokenizer, target.model.embed_tokens.weight.device, {}
    for name, task in CONTENT.items():
        chosen = itertools.islice(tasks.examples(seed, held_out=True, kinds=(task,)), n)
        batches = data.pack((data.encode(fast, tokenizer, example) for example in chosen), rows=4, length=384)
        bits, count = 0.0, 0.0
        with torch.compiler.set_stance("force_eager"):
            for batch in (each.to(device) for each in batches):
                seen = target(batch.ids, batch.positions, batch.masks(WINDOW))
                log_p = F.log_softmax(target.logits(seen.hidden), -1)
                entropy = -(log_p.exp() * log_p).sum(-1) / math.log(2)
                asked = F.pad(batch.weights[:, 1:], (0, 1)) >= 1.0
                bits, count = bits + float((entropy * asked).sum()), count + float(asked.sum())
        found[name] = bits / count
    return found
