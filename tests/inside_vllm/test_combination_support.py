"""What vLLM refuses beside MTP, by its own configuration and kernels, and what is then asked of servers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from negative_controls.faux_servers import PROFILE, recording

from conformance.errors import Unsupported
from conformance.inside_vllm.combination_support import shortened
from conformance.observers import combination, combination_support, observer
from conformance.profile.combined_features import FEATURES, other_runner
from conformance.profile.profile import load_profile
from conformance.serving.command import Launch
from conformance.serving.pool import ServerPool

REAL = load_profile("cpu", "micro-26b-a4b-nvfp4", "qualify")
ACCEPTED = {"vllm_version": "0.32.0", "refusals": dict.fromkeys(FEATURES, "")}


@pytest.mark.long
def test_a_cpu_refuses_all_but_the_old_runner_in_vllms_own_words(tmp_path: Path) -> None:
    evidence = recording(tmp_path / "evidence")
    pool = ServerPool(REAL, evidence, owns=False)
    found = combination_support.observe(REAL, pool, evidence)["refusals"]
    assert found["v1_runner"] == ""
    assert found["v2_runner"] == "Model Runner V2 requires Triton."
    assert "does not support batch invariance" in found["batch_invariance"]
    assert "TritonExperts: kernel does not support current device cpu" in found["lora"]
    assert found["expert_parallel"] == "expert parallelism needs 2 workers, and 1 serves"
    assert found["one_worker"] == "one worker needs 2 workers, and 1 serves"


def test_workers_are_counted() -> None:
    assert combination_support.workers(("-tp", "2", "--enforce-eager", "--data-parallel-size", "4")) == 8


def test_a_reason_is_one_line_without_what_pydantic_adds() -> None:
    raised = (
        "ValidationError: 1 validation error for VllmConfig\n  Value error, No way. [type=value_error, input_value=x]"
    )
    assert shortened(raised) == "No way."
    assert shortened("ValueError: no\n  way") == "ValueError: no way"


def test_the_other_runner_is_v2_on_a_cpu() -> None:
    assert other_runner(REAL.hardware) == "v2_runner"
    assert other_runner(replace(REAL.hardware, sm=90)) == "v1_runner"


def test_a_feature_changes_the_command_or_the_environment() -> None:
    launch = Launch(("python",), {"A": "1"})
    assert combination.with_feature(launch, FEATURES["lora"]).command == ("python", "--enable-lora")
    changed = combination.with_feature(launch, FEATURES["batch_invariance"])
    assert changed.environment == {"A": "1", "VLLM_BATCH_INVARIANT": "1"}


@pytest.mark.parametrize(
    ("refusals", "sentence"),
    [
        ({"lora": "no kernel"}, "LoRA beside MTP: no kernel"),
        ({}, r"Hardware \w+ does not list lora under \[served\] combinations, which starts two servers"),
    ],
)
def test_no_server_starts_for_what_is_refused_or_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: dict[str, str], sentence: str
) -> None:
    said: dict[str, Any] = {**ACCEPTED, "refusals": {**ACCEPTED["refusals"], **refusals}}
    monkeypatch.setattr(combination_support, "observe", lambda *_: said)
    evidence = recording(tmp_path / "evidence")
    with pytest.raises(Unsupported, match=sentence):
        observer("combination-lora")(REAL, ServerPool(PROFILE, evidence, owns=False), evidence)
