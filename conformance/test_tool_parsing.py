"""TOOL: typed tool calls survive MTP, which puts several tokens into one delta."""

from __future__ import annotations

from conformance.harness.check import check, expect_equal
from conformance.harness.views.answers import Tools


@check("TOOL-01", level="smoke", claim="Typed tool calls come back exact, in one piece.")
def test_tool_calls(tools: Tools) -> None:
    """Name, arguments and their types; 3, 3.5, true and "3" differ."""
    expect_equal(tools.whole, tools.expected, source=tools)


@check("TOOL-02", level="smoke", claim="Streamed tool calls are the same as in one piece.", upstream="vllm#41967")
def test_streamed_tool_calls(tools: Tools) -> None:
    """Reassembled from their deltas."""
    expect_equal(tools.streamed, tools.whole_with_calls(), source=tools)
