"""A small BPE tokenizer with every special token of Gemma 4, those below 107 at their real ids.

As in the real tokenizer, spaces become ``▁`` and belong to the next word, digits and punctuation are single tokens, and
characters outside the vocabulary are encoded as bytes. There are only few merges. A word therefore has two forms (with
and without a space before it), but a quoted string has the same tokens everywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCABULARY_SIZE = 1536
TEMPLATE = Path(__file__).with_name("chat_template.jinja")
EMPTY_THOUGHT = "{%- if not thinking -%}{{- '<|channel>thought\\n<channel|>' -}}{%- endif -%}"

# Ids of the real tokenizer; the ids between them are <unusedN>, as there.
LOW_SPECIALS = {
    "<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<mask>": 4,
    "<|tool>": 46, "<tool|>": 47, "<|tool_call>": 48, "<tool_call|>": 49, "<|tool_response>": 50,
    "<tool_response|>": 51, '<|"|>': 52, "<|think|>": 98, "<|channel>": 100, "<channel|>": 101,
    "<|turn>": 105, "<turn|>": 106,
}  # fmt: skip
# In the real tokenizer they are the last of 262,144 ids; here they are the last ids, in the same order.
HIGH_SPECIALS = ("<|image>", "<|audio>", "<|image|>", "<|audio|>", "<image|>", "<audio|>", "<|video|>")
FIRST_ORDINARY = 107
EOS_IDS = [1, 106, 50]


def high_id(token: str) -> int:
    """The id of a multimodal special token."""
    return VOCABULARY_SIZE - len(HIGH_SPECIALS) + HIGH_SPECIALS.index(token)


def _skeleton(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    pieces = Regex(r"▁?\p{L}+|▁+|\n+|[^\p{L}▁\n]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pieces, "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Learn the merges from texts without special tokens, and arrange the vocabulary."""
    draft = _skeleton(models.BPE())
    room = VOCABULARY_SIZE - FIRST_ORDINARY - 256 - len(HIGH_SPECIALS)
    trainer = trainers.BpeTrainer(vocab_size=room, show_progress=False)
    # Other scripts and emoji are not in the alphabet; they are encoded as bytes.
    draft.train_from_iterator((re.sub(r"[^\x00-ɏ]", "", text) for text in texts), trainer)
    learned = json.loads(draft.to_str())["model"]
    ordinary = sorted(learned["vocab"], key=lambda piece: learned["vocab"][piece])

    by_id = {number: token for token, number in LOW_SPECIALS.items()}
    names = [by_id.get(number, f"<unused{number}>") for number in range(FIRST_ORDINARY)]
    names += [f"<0x{byte:02X}>" for byte in range(256)] + ordinary
    names += [f"<unused{number}>" for number in range(len(names), VOCABULARY_SIZE - len(HIGH_SPECIALS))]
    vocabulary = {token: number for number, token in enumerate((*names, *HIGH_SPECIALS))}
    merges = [tuple(merge) for merge in learned["merges"]]

    tokenizer = _skeleton(
        models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    tokenizer.add_special_tokens([*LOW_SPECIALS, *HIGH_SPECIALS])
    return tokenizer


def template(empty_thought: bool) -> str:
    """The chat template; that of E2B and E4B writes no empty thought before an answer without thinking."""
    text = TEMPLATE.read_text(encoding="utf-8")
    return text if empty_thought else text.replace(EMPTY_THOUGHT, "")


def for_transformers(tokenizer: Tokenizer, empty_thought: bool = True) -> PreTrainedTokenizerFast:
    """The same tokenizer in the form of checkpoints, with the chat template."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
        chat_template=template(empty_thought),
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )
