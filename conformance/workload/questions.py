"""Questions with checkable answers: rows of fixtures/prompts/questions.jsonl, or of a user's own set."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic.dataclasses import dataclass as table

from conformance.formats.toml_tables import STRICT
from conformance.workload.prompts import Prompt, load_rows

QUESTIONS = "questions.jsonl"  # in the profile's folder of prompts
# What of an answer is compared: its tool calls, its text as JSON, its whole text or last line, its last number, or the
# letter of a choice.
Rule = Literal["calls", "json", "text", "number", "choice"]


@table(frozen=True, config=STRICT)
class Question:
    """One question, and its only right answer: calls are a list of name and arguments, a choice is its letter."""

    id: str
    category: str
    licence: str
    messages: tuple[dict[str, Any], ...]
    max_tokens: int
    rule: Rule
    expected: Any
    tools: tuple[dict[str, Any], ...] = ()
    chat_template_kwargs: dict[str, Any] | None = None

    def prompt(self) -> Prompt:
        """The question as the client asks it."""
        return Prompt(
            self.id,
            self.category,
            self.licence,
            self.messages,
            self.max_tokens,
            self.tools,
            self.chat_template_kwargs,
        )


def load_questions(path: Path) -> list[Question]:
    """The questions of a JSON Lines file.

    Raises:
        UsageError: the file is wrong; the sentence names the file, the line and the mend.
    """
    return load_rows(path, Question)
