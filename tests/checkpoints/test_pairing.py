from __future__ import annotations

import json
import struct
from dataclasses import replace
from math import prod
from pathlib import Path

import huggingface_hub
import pytest
from negative_controls.faux_servers import PAIR
from negative_controls.faux_servers.checkpoints import BYTES, FULL, PUBLISHED, SLIDING, Checkpoints, configs, write_file

from conformance.checkpoints.headers import Damaged, draft_folder, read_headers
from conformance.checkpoints.pairing import implied_tensors, refusals, unused_tensors
from conformance.errors import UsageError
from conformance.profile.facts import load_facts


@pytest.fixture
def pair(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path, "26B-A4B")


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_published_drafts_are_implied_to_the_byte(size: str) -> None:
    implied = implied_tensors(configs(size)[1])
    assert len(implied) == PUBLISHED[size][1]
    assert sum(BYTES[it.dtype] * prod(it.shape) for it in implied.values()) == PUBLISHED[size][2]


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_published_pairs_are_sound(tmp_path: Path, size: str) -> None:
    assert Checkpoints(tmp_path, size).refusals() == []


def test_a_config_saved_by_a_newer_transformers_says_the_same(pair: Checkpoints) -> None:
    for config in (pair.target_config, pair.draft_config):
        text = config["text_config"]
        own = {"head_dim": text.pop("global_head_dim"), "num_key_value_heads": text.pop("num_global_key_value_heads")}
        full = [number for number, kind in enumerate(text["layer_types"]) if kind == FULL]
        text["per_layer_config"] = {str(number): own for number in full}
    assert pair.refusals() == []
    pair.draft_config["text_config"]["per_layer_config"]["3"] = {"head_dim": 512, "num_key_value_heads": 8}
    assert pair.refusals() == [
        "draft draft/config.json: text_config.per_layer_config.3.num_key_value_heads is 8, "
        "but the target target/config.json has text_config.per_layer_config.3.num_key_value_heads 2"
    ]


def test_a_target_without_a_text_config_of_its_own_is_read_too(pair: Checkpoints) -> None:
    pair.target_config = pair.target_config["text_config"]
    pair.target_config["text_config"] = None
    (pair.target / "config.json").write_text(json.dumps(pair.target_config))
    assert refusals(pair.target, pair.draft) == []


def test_layers_that_read_the_keys_and_values_of_earlier_ones() -> None:
    config = {"text_config": dict(load_facts().targets["E2B"].text_config)}
    unused = unused_tensors(config)
    assert (len(unused), sum(unused.values())) == (60, 18_880_512)
    assert unused["model.language_model.layers.15.self_attn.k_norm.weight"] == 256
    assert unused["model.language_model.layers.19.self_attn.k_norm.weight"] == 512
    assert next(iter(unused_tensors(config["text_config"]))) == "model.layers.15.self_attn.k_proj.weight"
    assert unused_tensors(load_facts().targets["31B"].text_config) == {}


def test_a_missing_mlp_tensor(pair: Checkpoints) -> None:
    del pair.tensors["model.layers.2.mlp.down_proj.weight"]
    assert pair.refusals() == [
        "draft draft/model.safetensors: tensor model.layers.2.mlp.down_proj.weight is missing "
        "(config implies [1024, 8192] BF16)"
    ]


def test_a_halved_intermediate_size_is_blamed_on_the_config(pair: Checkpoints) -> None:
    pair.draft_config["text_config"]["intermediate_size"] = 4096
    assert pair.refusals() == [
        "draft draft/config.json: text_config.intermediate_size is 4096 "
        "but model.layers.0.mlp.down_proj.weight is [1024, 8192]"
    ]


def test_one_tensor_of_another_width_is_blamed_on_the_tensor(pair: Checkpoints) -> None:
    pair.tensors["model.layers.1.mlp.up_proj.weight"] = ("BF16", (4096, 1024))
    assert pair.refusals() == [
        "draft draft/model.safetensors: tensor model.layers.1.mlp.up_proj.weight is [4096, 1024], "
        "but config implies [8192, 1024]"
    ]


def test_packed_weights_in_an_unquantised_draft(pair: Checkpoints) -> None:
    pair.tensors["model.layers.0.mlp.down_proj.weight"] = ("U8", (1024, 4096))
    assert "is [1024, 4096], but config implies [1024, 8192]" in pair.refusals()[0]
    pair.tensors["model.layers.0.mlp.down_proj.weight"] = ("F16", (1024, 8192))
    assert pair.refusals() == [
        "draft draft/model.safetensors: tensor model.layers.0.mlp.down_proj.weight is F16, but config implies BF16"
    ]


def test_a_tensor_too_many(pair: Checkpoints) -> None:
    pair.tensors["lm_head.weight"] = ("BF16", (262144, 1024))
    assert pair.refusals() == [
        "draft draft/model.safetensors: tensor lm_head.weight [262144, 1024] is not one that the config implies"
    ]


def test_a_quantised_drafts_linears_are_left_to_its_quantiser(pair: Checkpoints) -> None:
    pair.draft_config["quantization_config"] = {"quant_method": "compressed-tensors"}
    pair.tensors["model.layers.0.mlp.down_proj.weight"] = ("U8", (1024, 4096))
    assert pair.refusals() == []


def test_the_target_as_its_own_draft(pair: Checkpoints) -> None:
    (sentence,) = refusals(pair.target, pair.target)
    assert 'this is model_type "gemma4" (Gemma4ForConditionalGeneration), not an MTP draft; expected' in sentence


def test_the_draft_as_a_target(pair: Checkpoints) -> None:
    (sentence,) = refusals(pair.draft, pair.draft)
    assert 'this is model_type "gemma4_assistant" (Gemma4AssistantForCausalLM); expected a Gemma 4 model' in sentence


