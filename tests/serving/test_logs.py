"""What is read of a log that grows or is too large."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.evidence import redaction
from conformance.evidence.redaction import redact_file
from conformance.serving import logs


def write(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.writelines(lines)


def test_only_a_line_that_says_something_new_is_news(tmp_path: Path) -> None:
    log = tmp_path / "mtp.log"
    log.touch()
    news = logs.News(log)
    assert not news.any()
    write(log, "INFO 11-29 14:25:00 [shm.py:9] trying again\n")
    assert news.any()
    write(log, "INFO 11-29 14:25:01 [shm.py:9] trying again\nINFO 11-29 14:25:02 [shm.py:9] trying ")
    assert not news.any()
    write(log, "again\n2026-11-29T14:25:03,123 ")
    assert not news.any()
    write(log, "step 1\n")
    assert news.any()
    write(log, "shards: 45%\r")
    assert news.any()
    write(log, "shards: 46%\r")
    assert news.any()


def test_a_flood_is_news_once(tmp_path: Path) -> None:
    log = tmp_path / "mtp.log"
    write(log, *["noise\n"] * logs.END)
    news = logs.News(log)
    assert news.any()
    write(log, *["noise\n"] * logs.END)
    assert not news.any()


def test_the_ends_of_a_large_log_are_read_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, other = tmp_path / "mtp.log", tmp_path / "snapshot.json"
    text = "".join(f"line {number}\n" for number in range(1000))
    for path in (log, other):
        path.write_text(text)
    said = logs.read(log, largest=200)
    assert said.startswith("line 0\nline 1\n")
    assert said.endswith("line 998\nline 999\n")
    found = re.fullmatch(r"(.*)\n\[(\d+) bytes are left out here\]\n(.*)", said, re.DOTALL)
    assert found
    head, missing, tail = found.groups()
    assert len(head) + int(missing) + len(tail) == len(text)
    assert text.startswith(head)
    assert text.endswith(tail)
    assert logs.last_line(logs.read_end(log)) == "line 999"
    monkeypatch.setattr(redaction, "LARGEST_LOG", 200)
    for path in (log, other):
        redact_file(path)
    assert log.stat().st_size < 300
    assert other.read_text() == text


def test_what_is_no_log_has_no_end(tmp_path: Path) -> None:
    assert logs.read_end(tmp_path / "no.log") == logs.read(tmp_path / "no.log") == ""


LINES = (
    *("ValueError: too long", "ERROR 11-23 14:25:33 [core.py:133] a.b.KeyError: 'x'", "serve: error: no such model"),
    *("RuntimeError: failed, see root cause above", "pydantic.ValidationError: 2 validation errors for Config"),
    *(
        "  text below [type=value_error]",
        "(EngineCore pid=7) SystemExit: ",
        "an Error: in text",
        "Error:",
        "",
        "INFO ready",
    ),
)


@given(st.lists(st.sampled_from(LINES), max_size=8))
def test_the_telling_line_is_the_last_error_that_repeats_no_other(lines: list[str]) -> None:
    said = [logs.bare(line) for line in lines]
    errors = [number for number, line in enumerate(said) if logs._ERROR.match(line)]
    causes = [number for number in errors if not logs._ECHO.search(said[number])]
    found = logs._ERROR.match(said[(causes or errors)[-1]]) if errors else None
    told = logs._sentence(found, said[(causes or errors)[-1] + 1 :]) if found else None
    assert logs.telling_line("\n".join(lines)) == told
