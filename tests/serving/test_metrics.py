from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from negative_controls.faux_servers import BOUNDS, launch

from conformance.errors import ObservationError
from conformance.serving import metrics
from conformance.serving.metrics import (
    CacheCounts,
    Counters,
    parse,
    read_after,
    read_when_still,
    require_consistent_counts,
)
from conformance.serving.server import Server, Start, start_together
from conformance.workload.client import client
from conformance.workload.prompts import Prompt

PROMPT = Prompt(id="p", category="c", licence="CC0-1.0", messages=({"role": "user", "content": "hi"},), max_tokens=64)
# One request: 5 drafts of k = 4, of which 4, 3, 2 and 1 were accepted at positions 1 to 4.
SOUND = Counters(drafts=5, draft_tokens=20, accepted=10, per_position=(4, 3, 2, 1), generated=16)
# As vLLM writes it, with the times of creation beside, for two engines.
PAGE = "".join(
    f"""\
vllm:generation_tokens_total{{engine="{engine}",model_name="m"}} 8.0
vllm:generation_tokens_created{{engine="{engine}",model_name="m"}} 1.79e+09
vllm:spec_decode_num_drafts_total{{engine="{engine}",model_name="m"}} 2.0
vllm:spec_decode_num_draft_tokens_total{{engine="{engine}",model_name="m"}} 4.0
vllm:spec_decode_num_accepted_tokens_total{{engine="{engine}",model_name="m"}} 3.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{{engine="{engine}",model_name="m",position="0"}} 2.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{{engine="{engine}",model_name="m",position="1"}} 1.0
"""
    for engine in (0, 1)
)


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    arguments = getattr(request, "param", ())
    begun = Start(launch("good", "--k", "4", *arguments), "mtp", tmp_path / "mtp.log", BOUNDS, lambda _: None)
    outcome = start_together([begun], 0.5, print)["mtp"]
    assert isinstance(outcome, Server)
    yield outcome
    outcome.stop(0.5)


def test_engines_are_summed() -> None:
    assert parse(PAGE) == Counters(drafts=4, draft_tokens=8, accepted=6, per_position=(4, 2), generated=16)


CACHE_PAGE = """\
vllm:prefix_cache_queries_total{engine="0"} 700.0
vllm:prefix_cache_hits_total{engine="0"} 512.0
vllm:prompt_tokens_by_source_total{engine="0",source="local_compute"} 188.0
vllm:prompt_tokens_by_source_total{engine="0",source="local_cache_hit"} 512.0
vllm:num_preemptions_total{engine="0"} 3.0
vllm:cache_config_info{block_size="128",engine="0",num_gpu_blocks="150"} 1.0
"""


def test_the_cache_is_counted(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_page", lambda _: CACHE_PAGE)
    assert metrics.cache_counts(server) == CacheCounts(700, 512, 188)
    assert metrics.cache_counts_after(server, CacheCounts(300, 512, 0), 188) == CacheCounts(400, 0, 188)
    assert metrics.preemptions(server) == 3
    assert metrics.cache_blocks(server) == 150


def test_a_lookup_that_is_never_counted_is_told_after_a_while(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_page", lambda _: CACHE_PAGE)
    monkeypatch.setattr(metrics, "_SETTLE_SECONDS", 0.05)
    assert metrics.cache_counts_after(server, CacheCounts(300, 512, 0), 900) == CacheCounts(400, 0, 188)


def test_a_server_that_does_not_count_computed_tokens_is_not_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_page", lambda _: CACHE_PAGE.replace("local_compute", "elsewhere"))
    assert metrics.cache_counts_after(server, CacheCounts(0, 0, None), 700) == CacheCounts(700, 512, None)


def test_a_page_without_a_cache_is_an_error(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_page", lambda _: PAGE)
    for read in (metrics.cache_counts, metrics.preemptions, metrics.cache_blocks):
        with pytest.raises(ObservationError, match=r"cannot be used|does not describe its cache"):
            read(server)


def test_a_page_without_drafts_or_with_a_hole_is_refused() -> None:
    with pytest.raises(ValueError, match="it has no vllm:spec_decode_num_drafts_total"):
        parse(PAGE.replace("spec_decode_num_drafts_total", "other"))
    with pytest.raises(ValueError, match=r"has positions \[0, 2\]"):
        parse(PAGE.replace('position="1"', 'position="2"'))


def test_late_counters_are_waited_for(server: Server) -> None:
    with client(server, 10) as asking:
        before = read_when_still(server)
        answer = asking.ask(PROMPT)
        counted = read_after(server, before, answer.output_tokens) - before
    assert counted == Counters(drafts=2, draft_tokens=8, accepted=6, per_position=(2, 2, 2, 0), generated=9)
    require_consistent_counts(counted, k=4, requests=1)


@pytest.mark.parametrize("server", [("--fault", "never counts")], indirect=True)
def test_counters_that_never_come(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_SETTLE_SECONDS", 0.3)
    with client(server, 10) as asking:
        before = read_when_still(server)
        answer = asking.ask(PROMPT)
        with pytest.raises(ObservationError, match="counts 0 output tokens, but the client received 9"):
            read_after(server, before, answer.output_tokens)


@pytest.mark.parametrize("server", [("--fault", "loses a token")], indirect=True)
def test_more_counted_than_received(server: Server) -> None:
    with client(server, 10) as asking:
        before = read_when_still(server)
        answer = asking.ask(PROMPT)
        with pytest.raises(ObservationError, match="counts 9 output tokens, but the client received 8"):
            read_after(server, before, answer.output_tokens)


def test_a_server_without_metrics(server: Server) -> None:
    server.stop(0.5)
    with pytest.raises(ObservationError, match=r"^mtp server died: "):
        read_when_still(server)


def test_sound_counters_agree() -> None:
    require_consistent_counts(SOUND, k=4, requests=1)
    require_consistent_counts(
        replace(SOUND, generated=13), k=4, requests=1
    )  # the last step's tokens lie beyond the end


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"accepted": 11}, "11 tokens accepted, 10 by position"),
        ({"drafts": 6}, "20 tokens drafted in 6 drafts of k = 4"),
        ({"per_position": (4, 2, 3, 1)}, r"by position \[4, 2, 3, 1\] rises"),
        ({"per_position": (4, 3, 3)}, "has 3 draft positions, but k is 4"),
        ({"generated": 21}, "21 tokens from 1 requests, 5 drafts and 10 accepted"),
        ({"generated": 11}, "11 tokens from 1 requests"),
    ],
)
def test_counters_that_contradict_each_other(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ObservationError, match=sentence):
        require_consistent_counts(replace(SOUND, **wrong), k=4, requests=1)
