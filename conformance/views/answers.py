"""The tool calls in the server's answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError
from conformance.formats.canonical_json import canonical_json
from conformance.formats.json_files import parse_json


@dataclass(frozen=True)
class Tools:
    """The ``tools`` observation: the call of each prompt in canonical JSON, in which 3, 3.5, true and "3" differ."""

    expected: Mapping[str, str]
    whole: Mapping[str, str]
    streamed: Mapping[str, str]
    calls: int
    source: str = "observations/tools.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation."""
        rows = facts["prompts"]
        return cls(
            {row["id"]: _expected(row["expected"]) for row in rows},
            {row["id"]: _describe(row["whole"]) for row in rows},
            {row["id"]: _describe(row["streamed"]) for row in rows},
            sum(len(row["whole"]["calls"]) for row in rows),
        )

    def whole_with_calls(self) -> Mapping[str, str]:
        """The answers that were not streamed, which streamed answers are compared with.

        Raises:
            ObservationError: no answer has a tool call.
        """
        if not self.calls:
            raise ObservationError(
                "no tool call came back without streaming, so there is nothing to compare streamed calls with"
            )
        return self.whole


def _expected(call: Mapping[str, Any] | None) -> str:
    return "no call" if call is None else _canonical(call["name"], call["arguments"])


def _describe(answer: Mapping[str, Any]) -> str:
    calls = " and ".join(_call(call) for call in answer["calls"])
    if not calls:
        return "no call" if not answer["content"] else f"no call but the text {answer['content']}"
    return calls + (f" beside the text {answer['content']}" if answer["content"].strip() else "")


def _call(call: Mapping[str, str]) -> str:
    try:
        return _canonical(call["name"], parse_json(call["arguments"]))
    except ValueError:
        return f"{call['name']} with arguments that are not JSON, {call['arguments']}"


def _canonical(name: str, arguments: Any) -> str:
    return f"{name}({canonical_json(arguments)})"
