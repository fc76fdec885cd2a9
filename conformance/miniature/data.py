"""Makes batches from examples: renders, tokenises, and packs them with little padding."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from conformance.miniature import lexicon as lex
from conformance.miniature.model import Masks
from conformance.miniature.tasks import Example, examples
from conformance.miniature.tokenizer import HIGH_SPECIALS, LOW_SPECIALS, for_transformers, train_tokenizer

PROMPT_WEIGHT = 0.05  # the weight of a prompt token in the loss; an answer token has 1
_MODEL_TURN = re.compile(r"(?<=<\|turn>model\n)(?!<\|channel>thought\n(<channel\|>)?\Z).*?(<turn\|>|\Z)", re.DOTALL)
_TOOL_RESULT = re.compile(r"(?<=<\|tool_response>)response:.*?<tool_response\|>", re.DOTALL)
_SPECIAL = re.compile("|".join(re.escape(token) for token in (*LOW_SPECIALS, *HIGH_SPECIALS)))


def tokenizer_texts(template_of: PreTrainedTokenizerFast, count: int) -> Iterator[str]:
    """The texts for learning merges: rendered training examples, and every word with and without a space."""
    for example in itertools.islice(examples(seed=0, held_out=False), count):
        yield from _SPECIAL.split(render(template_of, example) + example.answer)
    words = {*lex.WORDS, *lex.KEYS, *lex.VERBS, *lex.NOUNS}
    for word in sorted(words):
        yield from [word, f" {word}"] * 40


def build_tokenizer(count: int = 4000, empty_thought: bool = True) -> PreTrainedTokenizerFast:
    """Train the miniatures' tokenizer; the result is always the same, but for the template."""
    blank = for_transformers(train_tokenizer([]))
    return for_transformers(train_tokenizer(tokenizer_texts(blank, count)), empty_thought)


def render(tokenizer: PreTrainedTokenizerFast, example: Example) -> str:
    """The prompt as a server renders it, up to and including the generation prompt."""
    text = tokenizer.apply_chat_template(
        example.messages,
        tools=example.tools or None,
        add_generation_prompt=True,
        enable_thinking=example.thinking,
        tokenize=False,
    )
    assert isinstance(text, str)
    return text


class Encoded(NamedTuple):
    """The token ids of prompt and answer, and the weight of each in the loss."""

    ids: list[int]
    weights: list[float]


def encode(fast: Tokenizer, tokenizer: PreTrainedTokenizerFast, example: Example) -> Encoded:
    """Encode the whole chat; tokens of the model count fully, those of the user and the tools only a little."""
    text = render(tokenizer, example)
    spoken = _spoken_by_model(text)
    prompt = fast.encode(text, add_special_tokens=False)
    answer = fast.encode(example.answer + example.end, add_special_tokens=False).ids
    weights = [(PROMPT_WEIGHT, 1.0, 0.0)[spoken[start]] for start, _ in prompt.offsets]
    return Encoded(prompt.ids + answer, weights + [1.0] * len(answer))


def _spoken_by_model(text: str) -> bytearray:
    """For each character of a rendered prompt: 1 if the model wrote it in an earlier turn, else 0.

    The first character of a turn is 2: the template removes earlier thoughts, so that turns in the history begin
    differently from answers.
    """
    spoken = bytearray(len(text))
    for turn in _MODEL_TURN.finditer(text):
        spoken[turn.start() : turn.end()] = b"\2" + b"\1" * (len(turn[0]) - 1)
    for result in _TOOL_RESULT.finditer(text):
        spoken[result.start() : result.end()] = bytes(len(result[0]))
    return spoken


@dataclass(frozen=True)
class Batch:
    """Rows of packed examples.

    ids, positions, segments: int [rows, length]; weights: float [rows, length], for each token as a label.
    Segment 0 is padding; positions restart in each segment.
    """

    ids: Tensor
    positions: Tensor
    segments: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(*(tensor.to(device) for tensor in (self.ids, self.positions, self.segments, self.weights)))

    def masks(self, sliding_window: int) -> Masks:
        """Causal masks within each segment, [rows, 1, length, length]."""
        index = torch.arange(self.ids.shape[1], device=self.ids.device)
        distance = index[:, None] - index[None, :]
        same = (self.segments[:, :, None] == self.segments[:, None, :])[:, None]
        return Masks(same & (distance >= 0) & (distance < sliding_window), same & (distance >= 0))


def pack(stream: Iterable[Encoded], rows: int, length: int) -> Iterator[Batch]:
    """First-fit packing: an example goes into the first row with room; full batches are yielded."""
    open_rows: list[list[Encoded]] = [[] for _ in range(rows)]
    misses = 0
    for item in stream:
        if len(item.ids) > length:
            continue
        fitting = [row for row in open_rows if sum(len(e.ids) for e in row) + len(item.ids) <= length]
        if fitting:
            fitting[0].append(item)
            continue
        misses += 1
        if misses > 3:
            yield _tensors(open_rows, length)
            open_rows, misses = [[] for _ in range(rows)], 0
            open_rows[0].append(item)


def _tensors(rows: list[list[Encoded]], length: int) -> Batch:
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    positions, segments, weights = torch.zeros_like(ids), torch.zeros_like(ids), torch.zeros(len(rows), length)
    for index, row in enumerate(rows):
        start = 0
        for segment, item in enumerate(row, start=1):
            end = start + len(item.ids)
            ids[index, start:end] = torch.tensor(item.ids)
            positions[index, start:end] = torch.arange(len(item.ids))
            segments[index, start:end] = segment
            weights[index, start:end] = torch.tensor(item.weights)
            weights[index, start] = 0.0  # nothing predicts the first token
            start = end
    return Batch(ids, positions, segments, weights)