def test_the_draft_of_another_size(tmp_path: Path, pair: Checkpoints) -> None:
    (tmp_path / "other").mkdir()
    other = Checkpoints(tmp_path / "other", "31B")
    found = [sentence.replace(f"{tmp_path}/", "") for sentence in refusals(pair.target, other.draft)]
    assert found[0] == (
        "draft other/draft/config.json: backbone_hidden_size is 5376, "
        "but the target target/config.json has text_config.hidden_size 2816"
    )
    assert any("text_config.num_global_key_value_heads is 4" in sentence for sentence in found)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("vocab_size", 1024, "model.embed_tokens.weight is [262144, 1024], but config implies [1024, 1024]"),
        ("sliding_window", 512, "text_config.sliding_window is 512, but the target target/config.json has"),
        ("num_key_value_heads", 4, "text_config.num_key_value_heads is 4, but the target target/config.json has"),
        ("head_dim", 128, "text_config.num_attention_heads x text_config.head_dim is 2048 but"),
        ("rope_parameters", {}, "text_config.rope_parameters differ from those of the target target/config.json"),
        ("intermediate_size", None, "text_config.intermediate_size is missing"),
        ("intermediate_size", "8192", "text_config.intermediate_size is '8192', not a whole number"),
        ("layer_types", None, "text_config.layer_types is missing or is not a list of names"),
        ("model_type", "gemma4_unified_text", None),
    ],
)
def test_one_wrong_key(pair: Checkpoints, key: str, value: object, told: str | None) -> None:
    pair.draft_config["text_config"][key] = value
    found = pair.refusals()
    assert any(told in sentence for sentence in found) if told else found == []


def test_a_unified_draft_for_a_target_that_is_not(pair: Checkpoints) -> None:
    pair.draft_config["model_type"] = "gemma4_unified_assistant"
    assert any('belongs to a target of "gemma4_unified_text"' in sentence for sentence in pair.refusals())


def test_a_target_whose_config_is_not_its_own(pair: Checkpoints) -> None:
    pair.write()
    pair.target_config["text_config"]["hidden_size"] = 1408
    (pair.target / "config.json").write_text(json.dumps(pair.target_config))
    assert any("hidden_size are [262144, 1408] but model.language" in s for s in refusals(pair.target, pair.draft))


def test_a_kind_of_layer_that_the_target_lacks(pair: Checkpoints) -> None:
    pair.target_config["text_config"]["layer_types"] = [SLIDING] * 6
    assert any("it has full_attention layers, but the target" in sentence for sentence in pair.refusals())


def test_damaged_files_are_named(pair: Checkpoints) -> None:
    for text in ("{", "[" * 100_000):
        (pair.draft / "config.json").write_text(text)
        assert "draft/config.json is not valid JSON" in refusals(pair.target, pair.draft)[0]
    (pair.draft / "config.json").unlink()
    assert refusals(pair.target, pair.draft) == [f"{pair.draft}/config.json is missing"]


def test_a_file_that_is_cut_short(pair: Checkpoints) -> None:
    path = pair.draft / "model.safetensors"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    assert f"{path} is cut short: " in refusals(pair.target, pair.draft)[0]
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    assert "is not a safetensors file, or is cut short: it has 42 bytes" in refusals(pair.target, pair.draft)[0]
    path.write_bytes(struct.pack("<Q", 5) + b"[1,2]")
    assert "has a broken safetensors header" in refusals(pair.target, pair.draft)[0]
    path.unlink()
    assert refusals(pair.target, pair.draft) == [f"{path} is missing"]


def test_sharded_checkpoints(pair: Checkpoints) -> None:
    names = sorted(pair.tensors)
    parts = {"a.safetensors": names[:20], "b.safetensors": names[20:]}
    for file, held in parts.items():
        write_file(pair.draft / file, {name: pair.tensors[name] for name in held})
    (pair.draft / "model.safetensors").unlink()
    placed = {name: file for file, held in parts.items() for name in held}
    index = pair.draft / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": placed}))
    assert set(read_headers(pair.draft)) == set(names)
    assert refusals(pair.target, pair.draft) == []
    index.write_text(json.dumps({"weight_map": placed | {names[0]: "b.safetensors"}}))
    with pytest.raises(Damaged, match=r"b\.safetensors does not hold tensor"):
        read_headers(pair.draft)
    index.write_text("{}")
    with pytest.raises(Damaged, match="has no weight_map"):
        read_headers(pair.draft)


def test_bytes_are_hashed_where_they_lie(tmp_path: Path) -> None:
    raw = json.dumps({"a": {"dtype": "U8", "shape": [3], "data_offsets": [2, 5]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + b"..abc")
    tensor = read_headers(tmp_path)["a"]
    assert tensor.shape == (3,)
    assert tensor.sha256() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_where_checkpoints_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    pair = replace(PAIR, home=str(tmp_path), draft="./here")
    assert draft_folder(pair) == tmp_path / "here"
    with pytest.raises(UsageError, match=r'key "draft" is "./gone", but there is no folder .*/gone'):
        draft_folder(replace(pair, draft="./gone"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda source, **_: str(tmp_path / source))
    assert draft_folder(replace(pair, draft="google/gemma")) == tmp_path / "google/gemma"


def test_repositories_that_are_not_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    pair = replace(PAIR, draft="google/gemma-no-such-draft", draft_revision="abc")
    with pytest.raises(UsageError, match="run: hf download google/gemma-no-such-draft --revision abc"):
        draft_folder(pair)
    with pytest.raises(UsageError, match="write a folder that starts with"):
        draft_folder(replace(pair, draft="no such/name at all"))
