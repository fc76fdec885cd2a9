"""The arms of a speedup: what may differ, and recorded runs whose first tokens tell that the arms were unlike."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from support import synthetic
from support.paths import ROOT

from conformance import FIXTURES, test_arms
from conformance.errors import UsageError
from conformance.judging.check import judge
from conformance.judging.diagnose import diagnose, load_known_failures
from conformance.judging.verdict import Outcome, Verdict
from conformance.profile.arm_facts import ARM_FACTS, load_arm_facts
from conformance.profile.profile import every_hardware
from conformance.views.first_token import FirstTokens, account
from conformance.views.load import Load
from conformance.views.resolved_config import ResolvedConfig
from negative_controls.judge_documents import outcome

H100 = ROOT / "docs" / "results" / "h100"


def recorded(run: str) -> Load:
    """The load of a recorded run on one H100."""
    with tarfile.open(H100 / f"{run}.tar.gz") as archive:
        file = archive.extractfile(f"{run}/observations/load.json")
        assert file is not None
        return Load.of([json.loads(file.read())])


def first_tokens(load: Load, config: ResolvedConfig | None = None) -> Outcome:
    seen = FirstTokens.of(load, load_arm_facts(), config)
    return judge(test_arms.test_first_token_is_no_earlier, {"first_tokens": seen})


@pytest.mark.parametrize("run", ["geometry-graphs", "nvfp4-graphs-unsuppressed"])
def test_unlike_graphs_show_in_the_first_token_between_64_and_320_prompt_tokens(run: str) -> None:
    """vLLM's defaults: the server without MTP captured 64 tokens, the one with MTP 320."""
    found = first_tokens(recorded(run))
    assert found.verdict is Verdict.FAIL
    assert [each.sentence.partition(" prompt")[0] for each in found.findings if each.verdict is Verdict.FAIL] == [
        "the time to the first token without MTP over that with it, for 65 to 320"
    ]
    assert "the configurations of the servers are not known" in found.sentence


@pytest.mark.parametrize("run", ["bf16-eager", "nvfp4-eager", "geometry-eager"])
def test_eager_servers_pass(run: str) -> None:
    assert first_tokens(recorded(run)).verdict is Verdict.PASS


def test_few_and_noisy_first_tokens_are_inconclusive() -> None:
    document = synthetic.healthy()["load"]
    for number, each in enumerate(row for row in document["rounds"] if row["concurrency"] == 1):
        for answer in each["mtp"]["answers"]:
            answer["first_seconds"] *= 3.0 if number % 2 else 0.3
    assert first_tokens(Load.of([document])).verdict is Verdict.INCONCLUSIVE


def test_a_class_with_few_prompts_is_named_and_not_judged() -> None:
    found = first_tokens(recorded("geometry-graphs"))
    assert "; too few: above 320 (2)" in found.findings[0].note


def test_the_speedup_is_told_by_part_and_prompt_length() -> None:
    said = account(recorded("geometry-graphs").at(1))
    assert "; speedup by prompt tokens: up to 64 (18): first token 0.7" in said
    assert "65 to 320 (28): first token 1.6" in said
    assert said.count("each later token") == said.count("whole answer") == 2


def config(**plain: Any) -> ResolvedConfig:
    document = synthetic.healthy()["resolved_config"]
    document["plain"].update(plain)
    return ResolvedConfig.of(document, load_arm_facts())


def test_what_drafts_need_is_told_beside_a_pass() -> None:
    (finding,) = outcome("ARM-01", synthetic.healthy()).findings
    assert finding.note == (
        "differ, as declared: 1 field: vLLM sets it without drafts only; it changes how layers are found at the first "
        "compilation (vllm/config/vllm.py); 3 fields: it is the draft and its settings; 1 field: these are the layers "
        "of the draft"
    )
    alike = ResolvedConfig.of({"mtp": {"a": 1}, "plain": {"a": 1}}, load_arm_facts())
    assert alike.note() == "no field differs"


def test_null_means_the_field_that_vllm_uses_instead() -> None:
    found = config(**{"scheduler_config.max_num_batched_tokens": 2048}).objections()
    assert len(found) == 2
    assert found[0].startswith("scheduler_config.max_num_batched_tokens is 8192 with MTP and 2048 without")
    assert found[1].startswith("scheduler_config.max_num_scheduled_tokens is 8192 with MTP and 2048 without")


@pytest.mark.parametrize(("blocks", "equal"), [(1000, True), (1085, True), (1200, False)])
def test_a_cache_may_differ_by_what_the_draft_takes(blocks: int, equal: bool) -> None:
    assert (not config(**{"cache_config.num_gpu_blocks": blocks}).objections()) is equal


def test_unlike_graphs_are_a_known_failure() -> None:
    documents = synthetic.healthy()
    documents["resolved_config"]["plain"]["compilation_config.max_cudagraph_capture_size"] = 64
    found = outcome("ARM-01", documents)
    known = diagnose("ARM-01", found.sentence, load_known_failures(FIXTURES / "known_failures"))
    assert [each.id for each in known] == ["GRAPH-ARMS"]


def test_every_gpu_gives_both_servers_the_same_graphs_and_tokens() -> None:
    """``vllm_command`` gives the arguments of the hardware to both servers."""
    for hardware in every_hardware():
        given = hardware.serve_args
        if hardware.sm is not None:
            assert "--enforce-eager" in given or "--max-cudagraph-capture-size" in given, hardware.name
            assert "--max-num-batched-tokens" in given, hardware.name


def test_edges_must_rise(tmp_path: Path) -> None:
    path = tmp_path / "arms.toml"
    path.write_text(ARM_FACTS.read_text(encoding="utf-8").replace("edges = [64, 320]", "edges = [320, 64]"))
    with pytest.raises(UsageError, match=r'key "prompts.edges" is \[320, 64\]; write rising numbers'):
        load_arm_facts(path)


def test_classes_have_names() -> None:
    classes = load_arm_facts().prompts
    assert [classes.labels[classes.of(tokens)] for tokens in (1, 64, 65, 320, 321)] == [
        "up to 64",
        "up to 64",
        "65 to 320",
        "65 to 320",
        "above 320",
    ]
