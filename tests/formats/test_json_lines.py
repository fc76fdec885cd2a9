"""Lines end at LF: what JSON leaves as it is inside of a string ends none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.formats import json_lines

ROWS = st.lists(st.text(), min_size=1, max_size=5)


@given(ROWS, st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_json_lines_are_as_many_as_there_are_rows(rows: list[str], end: str) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + end for row in rows)
    assert [json.loads(line) for _, line in json_lines.numbered_lines(text)] == rows


def test_lines_are_numbered_as_an_editor_does() -> None:
    assert list(json_lines.numbered_lines("a\n\n  \nb\u2028c\n")) == [(1, "a"), (4, "b\u2028c")]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_line_of_a_stream_comes_when_it_is_whole(size: int) -> None:
    sent = "data: ä\u2028\r\n\ndata: [DONE]".encode()
    chunks = [sent[place : place + size] for place in range(0, len(sent), size)]
    assert list(json_lines.lines_of_stream(chunks)) == ["data: ä\u2028", "", "data: [DONE]"]
