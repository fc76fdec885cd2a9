"""Random numbers decide acceptance in a real server and are gone afterwards; CAL-01 sees if their rates are wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.paths import PYTHONPATH

from conformance.errors import ObservationError
from conformance.evidence.folder import Evidence
from conformance.judging.verdict import Outcome, Verdict
from conformance.observers import calibration
from conformance.profile.arms import MTP
from conformance.profile.profile import load_profile
from conformance.serving.command import PROBE, vllm_launch
from conformance.serving.server import Server, Start, start_together
from conformance.workload.client import client
from conformance.workload.prompts import MIXED, load_prompts
from negative_controls.judge_documents import outcome
from negative_controls.museum.exhibits import Display, mark
from negative_controls.museum.show import Shown

pytestmark = pytest.mark.server

PROFILE = load_profile("cpu", "micro-26b-a4b-nvfp4", "qualify")
PROMPT = replace(load_prompts(PROFILE.prompts / MIXED)[0], max_tokens=64)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("coins")
    launch = vllm_launch(PROFILE, MTP, folder / "snapshots", os.environ)
    command = tuple("negative_controls.museum.worker.Museum" if word == PROBE else word for word in launch.command)
    here = {**launch.environment, "PYTHONPATH": PYTHONPATH}
    bounds = PROFILE.hardware.bounds
    start = Start(replace(launch, command=command, environment=here), "coins", folder / "log", bounds, lambda _: None)
    started = start_together([start], bounds.stop_seconds, lambda _: None)["coins"]
    assert isinstance(started, Server), started
    yield started
    started.stop(bounds.stop_seconds)


def judged(server: Server, directory: Path) -> Outcome:
    """CAL-01 of the server as it is now."""
    for folder in ("observations", "logs", ".locks"):
        (directory / folder).mkdir()
    (directory / "observations" / "refusals.json").write_text('{"refusals": []}')
    evidence = Evidence(directory, recording=True)
    servers = Shown(PROFILE, evidence, {MTP: server})
    seen = evidence.observe("calibration", lambda: calibration.observe(PROFILE, servers, evidence))
    for row in seen["rates"]:  # only the random numbers decided, and no decision was lost
        assert row["decided"] == sum(request["drafts"] for trial in row["trials"] for request in trial)
    return outcome("CAL-01", {"calibration": seen})


def test_the_instrument_is_calibrated(server: Server, tmp_path: Path) -> None:
    found = judged(server, tmp_path)
    assert found.verdict is Verdict.PASS, found.sentence


@mark("calibration/coins_off_by_0_05")
def test_coins_whose_rates_are_0_05_off_are_caught(server: Server, tmp_path: Path, display: Display) -> None:
    server.call("conformance_offset_coins", 30, by=-0.05)
    try:
        found = judged(server, tmp_path)
    finally:
        server.call("conformance_offset_coins", 30, by=0.0)
    display(["CAL-01"], {"CAL-01": found})
    assert found.verdict is Verdict.FAIL, found.sentence
    assert 'joint acceptance at position 1 at the rates "near one" is' in found.findings[0].sentence
    assert "but the true value is 0.980; by chance this happens in" in found.findings[0].sentence


def test_the_same_seed_decides_the_same_and_afterwards_the_target_decides_again(server: Server) -> None:
    with client(server, 60) as asking:

        def counts(seed: int) -> Any:
            server.call("conformance_coins_begin", 30, rates=[0.7, 0.6, 0.5, 0.4], seed=seed)
            try:
                return [asking.ask(PROMPT, ignore_eos=True).speculation for _ in range(3)]
            finally:
                server.call("conformance_coins_end", 30)

        before, hooks = asking.ask(PROMPT), server.call("conformance_sampler", 30)
        assert counts(1) == counts(1)
        assert counts(1) != counts(2)
        assert server.call("conformance_sampler", 30) == hooks
        assert replace(asking.ask(PROMPT), seconds=before.seconds) == before


def test_ending_what_was_not_begun_is_refused_and_harms_nobody(server: Server) -> None:
    with pytest.raises(ObservationError, match="conformance_coins_end failed"):
        server.call("conformance_coins_end", 30)
    with client(server, 60) as asking:
        assert asking.ask(PROMPT).output_tokens
