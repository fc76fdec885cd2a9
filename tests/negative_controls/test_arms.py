"""The arms of a speedup: what may differ, and recorded runs whose first tokens tell that the arms were unlike."""

from __future__ import annotations

import json
import re
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
from conformance.views.served.served_load import ServedLoad
from conformance.views.steps.step_time import StepTime
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


@pytest.mark.parametrize("run", ["bf16-eager", "nvfp4-eager", "geometry-eager", "geometry-graphs"])
def test_recorded_steps_with_drafts_are_no_faster(run: str) -> None:
    seen = StepTime.of(recorded(run), load_arm_facts(), None)
    assert judge(test_arms.test_step_is_no_faster, {"step_time": seen}).verdict is Verdict.PASS
    assert seen.estimate.value < 1


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


def as_served(document: dict[str, Any], known: bool = True) -> ServedLoad:
    healthy, facts = synthetic.healthy(), load_arm_facts()
    config = ResolvedConfig.of(healthy["resolved_config"], facts) if known else None
    return ServedLoad.of(document, Load.of([healthy["load"]]), config, facts)


def test_what_of_a_speedup_is_not_mtps_has_a_name() -> None:
    seen = as_served(synthetic.served_load(slower_first=9.0))
    found = re.search(r"of (\d\.\d+), a factor of (\d\.\d+) \[.*\] comes from (.*)", seen.difference())
    assert found
    assert float(found[2]) == pytest.approx(float(found[1]) / synthetic_speedup(), abs=0.01)
    assert found[3] == "graphs that vLLM captures only with drafts"
    parts = {f"{each.part}, {each.label}": each for each in seen.by_part()}
    middle, short = parts["first token, 65 to 320"], parts["first token, up to 64"]
    assert middle.served.value == pytest.approx(9 * middle.measured.value)
    assert short.served.value == pytest.approx(short.measured.value)
    assert len(parts) == 6


def synthetic_speedup() -> float:
    return Load.of([synthetic.healthy()["load"]]).at(1).speedup().value


def test_what_both_servers_have_only_as_served_is_named_too() -> None:
    document = synthetic.served_load()
    for arm in document["configs"].values():
        arm["cache_config.cache_dtype"] = "fp8"
    said = as_served(document).difference()
    assert said.endswith("with drafts, or from what both servers have only here (cache_config.cache_dtype)")
    document["configs"]["mtp"] = None
    assert (
        as_served(document).difference().endswith("comes from what is not known: vLLM does not tell the configurations")
    )
    assert as_served(synthetic.served_load(), known=False).causes is None


def test_without_a_difference_nothing_is_to_be_named() -> None:
    seen = as_served(synthetic.served_load(slower_first=1.0))
    assert (
        "no difference is shown, a factor of 1.000 [1.000, 1.000], though only here the servers differ in graphs"
        in (seen.difference())
    )


def test_shorter_answers_are_compared_by_their_parts() -> None:
    document = synthetic.served_load()
    for row in document["rows"]:
        for arm in ("plain", "mtp"):
            row[arm]["tokens"] = 3
    seen = as_served(document)
    assert {each.part for each in seen.by_part()} == {"first token", "each later token"}
    assert seen.difference().startswith("first token (36 prompts of the load): ")
    few = as_served(document | {"rows": document["rows"][:3]})
    assert few.note() == "3 prompts are too few to compare with the measured speedup"


def test_a_confounding_difference_needs_a_name(tmp_path: Path) -> None:
    path = tmp_path / "arms.toml"
    path.write_text(ARM_FACTS.read_text(encoding="utf-8").replace('name = "the size of the cache"\n', ""))
    with pytest.raises(UsageError, match=r'the row of cache_config.num_gpu_blocks is confounding; add the key "name"'):
        load_arm_facts(path)


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
    """``vllm_command`` gives them to both measured servers, and not to those as people serve them."""
    for hardware in every_hardware():
        given = hardware.measured
        if hardware.sm is not None:
            assert "--enforce-eager" in given or "--max-cudagraph-capture-size" in given, hardware.name
            assert "--max-num-batched-tokens" in given, hardware.name
            assert not {"--max-num-batched-tokens", "--max-cudagraph-capture-size"} & set(hardware.serve_args)


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
