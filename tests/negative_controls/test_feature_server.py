"""FEATURE on real servers: healthy, and with defects in the one with MTP. Each fails its checks, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.judging.verdict import Outcome, Verdict
from conformance.observers import observer
from conformance.profile.arms import SERVED, SERVED_PLAIN
from conformance.profile.profile import load_profile
from conformance.serving.server import Server
from negative_controls.faux_servers import recording
from negative_controls.judge_documents import FUNCTIONS, judged
from negative_controls.museum.features import FEATURE_EXHIBITS
from negative_controls.museum.show import Shown, on_show

pytestmark = pytest.mark.server

PROFILE = load_profile("cpu", "micro-26b-a4b-nvfp4", "qualify")
FAMILY = [id for id in FUNCTIONS if id.startswith("FEATURE-")]
OBSERVED = {
    "prefix_caching": ("FEATURE-01", "FEATURE-02"),
    "sampling_options": ("FEATURE-03", "FEATURE-04", "FEATURE-05"),
    "token_scores": ("FEATURE-06", "FEATURE-07"),
    "cut_answers": ("FEATURE-08", "FEATURE-09"),
    "context_limit": ("FEATURE-10",),
    "preemption": ("FEATURE-11",),
}
# exhibit -> the observation that shows it, and the checks that fail, each with a part of its sentence
EXPECTED: dict[str, tuple[str, dict[str, str]]] = {
    "block_of_another_prefix": ("prefix_caching", {"FEATURE-01": "and the cold answer with MTP differ at token"}),
    "no_hit_with_mtp": ("prefix_caching", {"FEATURE-02": "found nothing in the cache, though it holds this prompt"}),
    "penalty_ignored": ("sampling_options", {"FEATURE-03": '_penalty" '}),
    "logprobs_shifted_by_one": ("token_scores", {"FEATURE-07": "is right in logprobs at place"}),
    "stop_overrun_by_one_token": (
        "sampling_options",
        {"FEATURE-04": '"stop_token_ids, first in a block" has token_ids'},
    ),
    "preemption_loses_a_token": ("preemption", {"FEATURE-11": "in the crowd with MTP"}),
}
REFUSED = "FEATURE-05"  # vLLM 0.32.0 refuses min_p and logit_bias with MTP
WAIVED = "FEATURE-08"  # vLLM 0.32.0 reports cut calls as whole ones, with MTP and without


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    with on_show(PROFILE, tmp_path_factory.mktemp("features"), SERVED, SERVED_PLAIN) as up:
        yield up


def outcomes(servers: dict[str, Server], folder: Path, name: str) -> dict[str, Outcome]:
    """The checks of one observation of the servers as they are now."""
    evidence = recording(folder)
    both = Shown(PROFILE, evidence, servers)
    found = evidence.observe(name, lambda: observer(name)(PROFILE, both, evidence))
    return {id: judged(id, {name: found}, {}) for id in OBSERVED[name]}


def test_every_check_is_shown() -> None:
    assert sorted(id for ids in OBSERVED.values() for id in ids) == sorted(FAMILY)
    assert EXPECTED.keys() == FEATURE_EXHIBITS.keys()


@pytest.mark.parametrize("name", OBSERVED)
def test_healthy_servers_pass(servers: dict[str, Server], tmp_path: Path, name: str) -> None:
    for id, found in outcomes(servers, tmp_path / "evidence", name).items():
        known = {REFUSED: Verdict.UNSUPPORTED, WAIVED: Verdict.FAIL}
        assert found.verdict is known.get(id, Verdict.PASS), (id, found.sentence)
        if id == REFUSED:
            assert "min_p, logit_bias" in found.sentence
        if id == WAIVED:
            assert 'finish_reason "tool_calls"' in found.sentence


@pytest.mark.parametrize("exhibit", FEATURE_EXHIBITS)
def test_an_exhibit_is_caught(servers: dict[str, Server], tmp_path: Path, exhibit: str) -> None:
    name, expected = EXPECTED[exhibit]
    servers[SERVED].call("conformance_break", 30, exhibit=exhibit)
    try:
        found = outcomes(servers, tmp_path / "evidence", name)
    finally:
        servers[SERVED].call("conformance_mend", 30)
    failed = {id: outcome for id, outcome in found.items() if outcome.verdict is Verdict.FAIL}
    assert failed.keys() == expected.keys(), {id: outcome.sentence for id, outcome in found.items()}
    for id, sentence in expected.items():
        assert sentence in failed[id].sentence
