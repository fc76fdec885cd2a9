"""TOOL: typed tool calls survive MTP, which puts several tokens into one delta."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_equal, expect_no_objection, expect_reliable
from conformance.profile.tolerances import Tolerances
from conformance.views.answers import Tools
from conformance.views.chat import Chats

CALLING = ("call", "nested", "two", "thought", "rounds", "awkward", "required", "named")
CALLING_TOO = ("load", "responses", "anthropic")  # among other things


@check("TOOL-01", level="smoke", claim="Typed tool calls come back exact, in one piece.")
def test_tool_calls(tools: Tools) -> None:
    """Name, arguments and their types; 3, 3.5, true and "3" differ."""
    expect_equal(tools.whole, tools.expected, source=tools)


@check("TOOL-02", level="smoke", claim="Streamed tool calls are the same as in one piece.", upstream="vllm#41967")
def test_streamed_tool_calls(tools: Tools) -> None:
    """Reassembled from their deltas."""
    expect_equal(tools.streamed, tools.whole_with_calls(), source=tools)


@check("TOOL-03", level="qualify", claim="One call of scalars comes back exact, however it is delivered.")
def test_one_call(chats: Chats) -> None:
    """In one piece and streamed in small and large deltas, with the server without MTP as control."""
    expect_no_objection(chats("call"))


@check("TOOL-04", level="qualify", claim="Arrays and objects in arguments come back exact.")
def test_nested_arguments(chats: Chats) -> None:
    """Empty ones too."""
    expect_no_objection(chats("nested"))


@check("TOOL-05", level="qualify", claim="Two calls in a turn come back exact.", upstream="vllm#41967")
def test_two_calls(chats: Chats) -> None:
    """One step of MTP may hold the end of the first call and the beginning of the second."""
    expect_no_objection(chats("two"))


@check("TOOL-06", level="qualify", claim="Calls after a thought come back exact, and so does the thought.")
def test_calls_after_a_thought(chats: Chats) -> None:
    """One step of MTP may hold the end of the thought and the beginning of the call."""
    expect_no_objection(chats("thought"))


@check("TOOL-07", level="qualify", claim="An agent's rounds of calls, results and answers go on right.")
def test_rounds(chats: Chats) -> None:
    """The answer after a result, and further calls after several rounds."""
    expect_no_objection(chats("result", "rounds"))


@check("TOOL-08", level="qualify", claim="Strings with awkward characters survive a call.")
def test_awkward_strings(chats: Chats) -> None:
    """Quotes, braces, halves of delimiters, other scripts, emoji; a whole delimiter, unescaped, ends the string."""
    expect_no_objection(chats("awkward", "delimiter"))


@check("TOOL-09", level="qualify", claim="tool_choice is heard: required, named and none.")
def test_tool_choice(chats: Chats) -> None:
    """With none there is no call, and no trace of one in the text."""
    expect_no_objection(chats("required", "named", "none"))


@check("TOOL-10", level="qualify", claim="Seventeen chats at once get the answers that they get alone.")
def test_under_load(chats: Chats) -> None:
    """Calls, thoughts, results and JSON at the same time."""
    expect_no_objection(chats("load"))


@check("TOOL-11", level="qualify", claim="Tool calls are as reliable as the level asks.")
def test_reliability(chats: Chats, tolerances: Tolerances) -> None:
    """No failure in so many trials that a worse server would have shown one (pass^k, no retries)."""
    expect_reliable(chats(*CALLING, *CALLING_TOO).calling(), tolerances["tool_calls_lost"])
