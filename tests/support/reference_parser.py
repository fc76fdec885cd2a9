"""A small parser of Gemma 4 that is right: what the template writes is a call, everything else stays visible text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from conformance.formats.gemma4_calls import CALL, CALL_END, CHANNEL, CHANNEL_END, NotNative, read_call
from conformance.inside_vllm.parsing import Asked, Parsed

_THOUGHT = "thought\n"


class ReferenceParser:
    """It has the methods of ``inside_vllm.parsing.Gemma4`` that the trials use, and needs no vLLM."""

    def __init__(self, tokenizer: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def whole(self, asked: Asked, ids: Sequence[int], _stop: int | None = None) -> Parsed:
        prompt = self.decode(asked.prompt_ids)
        return read_answer(self.decode(ids), thinks=CHANNEL in prompt.rpartition(CHANNEL_END)[2])

    def streamed(self, asked: Asked, ids: Sequence[int], _ends: Sequence[int], _stop: int | None = None) -> Parsed:
        """It waits for the end of the answer; so a cut into deltas cannot matter."""
        return ReferenceParser.whole(self, asked, ids)


def read_answer(text: str, thinks: bool) -> Parsed:
    """An answer; ``thinks`` if the prompt has opened the thought."""
    parsed = Parsed()
    while text:
        if thinks:
            thought, mark, text = _until(text.removeprefix(CHANNEL), CHANNEL_END, CALL)
            parsed.add(thought.removeprefix(_THOUGHT), None)
            thinks, text = False, (CALL + text if mark == CALL else text)
            continue
        said, mark, text = _until(text, CHANNEL, CHANNEL_END, CALL, CALL_END)
        parsed.add(None, said)
        thinks = mark == CHANNEL
        if mark == CALL:
            body, ended, text = text.partition(CALL_END)
            _add_call(parsed, body, ended)
    return parsed


def _add_call(parsed: Parsed, body: str, ended: str) -> None:
    inner = body.rpartition(CALL)[2]  # a call may begin although the one before has not ended
    if inner != body:
        parsed.add(None, CALL + body.removesuffix(CALL + inner))
    try:
        call = read_call(inner if ended else "")
    except NotNative:
        parsed.add(None, CALL + inner + ended)
        return
    parsed.add_call(len(parsed.calls), call.name, json.dumps(call.arguments, ensure_ascii=False))


def _until(text: str, *marks: str) -> tuple[str, str, str]:
    """The text before the first of the marks, the mark, and the text after it."""
    places = [(text.find(mark), mark) for mark in marks if mark in text]
    if not places:
        return text, "", ""
    at, mark = min(places)
    return text[:at], mark, text[at + len(mark) :]
