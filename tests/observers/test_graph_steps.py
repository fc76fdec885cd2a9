"""What the observation of CUDA graphs asks, and when it cannot be made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from negative_controls.judge_documents import Documents, outcome
from support import synthetic

from conformance.errors import ObservationError, Unsupported
from conformance.judging.verdict import Verdict
from conformance.observers import graph_steps
from conformance.observers.graph_steps import Again, Plan
from conformance.profile.profile import Profile, load_profile
from conformance.serving.command import vllm_command
from conformance.serving.executors import HERE
from conformance.serving.installed import GRAPHS, Installed
from conformance.workload.client import Answer
from conformance.workload.prompts import Prompt

PLAN = Plan(most=3, widest=15, tokens=8, passes=2, again=Again(0.1, 2), seconds=1.0)
TABLE = "INFO [cuda_graph.py:118] **CUDAGraph Stats:**\nINFO [cuda_graph.py:118] | 5 | 5 | 0 | FULL | 7 |\n"


def answered(prompt_tokens: int = 20, arrivals: tuple[float, ...] = (0.1, 0.2, 0.4), tokens: int = 7) -> Answer:
    parts: dict[str, Any] = {"reasoning": "", "content": "", "tool_calls": (), "finish_reason": "length"}
    ids: dict[str, Any] = {"token_ids": (), "prompt_ids": ()}
    return Answer(
        "x", prompt_tokens=prompt_tokens, output_tokens=tokens, seconds=0.5, arrivals=arrivals, **parts, **ids
    )


class Asking:
    """A client of a server that counts each character of a prompt as a token."""

    def ask(self, prompt: Prompt) -> Answer:
        return answered(len(prompt.messages[0]["content"]))


def test_numbers_of_requests_go_up_and_down() -> None:
    assert list(PLAN.numbers()) == [1, 2, 3, 3, 2, 1]


def test_numbers_that_seem_slower_are_asked_again_until_they_do_not() -> None:
    rates: list[dict[str, Any]] = []

    def asked(answers: dict[int, list[float]]) -> list[int]:
        rates.clear()
        order = []
        for number in graph_steps._asked(PLAN, rates):
            order.append(number)
            rates.append({"requests": number, "tokens_per_second": answers[number].pop(0)})
        return order

    steady = [1, 2, 3, 3, 2, 1]
    assert asked({1: [100.0] * 2, 2: [190.0] * 2, 3: [280.0] * 2}) == steady
    assert asked({1: [100.0] * 2, 2: [190.0] * 3, 3: [150.0, 160.0, 280.0]}) == [*steady, 2, 3]
    assert asked({1: [100.0] * 2, 2: [190.0] * 4, 3: [150.0] * 4}) == [*steady, 2, 3, 2, 3]


def faster_once(d: Documents) -> None:
    """Seven requests were fast in one pass, as on a machine that is slow for a while."""
    row = [row for row in d["graph_steps"]["arms"]["mtp"]["rates"] if row["requests"] == 7][-1]
    row["tokens_per_second"] *= 1.6


def test_a_cliff_that_noise_may_explain_decides_nothing() -> None:
    documents = synthetic.healthy()
    faster_once(documents)
    found = outcome("GRAPH-03", documents)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "with MTP: 9965 tokens/s with 7 requests, but 6930 with 8" in found.sentence
    assert "noise may be why" in found.sentence


def test_a_prompt_is_longer_than_the_widest_step_of_decoding() -> None:
    prompt = PLAN.prompt(Asking(), "a" * 500)  # type: ignore[arg-type]
    assert (len(prompt.messages[0]["content"]), prompt.max_tokens) == (20, 8)
    with pytest.raises(ObservationError, match=r"a prompt of 9 tokens is no longer than a step of decoding \(15\)"):
        PLAN.prompt(Asking(), "a" * 9)  # type: ignore[arg-type]


def test_a_rate_counts_what_comes_after_the_first_token() -> None:
    found = graph_steps._rate([answered(), answered(arrivals=(0.2, 0.5))])
    assert found["tokens_per_second"] == pytest.approx(6 / 0.3 + 6 / 0.3)
    assert found["step_ms"] == pytest.approx(200)
    with pytest.raises(ObservationError, match="came in one piece"):
        graph_steps._rate([answered(arrivals=(0.1,))])


def test_the_table_is_awaited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_steps, "LOG_SECONDS", 0.05)
    monkeypatch.setattr(graph_steps, "LOOK_SECONDS", 0.01)
    log = tmp_path / "mtp.log"
    log.write_text(TABLE)
    server: Any = SimpleNamespace(name="mtp", log=log, log_tail=lambda: "")
    assert graph_steps._logged(server, 0) == TABLE
    with pytest.raises(ObservationError, match="mtp server: its log has no table of CUDA graphs"):
        graph_steps._logged(server, len(TABLE))


def test_a_cpu_and_an_eager_gpu_capture_nothing() -> None:
    for name, why in {"cpu": "it is a CPU", "h100-small-eager": "--enforce-eager"}.items():
        on = load_profile(name, "micro-26b-a4b-nvfp4", "qualify")
        with pytest.raises(Unsupported, match=f"The servers of hardware {name} capture no CUDA graphs: {why}."):
            graph_steps._require_graphs(on, SimpleNamespace(executor=HERE))  # type: ignore[arg-type]


@pytest.mark.parametrize("counts", [True, False])
def test_both_measured_servers_count_their_graphs_where_vllm_can(profile: Profile, counts: bool) -> None:
    on = replace(load_profile("h200-small", "micro-26b-a4b-nvfp4", "qualify"), pair=profile.pair)
    installed = Installed("0.33.0", None, (GRAPHS,) if counts else ())
    commands = {arm: vllm_command(on, arm, installed) for arm in ("mtp", "plain", "served", "served-plain")}
    assert {arm for arm, words in commands.items() if "--cudagraph-metrics" in words} == (
        {"mtp", "plain"} if counts else set()
    )
    for arm, words in commands.items():
        assert ("--max-cudagraph-capture-size" in words) is ("served" not in arm)
    servers: Any = SimpleNamespace(executor=SimpleNamespace(installed=lambda: installed))
    if counts:
        assert graph_steps._require_graphs(on, servers) == 32
    else:
        with pytest.raises(Unsupported, match=r"vLLM 0.33.0 has no --cudagraph-metrics"):
            graph_steps._require_graphs(on, servers)
