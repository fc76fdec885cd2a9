"""Defects that show only under load, put back into a running server: which checks see each, and which do not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from conformance.errors import ObservationError
from conformance.evidence.folder import Evidence
from conformance.judging.check import outcome_of
from conformance.judging.verdict import Outcome, Verdict
from conformance.observers import load, observer
from conformance.profile.arms import MTP
from conformance.profile.profile import load_profile
from conformance.serving.server import Server
from conformance.workload.client import Client
from conformance.workload.prompts import Prompt
from negative_controls.judge_documents import judged
from negative_controls.museum.exhibits import Display, mark, marked
from negative_controls.museum.show import Shown, broken

pytestmark = [pytest.mark.server, pytest.mark.alone]

QUALIFY = load_profile("cpu", "micro-26b-a4b-nvfp4", "qualify")
SMALL = replace(
    QUALIFY.sizes, rounds={"1": 4, "8": 3}, spare_rounds={}, longest_answer=48, tie_prompts=4, again_every=2
)
PROFILE = replace(QUALIFY, sizes=SMALL)
WATCHING = ("ACC-01", "ACC-02", "ACC-03", "ACC-04", "LOSS-01", "LOSS-02", "LOSS-03", "SPEED-01", "SPEED-02")
REFUSAL = "output tokens do not fit|/metrics does not fit the output"  # of a check, or of the observer
SLOW = ("draft_never_right", "slow_draft_step")  # they are slower than any CPU can explain
SPEED = {"SPEED-01", "SPEED-02"}

# exhibit -> the checks that must fail, and those that may fail with so few prompts; no others may fail
EXPECTED: dict[str, tuple[set[str], set[str]]] = {
    "accepts_everything": ({"LOSS-02"}, {"LOSS-01", "LOSS-03"}),
    "resamples_the_runner_up": ({"LOSS-02"}, {"LOSS-01", "LOSS-03"}),
    "target_reads_another_rows_kv": (
        {"LOSS-01", "LOSS-02"},
        {"LOSS-03", "ACC-01", "ACC-02", "ACC-03", "ACC-04", "SPEED-02"},  # times of other lengths do not compare
    ),
    "draft_reads_another_rows_kv": ({"ACC-03"}, {"ACC-01", "ACC-02", "ACC-04", "SPEED-02"}),
    "draft_never_right": ({"ACC-01", "ACC-02", "ACC-04", "SPEED-01", "SPEED-02"}, {"ACC-03"}),
    "padding_reaches_the_text": (
        {"LOSS-02", "LOSS-03"},
        {"LOSS-01", "ACC-01", "ACC-02", "ACC-03", "ACC-04", "SPEED-01", "SPEED-02"},
    ),
    "draft_at_90_percent": ({"ACC-04"}, {"SPEED-01", "SPEED-02"}),
    "slow_draft_step": ({"SPEED-01", "SPEED-02"}, set()),
}


class Remembering(load.Arm):
    """A server whose answers and times are asked once: without MTP it shows no exhibit, so it answers the same again.

    A speed needs both servers at the same time, so it is not judged by remembered answers.
    """

    known: ClassVar[dict[tuple[object, ...], Any]] = {}

    def __init__(self, server: Server, asking: Client, k: int | None) -> None:
        super().__init__(server, asking, k)
        self._healthy, self._times = k is None, Counter[tuple[object, ...]]()

    def ask(self, prompt: Prompt) -> load.Asked:
        return self._once((prompt.id, prompt.max_tokens), lambda: super(Remembering, self).ask(prompt))

    def at_once(self, prompts: Sequence[Prompt]) -> load.Block:
        asked = tuple((prompt.id, prompt.max_tokens) for prompt in prompts)
        return self._once(asked, lambda: super(Remembering, self).at_once(prompts))

    def _once(self, asked: tuple[object, ...], ask: Callable[[], Any]) -> Any:
        if not self._healthy:
            return ask()
        key = (*asked, self._times[asked])  # the A/A comparison asks the same twice
        self._times[asked] += 1
        if key not in self.known:
            self.known[key] = ask()
        return self.known[key]


@pytest.fixture
def servers(timed_servers: dict[str, Server]) -> dict[str, Server]:
    return timed_servers


def observed(servers: dict[str, Server], directory: Path, *names: str) -> dict[str, Any]:
    """What the observers see of the servers as they are now."""
    evidence = Evidence(directory, recording=True)
    for folder in ("observations", "logs", ".locks"):
        (directory / folder).mkdir()
    both = Shown(PROFILE, evidence, servers)
    return {name: evidence.observe(name, lambda name=name: observer(name)(PROFILE, both, evidence)) for name in names}


def watched(servers: dict[str, Server], directory: Path, floors_hold: bool = False) -> dict[str, Outcome]:
    """What the checks make of the servers; ``floors_hold`` applies the floors of speed on every CPU."""
    try:
        documents = observed(servers, directory, "checkpoint", "load", "near_ties")
    except ObservationError as error:  # the observer refuses what the server says, so no check can be judged
        return dict.fromkeys(WATCHING, outcome_of(error))
    if floors_hold:
        documents["load"]["linear_fallback"] = None
    return {id: judged(id, documents, {}) for id in WATCHING}


def failing(outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    """The FAILs and ERRORs, each with its sentence."""
    bad = (Verdict.FAIL, Verdict.ERROR)
    return {id: f"{found.verdict}: {found.sentence}" for id, found in outcomes.items() if found.verdict in bad}


def test_a_healthy_server_fails_nothing(
    servers: dict[str, Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Remembering.known.clear()  # so everything is asked here
    monkeypatch.setattr(load, "Arm", Remembering)
    assert failing(watched(servers, tmp_path)) == {}


@pytest.mark.parametrize("exhibit", marked("load", EXPECTED))
def test_an_exhibit_is_caught_where_it_shows_and_nowhere_else(
    servers: dict[str, Server], tmp_path: Path, exhibit: str, display: Display, monkeypatch: pytest.MonkeyPatch
) -> None:
    must, may = EXPECTED[exhibit]
    if not must & SPEED:
        monkeypatch.setattr(load, "Arm", Remembering)
    with broken(servers[MTP], exhibit):
        outcomes = watched(servers, tmp_path, floors_hold=exhibit in SLOW)
    if not must & SPEED:
        outcomes = {id: found for id, found in outcomes.items() if id not in SPEED}
    display(must, outcomes)
    found = failing(outcomes)
    assert all(found[id].startswith("FAIL: ") for id in must & found.keys()), found
    assert must <= found.keys() <= must | may, found


@mark("load/accepted_counted_one_short")
def test_counters_that_do_not_fit_the_answers_are_no_acceptance(
    servers: dict[str, Server], tmp_path: Path, display: Display, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is unknown which counter is wrong, so nothing is judged by them."""
    monkeypatch.setattr(load, "Arm", Remembering)
    with broken(servers[MTP], "accepted_counted_one_short"):
        outcomes = watched(servers, tmp_path)
    refused = ("ACC-01", "ACC-02", "ACC-04")
    display(refused, outcomes)
    assert all(outcomes[id].verdict is Verdict.ERROR for id in refused), outcomes
    assert all(re.search(REFUSAL, outcomes[id].sentence) for id in refused), outcomes
    assert outcomes["LOSS-02"].verdict is not Verdict.FAIL
