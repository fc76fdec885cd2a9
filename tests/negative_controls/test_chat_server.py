"""The chat API on real servers: healthy, with known defects put back, and without the flags that tools need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance import FIXTURES
from conformance.evidence.folder import Evidence
from conformance.judging.diagnose import diagnose, load_known_failures
from conformance.judging.verdict import Outcome, Verdict
from conformance.observers import bad_requests, observer
from conformance.profile.arms import MTP, PLAIN
from conformance.profile.profile import Profile, load_profile
from conformance.serving.command import Launch
from conformance.serving.server import Server
from conformance.views.chat import Chat
from negative_controls.faux_servers import recording
from negative_controls.judge_documents import chat_observations, judged
from negative_controls.museum import api, parsers
from negative_controls.museum.exhibits import Display, mark, marked
from negative_controls.museum.show import Shown, on_show

pytestmark = pytest.mark.server

QUALIFY = load_profile("cpu", "micro-26b-a4b-nvfp4", "qualify")
# Every defect shows in one of so few chats. The main job asks a healthy server more of them.
PROFILE = replace(QUALIFY, sizes=replace(QUALIFY.sizes, calling_cases=2, text_cases=2))
# An answer without an end takes all the tokens that its chat allows, so one chat of each group is asked.
ENDLESS = replace(QUALIFY, sizes=replace(QUALIFY.sizes, calling_cases=1, text_cases=1))
BARE = "bare"  # a server without the flags
FLAGS = ("--enable-auto-tool-choice", "--tool-call-parser")

# defect -> the check that must fail, and words of its sentence
EXPECTED = {
    "second_arguments_dropped": ("TOOL-05", "the arguments of call 2 are "),
    "raw_token_leaks": ("TOOL-03", "raw <|tool_call> in content"),
    "integers_as_strings": ("TOOL-04", "is not of type"),
    "thought_in_content": ("REASON-01", "a thought in content"),
    "boundary_swallows_text": ("REASON-01", "content is "),
    api.REFUSALS: ("API-04", "got HTTP 500 where 400"),
    api.DEPARTURES: ("API-05", "the server wrote all"),
}

# The same for defects in the process of the engine.
ENGINE_EXPECTED = {
    "grammar_skipped_at_the_boundary": ("GRAMMAR-02", "content is"),
    "thought_awaited_by_default": ("GRAMMAR-01", "-omitted-"),
    "tokens_behind_a_draft_unconstrained": ("GRAMMAR-01", "HTTP 500"),
    "whitespace_preferred": ("GRAMMAR-01", "finish_reason is length where"),
}


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that says in which way the parser is broken."""
    return tmp_path_factory.mktemp("switch") / "defect"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, switch: Path) -> Iterator[dict[str, Server]]:
    def change(arm: str, launch: Launch) -> Launch:
        if arm == BARE:
            words = iter(launch.command)
            kept = [word for word in words if word not in FLAGS or (word == FLAGS[1] and next(words) is None)]
            return replace(launch, command=tuple(kept))
        plugin = ("--tool-parser-plugin", str(parsers.__file__))
        return Launch((*launch.command, *plugin), {**launch.environment, parsers.SWITCH: str(switch)})

    with on_show(PROFILE, tmp_path_factory.mktemp("chat"), MTP, PLAIN, BARE, change=change) as up:
        yield up


def outcome(
    id: str, servers: dict[str, Server], evidence: Evidence, mtp: str = MTP, profile: Profile = PROFILE
) -> Outcome:
    """A check of what the servers answer now, or of what the evidence holds already."""
    both = Shown(profile, evidence, {MTP: servers[mtp], PLAIN: servers[PLAIN]})

    def observed(name: str) -> dict[str, Any]:
        return evidence.observe(name, lambda: observer(name)(profile, both, evidence))

    special = {"chat": lambda _: Chat.of([observed(name) for name in chat_observations(id)])}
    return judged(
        id, {"bad_requests": observed("bad_requests")} if id.startswith("API-0") and id > "API-03" else {}, special
    )


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """What the whole servers answer: several checks judge the same requests."""
    return recording(tmp_path_factory.mktemp("healthy") / "evidence")


@contextmanager
def broken(switch: Path, defect: str) -> Iterator[None]:
    switch.write_text(defect)
    try:
        yield
    finally:
        switch.unlink()


WHOLE = [
    *(f"TOOL-{number:02}" for number in range(3, 11)),
    *(f"REASON-{number:02}" for number in range(1, 5)),
    *(f"GRAMMAR-{number:02}" for number in range(1, 6)),
    *(f"API-{number:02}" for number in range(1, 7)),
]
WAIVED = "API-07"


@pytest.mark.parametrize("id", WHOLE)
def test_the_whole_server_passes(id: str, servers: dict[str, Server], healthy: Evidence) -> None:
    found = outcome(id, servers, healthy)
    assert found.verdict is Verdict.PASS, found.sentence


@pytest.mark.parametrize("defect", marked("chat", EXPECTED))
def test_a_broken_parser_or_api_is_caught(
    defect: str,
    servers: dict[str, Server],
    switch: Path,
    tmp_path: Path,
    display: Display,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    id, words = EXPECTED[defect]
    monkeypatch.setattr(bad_requests, "LONG_ANSWER", 128)  # of nine answers, which are computed to their ends
    with broken(switch, defect):
        found = outcome(id, servers, recording(tmp_path / "evidence"))
    display([id], {id: found})
    assert found.verdict is Verdict.FAIL, defect
    assert words in found.sentence


def test_a_broken_grammar_is_what_the_waiver_says(servers: dict[str, Server], healthy: Evidence) -> None:
    found = outcome(WAIVED, servers, healthy)
    assert found.sentence.startswith("broken-grammar got HTTP 500")


@pytest.mark.parametrize("defect", marked("chat", ENGINE_EXPECTED))
def test_a_broken_grammar_of_the_engine_is_caught(
    defect: str, servers: dict[str, Server], tmp_path: Path, display: Display
) -> None:
    id, words = ENGINE_EXPECTED[defect]
    log, before = servers[MTP].log, servers[MTP].log.stat().st_size
    servers[MTP].call("conformance_break", 30, exhibit=defect)
    try:
        profile = ENDLESS if defect == "whitespace_preferred" else PROFILE
        found = outcome(id, servers, recording(tmp_path / "evidence"), profile=profile)
    finally:
        servers[MTP].call("conformance_mend", 30)
    display([id], {id: found}, log.read_bytes()[before:].decode())
    assert found.verdict is Verdict.FAIL
    assert words in found.sentence


@mark("chat/flags_left_out")
def test_a_server_without_the_flags_is_diagnosed(servers: dict[str, Server], tmp_path: Path, display: Display) -> None:
    found = outcome("TOOL-03", servers, recording(tmp_path / "evidence"), mtp=BARE)
    display(["TOOL-03"], {"TOOL-03": found})
    assert found.verdict is Verdict.FAIL
    assert "HTTP 400" in found.sentence
    known = load_known_failures(FIXTURES / "known_failures")
    (diagnosis,) = diagnose("TOOL-03", found.sentence, known)
    assert diagnosis.id == "NOFLAGS"
    assert "silently go to another model" in diagnosis.advice
