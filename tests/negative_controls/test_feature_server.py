"""FEATURE on real servers: healthy, and with defects in the one with MTP. Each fails its checks, and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conformance.errors import Unsupported
from conformance.judging.verdict import Outcome, Verdict
from conformance.observers import combination_support, observer, served_answers
from conformance.profile.arms import MTP, PLAIN, SERVED, SERVED_PLAIN
from conformance.profile.combined_features import FEATURES
from conformance.profile.profile import Profile, load_profile
from conformance.serving.command import Launch
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.views.served.combination import Combination
from negative_controls.faux_servers import recording
from negative_controls.judge_documents import FUNCTIONS, judged
from negative_controls.museum import surplus_ids
from negative_controls.museum.exhibits import Display, mark, marked
from negative_controls.museum.features import FEATURE_EXHIBITS
from negative_controls.museum.show import Shown, broken, on_show, shown_launch

pytestmark = pytest.mark.server

PROFILE = load_profile("cpu", "micro-26b-a4b-nvfp4", "qualify")
# Seeds are not asked of a CPU, whose sampling is wrong with MTP. Here it is mended, so they are.
SAMPLED, MENDED = "seeds", "temperature_reaches_every_token"
AS_ON_A_GPU = replace(PROFILE, hardware=replace(PROFILE.hardware, sm=90))
FAMILY = [id for id in FUNCTIONS if id.startswith("FEATURE-")]
OBSERVED = {
    "prefix_caching": ("FEATURE-01", "FEATURE-02", "FEATURE-14"),
    "sampling_options": ("FEATURE-03", "FEATURE-04", "FEATURE-05"),
    "token_scores": ("FEATURE-06", "FEATURE-07"),
    "cut_answers": ("FEATURE-08", "FEATURE-09"),
    "context_limit": ("FEATURE-10",),
    "preemption": ("FEATURE-11",),
    "seeds": ("FEATURE-12",),
    "thinking_budget": ("FEATURE-13",),
}
COMBINED = [f"FEATURE-{number}" for number in (15, 16, 17, 18, 20, 21)]  # their servers do not run on a CPU
# exhibit -> the observation that shows it, and the checks that fail, each with a part of its sentence
EXPECTED: dict[str, tuple[str, dict[str, str]]] = {
    "block_of_another_prefix": ("prefix_caching", {"FEATURE-01": "and the cold answer with MTP differ at token"}),
    "no_hit_with_mtp": ("prefix_caching", {"FEATURE-02": "found nothing in the cache, though it holds this prompt"}),
    "hits_counted_and_not_used": ("prefix_caching", {"FEATURE-14": '"second" with MTP computed '}),
    "seed_ignored": ("seeds", {"FEATURE-12": "the second time with MTP"}),
    "budget_ignored": ("thinking_budget", {"FEATURE-13": "with MTP has a thought of "}),
    "penalty_ignored": ("sampling_options", {"FEATURE-03": '_penalty" '}),
    "logprobs_shifted_by_one": ("token_scores", {"FEATURE-07": "is right in logprobs at place"}),
    "stop_overrun_by_one_token": (
        "sampling_options",
        {"FEATURE-04": '"stop_token_ids, first in a block" has token_ids'},
    ),
    # vLLM also cuts the last token off, as it does with a token that ends a turn.
    "length_reported_as_stop": (
        "sampling_options",
        {"FEATURE-03": '_penalty" has text', "FEATURE-04": "has finish_reason stop with MTP, length without"},
    ),
    "preemption_loses_a_token": ("preemption", {"FEATURE-11": "in the crowd with MTP"}),
}
REFUSED = "FEATURE-05"  # vLLM 0.32.0 refuses min_p and logit_bias with MTP
TIMED = "FEATURE-19"  # a speedup, whose negative controls are damaged observations
WAIVED = "FEATURE-08"  # vLLM 0.32.0 reports cut calls as whole ones, with MTP and without
Judge = Callable[[str], dict[str, Outcome]]


@pytest.fixture(scope="module")
def surplus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file whose existence breaks the API of the server with MTP."""
    return tmp_path_factory.mktemp("switch") / "surplus"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, surplus: Path) -> Iterator[dict[str, Server]]:
    def change(arm: str, launch: Launch) -> Launch:
        if arm == SERVED_PLAIN:
            return launch
        plugin = ("--tool-parser-plugin", str(surplus_ids.__file__))
        return Launch((*launch.command, *plugin), {**launch.environment, surplus_ids.SWITCH: str(surplus)})

    with on_show(PROFILE, tmp_path_factory.mktemp("features"), SERVED, SERVED_PLAIN, change=change) as up:
        yield up


