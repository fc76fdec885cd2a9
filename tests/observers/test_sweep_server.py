"""The sweep over k and the cross-check on real servers; what they say of speed is not asserted, but for a defect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from negative_controls.faux_servers import recording
from negative_controls.judge_documents import judged
from negative_controls.museum.show import Shown, on_show

from conformance.judging.verdict import Verdict
from conformance.observers import OBSERVERS
from conformance.profile.arms import MTP, PLAIN, SWEEP
from conformance.profile.profile import load_profile
from conformance.serving.server import Server

pytestmark = [pytest.mark.server, pytest.mark.alone]

QUALIFY = load_profile("cpu", "micro-26b-a4b-nvfp4", "qualify")
PROFILE = replace(QUALIFY, sizes=replace(QUALIFY.sizes, bench_rounds=6, bench_most_rounds=6))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, timed_servers: dict[str, Server]) -> Iterator[dict[str, Server]]:
    """All three, with the museum's probe."""
    with on_show(PROFILE, tmp_path_factory.mktemp("sweep"), SWEEP) as up:
        yield timed_servers | up


def seen(name: str, servers: dict[str, Server], folder: Path) -> dict[str, Any]:
    evidence = recording(folder)
    shown = Shown(PROFILE, evidence, servers)
    return {name: evidence.observe(name, lambda: OBSERVERS[name](PROFILE, shown, evidence))}


def test_answers_do_not_depend_on_k_and_drafts_are_as_long_as_asked(servers: dict[str, Server], tmp_path: Path) -> None:
    rows = seen("sweep", servers, tmp_path / "evidence")["sweep"]["rows"]
    texts = {row["prompt"]: row["token_ids"] for row in rows if row["server"] == PLAIN}
    assert len(texts) == PROFILE.sizes.sweep_prompts
    assert {row["k"] for row in rows if row["server"] == SWEEP} == set(range(1, 9))
    for row in rows:
        assert row["token_ids"] == texts[row["prompt"]]
        assert row["draft_tokens"] == row["drafts"] * row["k"]


def test_a_draft_that_sleeps_in_the_server_under_test_is_caught(servers: dict[str, Server], tmp_path: Path) -> None:
    servers[MTP].call("conformance_break", 30, exhibit="slow_draft_step")
    try:
        documents = seen("sweep", servers, tmp_path / "evidence")
    finally:
        servers[MTP].call("conformance_mend", 30)
    found = judged("SPEED-03", documents, {})
    assert found.verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE), found  # the latter on a busy machine
    assert "measured over expected speedup 0." in found.sentence


def test_both_clients_see_the_same_tokens_and_acceptance(servers: dict[str, Server], tmp_path: Path) -> None:
    runs = seen("bench", servers, tmp_path / "evidence")["bench"]["runs"]
    assert [run["client"] for run in runs] == ["vllm", "ours", "ours", "vllm"] * 3
    for name in ("completed", "output_tokens", "drafts", "accepted"):
        assert len({run[name] for run in runs}) == 1
