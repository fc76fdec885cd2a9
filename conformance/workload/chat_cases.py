"""Chats with a known right answer: rows of fixtures/prompts/chat.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass as table

from conformance.formats.toml_tables import STRICT
from conformance.workload.prompts import load_rows

CHAT = "chat.jsonl"  # in the profile's folder of prompts


@table(frozen=True, config=STRICT)
class Expected:
    """The expected answer; None and empty values expect nothing. All but the first two fields are about its text."""

    calls: tuple[dict[str, Any], ...] = ()  # name and arguments, in order
    reasons: bool | None = None  # whether the answer has thoughts
    content: str | None = None
    json: Any = None  # the value of the text as JSON
    one_of: tuple[str, ...] = ()
    pattern: str | None = None  # a regular expression for the whole text


@table(frozen=True, config=STRICT)
class Case:
    """One chat: the request without model and temperature, and the expected answer."""

    id: str
    group: str
    licence: str
    messages: tuple[dict[str, Any], ...]
    max_tokens: int
    expected: Expected
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: Any = None
    chat_template_kwargs: dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None

    def question(self) -> dict[str, Any]:
        """The body of the request for the official client."""
        beside = {"chat_template_kwargs": self.chat_template_kwargs, "structured_outputs": self.structured_outputs}
        sent: dict[str, Any] = {
            "messages": list(self.messages),
            "max_tokens": self.max_tokens,
            "extra_body": {name: value for name, value in beside.items() if value is not None},
        }
        optional = {
            "tools": list(self.tools) or None,
            "tool_choice": self.tool_choice,
            "response_format": self.response_format,
        }
        return sent | {name: value for name, value in optional.items() if value is not None}

    def schema_of_text(self) -> Mapping[str, Any]:
        """The JSON schema that the text must follow; without one, a schema that allows everything."""
        schema: Mapping[str, Any] = (self.response_format or {}).get("json_schema", {}).get("schema", {})
        return schema

    def schema_of(self, tool: str) -> Mapping[str, Any] | None:
        """The JSON schema of a tool's parameters; None for a tool that was not offered."""
        for each in self.tools:
            if each["function"]["name"] == tool:
                schema: Mapping[str, Any] = each["function"].get("parameters", {})
                return schema
        return None


def load_cases(path: Path, group: str, count: int) -> Sequence[Case]:
    """The first ``count`` cases of a group.

    Raises:
        UsageError: the file is wrong; the sentence names the file, the line and the mend.
    """
    return [case for case in load_rows(path, Case) if case.group == group][:count]
