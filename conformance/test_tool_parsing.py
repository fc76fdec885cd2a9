"""TOOL: typed tool calls stay correct with MTP, which puts several tokens into one delta."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_equal, expect_no_objection, expect_reliable
from conformance.profile.tolerances import Tolerances
from conformance.views.answers import Tools
from conformance.views.chat import Chat

CALLING = ("call", "nested", "two", "thought", "rounds", "awkward", "required", "named")
PARTLY_CALLING = ("load", "responses", "anthropic")  # these groups have cases without calls as well


@check(
    "TOOL-01",
    level="smoke",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="Tool calls with typed arguments are exact when the answer is not streamed.",
)
def test_tool_calls(tools: Tools) -> None:
    """By name, arguments and their types: 3, 3.5, true and "3" are different values."""
    expect_equal(tools.whole, tools.expected, source=tools)


@check(
    "TOOL-02",
    level="smoke",
    severity="wrong output",
    response="compare-answers",
    oracle="paired",
    claim="Streamed tool calls equal those that are not streamed.",
    upstream="vllm#41967",
)
def test_streamed_tool_calls(tools: Tools) -> None:
    """The streamed calls are reassembled from their deltas."""
    expect_equal(tools.streamed, tools.whole_with_calls(), source=tools)


@check(
    "TOOL-03",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="A tool call with scalar arguments is exact, streamed or not.",
    chats=("call",),
)
def test_one_call(chat: Chat) -> None:
    """Not streamed, and streamed in small and large deltas. The server without MTP is the control."""
    expect_no_objection(chat)


@check(
    "TOOL-04",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="A tool call with arrays and objects as arguments is exact.",
    chats=("nested",),
)
def test_nested_arguments(chat: Chat) -> None:
    """Some of them are empty."""
    expect_no_objection(chat)


@check(
    "TOOL-05",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="Two tool calls in one turn are exact.",
    upstream="vllm#41967",
    chats=("two",),
)
def test_two_calls(chat: Chat) -> None:
    """One MTP step may hold the end of the first call and the beginning of the second."""
    expect_no_objection(chat)


@check(
    "TOOL-06",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="Tool calls after a thought are exact, and so is the thought.",
    chats=("thought",),
)
def test_calls_after_a_thought(chat: Chat) -> None:
    """One MTP step may hold the end of the thought and the beginning of the call."""
    expect_no_objection(chat)


@check(
    "TOOL-07",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="Answers and calls stay correct after tool results and over several rounds.",
    chats=("result", "rounds"),
)
def test_rounds(chat: Chat) -> None:
    """As in an agent: the answer after a tool result, and further calls after several rounds."""
    expect_no_objection(chat)


@check(
    "TOOL-08",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="Tool calls keep strings with special characters unchanged.",
    chats=("awkward", "delimiter"),
)
def test_awkward_strings(chat: Chat) -> None:
    """Quotes, braces, parts of delimiters, other scripts, emoji. A whole unescaped delimiter ends the string."""
    expect_no_objection(chat)


@check(
    "TOOL-09",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="The server follows tool_choice: required, named and none.",
    chats=("required", "named", "none"),
)
def test_tool_choice(chat: Chat) -> None:
    """With none, the answer has no call, and the text has no trace of one."""
    expect_no_objection(chat)


@check(
    "TOOL-10",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="Seventeen chats at once get the same answers as single chats.",
    chats=("load",),
)
def test_under_load(chat: Chat) -> None:
    """Calls, thoughts, results and JSON at the same time."""
    expect_no_objection(chat)


@check(
    "TOOL-11",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="Tool calls are as reliable as the level requires.",
    chats=(*CALLING, *PARTLY_CALLING),
)
def test_reliability(chat: Chat, tolerances: Tolerances) -> None:
    """No failure in enough trials that a less reliable server would have failed one (pass^k, no retries)."""
    expect_reliable(chat.with_calls(), tolerances["tool_calls_lost"])
