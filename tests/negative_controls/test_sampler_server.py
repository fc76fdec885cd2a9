"""What decides in a real server whether a draft is accepted: random numbers that the suite sets, or vLLM's own sampler.

The random numbers are gone afterwards, and CAL-01 sees if their rates are wrong. What the sampler does wrong shows in
samples and in answers to questions. None of this measures time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance.errors import ObservationError
from conformance.judging.verdict import Outcome, Verdict
from conformance.observers import observer, task_score
from conformance.observers.served_answers import drafts
from conformance.profile.arms import MTP, PLAIN
from conformance.profile.profile import load_profile
from conformance.serving.server import Server
from conformance.workload.client import Answer, client
from conformance.workload.prompts import MIXED, load_prompts
from negative_controls.faux_servers import recording
from negative_controls.judge_documents import outcome
from negative_controls.museum.exhibits import Display, mark, marked
from negative_controls.museum.show import Shown, broken, on_show

pytestmark = pytest.mark.server

PROFILE = load_profile("cpu", "micro-26b-a4b-nvfp4", "qualify")
MENDED = "temperature_reaches_every_token"
PROMPT = replace(load_prompts(PROFILE.prompts / MIXED)[0], max_tokens=64)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    with on_show(PROFILE, tmp_path_factory.mktemp("sampler"), MTP, PLAIN) as up:
        yield up


@pytest.fixture
def server(servers: dict[str, Server]) -> Server:
    """The one whose drafts are accepted or not."""
    return servers[MTP]


def observed(name: str, servers: dict[str, Server], directory: Path) -> dict[str, Any]:
    """What an observer sees of the servers as they are now."""
    evidence = recording(directory / "evidence")
    both = Shown(PROFILE, evidence, servers)
    return {name: evidence.observe(name, lambda: observer(name)(PROFILE, both, evidence))}


def calibrated(servers: dict[str, Server], directory: Path) -> Outcome:
    """CAL-01 of the server as it is now."""
    seen = observed("calibration", servers, directory)
    for row in seen["calibration"]["rates"]:  # only the random numbers decided, and no decision was lost
        assert row["decided"] == sum(request["drafts"] for trial in row["trials"] for request in trial)
    return outcome("CAL-01", seen)


def test_the_instrument_is_calibrated(servers: dict[str, Server], tmp_path: Path) -> None:
    found = calibrated(servers, tmp_path)
    assert found.verdict is Verdict.PASS, found.sentence


@mark("calibration/coins_off_by_0_05")
def test_coins_whose_rates_are_0_05_off_are_caught(
    servers: dict[str, Server], server: Server, tmp_path: Path, display: Display
) -> None:
    server.call("conformance_offset_coins", 30, by=-0.05)
    try:
        found = calibrated(servers, tmp_path)
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


def sampled(servers: dict[str, Server], directory: Path) -> Outcome:
    """LOSS-04 of the servers as they are now."""
    return outcome("LOSS-04", observed("sampling", servers, directory))


def test_samples_of_a_mended_server_are_distributed_alike(servers: dict[str, Server], tmp_path: Path) -> None:
    with broken(servers[MTP], MENDED):
        assert sampled(servers, tmp_path).verdict is Verdict.PASS


@pytest.mark.parametrize("exhibit", ["accepts_everything", *marked("load", ["resamples_wrongly"])])
def test_a_wrong_rejection_sampler_shows_in_the_samples(
    servers: dict[str, Server], tmp_path: Path, exhibit: str, display: Display
) -> None:
    with broken(servers[MTP], MENDED), broken(servers[MTP], exhibit):
        found = sampled(servers, tmp_path)
    display(["LOSS-04"], {"LOSS-04": found})
    assert found.verdict is Verdict.FAIL, found
    assert "the distributions differ" in found.sentence


def test_memory_that_nobody_wrote_to_is_no_temperature(servers: dict[str, Server], tmp_path: Path) -> None:
    """This vLLM has vllm#55005 on CPUs. If this test fails, the defect is fixed, and the waiver of LOSS-04 can go."""
    assert sampled(servers, tmp_path).verdict is Verdict.FAIL


@pytest.fixture(scope="module")
def questions_once() -> Iterator[None]:
    """The server without MTP is asked the questions once for all exhibits, none of which changes it."""
    ask, told = task_score._answers, list[list[Answer]]()

    def answers(server: Server, **named: Any) -> list[Answer]:
        if drafts(server):
            return ask(server, **named)
        if not told:
            told.append(ask(server, **named))
        return told[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_score, "_answers", answers)
        yield


def scored(servers: dict[str, Server], directory: Path) -> Outcome:
    """TASK-01 of the servers as they are now."""
    return outcome("TASK-01", observed("task_score", servers, directory))


@pytest.mark.usefixtures("questions_once")
def test_a_healthy_server_answers_as_many_questions_with_mtp(servers: dict[str, Server], tmp_path: Path) -> None:
    found = scored(servers, tmp_path)
    assert found.verdict is Verdict.PASS, found


@pytest.mark.usefixtures("questions_once")
def test_a_target_that_reads_another_request_answers_fewer_questions(
    servers: dict[str, Server], tmp_path: Path
) -> None:
    with broken(servers[MTP], "target_reads_another_rows_kv"):
        found = scored(servers, tmp_path)
    assert found.verdict is Verdict.FAIL, found
    assert "share of right answers with MTP minus that without -0." in found.sentence


@pytest.mark.usefixtures("questions_once")
def test_a_sampler_that_accepts_everything_loses_questions_but_few(servers: dict[str, Server], tmp_path: Path) -> None:
    """This draft is nearly always right. LOSS-02 fails this sampler; 120 questions alone do not decide."""
    with broken(servers[MTP], "accepts_everything"):
        found = scored(servers, tmp_path)
    assert found.verdict is Verdict.INCONCLUSIVE, found
    assert "; lost: " in found.findings[0].note
