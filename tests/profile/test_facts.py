"""The facts agree with each other, with the arithmetic, and with what the suite implies from a config."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest

from conformance import FIXTURES
from conformance.checkpoints.pairing import implied_tensors, unused_tensors
from conformance.errors import UsageError
from conformance.profile.facts import FULL, Facts, load_facts
from conformance.views.published import Published

SIZES = ("E2B", "E4B", "12B", "26B-A4B", "31B")
BYTES = {"BF16": 2, "I64": 8}


@pytest.fixture(scope="module")
def facts() -> Facts:
    return load_facts()


def test_all_five_sizes_and_four_configurations(facts: Facts) -> None:
    assert tuple(facts.drafts) == tuple(facts.targets) == SIZES
    assert set(facts.quantisations) == {"bf16", "fp8", "nvfp4-modelopt", "nvfp4-compressed-tensors"}


@pytest.mark.parametrize("size", SIZES)
def test_a_drafts_tensors_sum_up_and_are_those_of_its_config(facts: Facts, size: str) -> None:
    draft = facts.drafts[size]
    floats = [prod(shape) for dtype, shape in draft.tensors.values() if dtype == "BF16"]
    assert len(draft.tensors) == draft.totals.tensors
    assert sum(floats) == draft.totals.parameters
    assert sum(BYTES[dtype] * prod(shape) for dtype, shape in draft.tensors.values()) == draft.totals.bytes
    implied = {name: (it.dtype, it.shape) for name, it in implied_tensors(draft.config).items()}
    assert implied == draft.tensors


@pytest.mark.parametrize("size", SIZES)
def test_a_pair_of_facts_belongs_together(facts: Facts, size: str) -> None:
    target, draft = facts.targets[size].text_config, facts.drafts[size].config
    assert draft["backbone_hidden_size"] == target["hidden_size"]
    assert len(target["layer_types"]) == target["num_hidden_layers"]
    assert target["layer_types"][-1] == FULL
    for key in ("vocab_size", "sliding_window", "rope_parameters", "num_key_value_heads", "model_type"):
        assert draft["text_config"][key] == target[key]
    assert draft["text_config"]["num_global_key_value_heads"] == target["num_global_key_value_heads"]
    assert draft["text_config"]["final_logit_softcapping"] is None
    assert "intermediate_size" not in draft


@pytest.mark.parametrize("size", SIZES)
def test_a_published_pair_is_recognised_and_holds_what_is_known_of_it(facts: Facts, size: str) -> None:
    draft, target = facts.drafts[size], facts.targets[size]
    tensors = {name: {"dtype": dtype, "shape": list(shape)} for name, (dtype, shape) in draft.tensors.items()}
    config = {"architectures": [target.architecture], "text_config": target.text_config}
    # One tensor takes up what the others leave of the total. Of the names only those are known that no model uses.
    unused = unused_tensors(config)
    rest = {name: {"dtype": "BF16", "shape": [numbers]} for name, numbers in unused.items()}
    rest |= {f"t{n}": {"dtype": "BF16", "shape": [1]} for n in range(target.totals.tensors - len(unused) - 1)}
    rest["big"] = {"dtype": "BF16", "shape": [target.totals.parameters - sum(row["shape"][0] for row in rest.values())]}
    scalar = {"clip": {"dtype": "BF16", "shape": []}}
    document = {
        "draft": {"config": draft.config, "tensors": tensors},
        "target": {"config": config, "tensors": rest | scalar},
    }
    seen = Published.of(document, facts)
    assert seen.size_of_draft() == seen.size_of_target() == size
    assert seen.draft_layout() == seen.published_draft_layout()
    assert seen.target_values() == seen.published_target_values()
    assert seen.target_values()["parameters"] == target.totals.parameters
    assert ("tensors" in seen.target_values()) == (target.flag == "certain")


def test_a_quantised_target_lists_what_stays_in_bf16(facts: Facts) -> None:
    modelopt = facts.quantisations["nvfp4-modelopt"]
    dense = facts.targets["31B"].text_model(modelopt)
    assert dense["architectures"] == ["Gemma4ForCausalLM"]
    ignored = dense["quantization_config"]["ignore"]
    assert ignored[:3] == ["lm_head", "model.embed_vision*", "model.language_model.layers.0.self_attn*"]
    assert len(ignored) == 3 + 60
    with_experts = facts.targets["26B-A4B"].text_model(modelopt)["quantization_config"]["ignore"]
    assert len(with_experts) == 3 + 3 * 30
    assert "model.language_model.layers.29.router*" in with_experts
    assert "quantization_config" not in facts.targets["26B-A4B"].text_model(facts.quantisations["bf16"])


def test_a_misspelt_fact_is_named(tmp_path: Path) -> None:
    for path in (FIXTURES / "facts").glob("*.toml"):
        (tmp_path / path.name).write_text(path.read_text())
    wrong = (tmp_path / "quantisations.toml").read_text().replace("\nwith_experts", "\nwith_expert", 1)
    (tmp_path / "quantisations.toml").write_text(wrong)
    with pytest.raises(UsageError, match=r'quantisations.toml: key "nvfp4-modelopt.with_expert" is unknown'):
        load_facts(tmp_path)