@pytest.fixture(scope="module")
def without_mtp() -> dict[str, Any]:
    """What the server without MTP gave for each observation: it shows no exhibit, so it is asked once."""
    return {}


@pytest.fixture
def outcomes(
    servers: dict[str, Server], tmp_path: Path, without_mtp: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Judge:
    """The checks of one observation of the servers as they are now."""

    def ask_both(name: str, profile: Profile, servers: ServerPool, work: Callable[[Server], Any]) -> dict[str, Any]:
        if name in without_mtp:
            return {PLAIN: without_mtp[name], MTP: work(servers.served())}
        found = served_answers.ask_both(profile, servers, work)
        without_mtp[name] = found[PLAIN]
        return found

    def judge(name: str) -> dict[str, Outcome]:
        evidence, sampled = recording(tmp_path / "evidence"), name == SAMPLED
        profile = AS_ON_A_GPU if sampled else PROFILE
        both = Shown(profile, evidence, servers)
        monkeypatch.setattr(f"conformance.observers.{name}.ask_both", partial(ask_both, name))
        with broken(servers[SERVED], MENDED) if sampled else nullcontext():
            found = evidence.observe(name, lambda: observer(name)(profile, both, evidence))
        return {id: judged(id, {name: found}, {}) for id in OBSERVED[name]}

    return judge


def failures(found: dict[str, Outcome], expected: dict[str, str]) -> None:
    """These checks fail, each with its sentence, and no others."""
    failed = {id: outcome for id, outcome in found.items() if outcome.verdict is Verdict.FAIL}
    assert failed.keys() == expected.keys(), {id: outcome.sentence for id, outcome in found.items()}
    for id, sentence in expected.items():
        assert sentence in failed[id].sentence


def test_every_check_is_shown() -> None:
    assert sorted([*(id for ids in OBSERVED.values() for id in ids), *COMBINED, TIMED]) == sorted(FAMILY)
    assert EXPECTED.keys() == FEATURE_EXHIBITS.keys()


@pytest.mark.parametrize("name", OBSERVED)
def test_healthy_servers_pass(outcomes: Judge, name: str) -> None:
    for id, found in outcomes(name).items():
        known = {REFUSED: Verdict.UNSUPPORTED, WAIVED: Verdict.FAIL}
        assert found.verdict is known.get(id, Verdict.PASS), (id, found.sentence)
        if id == REFUSED:
            assert "min_p, logit_bias" in found.sentence
        if id == WAIVED:
            assert 'finish_reason "tool_calls"' in found.sentence


@pytest.mark.parametrize("exhibit", marked("features", FEATURE_EXHIBITS))
def test_an_exhibit_is_caught(servers: dict[str, Server], outcomes: Judge, exhibit: str, display: Display) -> None:
    name, expected = EXPECTED[exhibit]
    with broken(servers[SERVED], exhibit):
        found = outcomes(name)
    display(expected, found)
    failures(found, expected)


@mark("features/surplus_ids")
def test_surplus_ids_behind_a_stop_string_are_caught(outcomes: Judge, surplus: Path, display: Display) -> None:
    surplus.touch()
    try:
        found = outcomes("sampling_options")
    finally:
        surplus.unlink()
    expected = {"FEATURE-04": '"stop string, streamed" has token_ids'}
    display(expected, found)
    failures(found, expected)


def test_seeds_are_not_asked_of_a_cpu(servers: dict[str, Server], tmp_path: Path) -> None:
    """This vLLM has vllm#55005 on CPUs; test_sampler_server.py says when it is fixed."""
    evidence = recording(tmp_path / "evidence")
    with pytest.raises(Unsupported, match="vllm#55005"):
        observer(SAMPLED)(PROFILE, Shown(PROFILE, evidence, servers), evidence)


def test_a_combination_is_asked_of_two_servers_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU refuses every other feature, so the model runner that it has is switched on by name.

    test_combination_support.py asks vLLM itself what it refuses.
    """
    accepted = {"vllm_version": "0.32.0", "refusals": dict.fromkeys(FEATURES, "")}
    monkeypatch.setattr(combination_support, "observe", lambda *_: accepted)
    served = replace(PROFILE.hardware.as_served(), combinations=("v1_runner",))
    profile = replace(PROFILE, hardware=replace(PROFILE.hardware, served=served))
    evidence = recording(tmp_path / "evidence")
    pool = ServerPool(profile, evidence, launcher=shown_launch)
    try:
        name = "combination-v1_runner"
        found = evidence.observe(name, lambda: observer(name)(profile, pool, evidence))
    finally:
        pool.close()
    outcome = judged("FEATURE-18", {}, {"other_model_runner": lambda _: Combination.of(found)})
    assert outcome.verdict is Verdict.PASS, outcome.sentence
    assert "preemptions: 0" not in outcome.findings[0].note
