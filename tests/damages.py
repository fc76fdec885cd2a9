"""What can go wrong with a run: each function damages or empties the documents of a healthy one in one way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import synthetic

Documents = synthetic.Documents


def layers(d: Documents, name: str) -> Any:
    return d["draft_load"]["draft"]["parameters"][f"model.layers.0.mlp.{name}.weight"]


def old_version(d: Documents) -> None:
    d["environment"]["installed"]["transformers"] = "5.7.0"


def not_installed(d: Documents) -> None:
    d["environment"]["installed"]["rich"] = None


def other_import(d: Documents) -> None:
    d["environment"]["imported"]["vllm"] = "0.31.0"


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


def no_place(d: Documents) -> None:
    del leaked(d, "E4B")["tensors"]["masked_embedding.token_ordering"]


def half_wide(d: Documents) -> None:
    layers(d, "down_proj")["shape"] = [64, 256]


def packed(d: Documents) -> None:
    layers(d, "gate_up_proj")["dtype"] = "uint8"


def quantised_linear(d: Documents) -> None:
    linears = d["draft_load"]["draft"]["linears"]
    linears["model.layers.0.mlp.gate_up_proj"]["quant_method"] = "ModelOptNvFp4LinearMethod"


def never_loaded(d: Documents) -> None:
    layers(d, "down_proj")["sha256"] = synthetic.digest("whatever was in memory")


def lost_buffer(d: Documents) -> None:
    del d["draft_load"]["draft"]["parameters"]["model.layers.1.layer_scalar"]


def swapped_gate_and_up(d: Documents) -> None:
    layers(d, "gate_up_proj")["parts"].reverse()


def described(d: Documents) -> Any:
    return d["wiring"]["described"]


def embedding_copied(d: Documents) -> None:
    described(d)["draft_embedding_is_targets"] = False


def head_of_the_target(d: Documents) -> None:
    described(d)["draft_lm_head"].update(hidden=128, is_targets=True)


def scale_of_the_draft(d: Documents) -> None:
    described(d)["draft_normalizer"] = 8.0


def first_sliding_layer(d: Documents) -> None:
    described(d)["draft_kv_sharing"]["draft_model.layers.1.self_attn.attn"] = "model.layers.0.self_attn.attn"


def unshared_layer(d: Documents) -> None:
    described(d)["draft_kv_sharing"]["draft_model.layers.3.self_attn.attn"] = None


def advancing_positions(d: Documents) -> None:
    described(d)["constant_draft_positions"] = False


def uncalibrated_scales(d: Documents) -> None:
    for scales in described(d)["draft_kv_scales"].values():
        scales.update(target_k=0.003, target_v=0.003)


def one_position(d: Documents) -> None:
    d["wiring"]["metrics_positions"] = ["0"]


def expert_of_zeros(d: Documents) -> None:
    d["numerics"]["experts"]["model.layers.14"]["found"][1] = [0.0, 0.0, 0.0]


def null_experts(d: Documents) -> None:
    d["numerics"]["experts"]["model.layers.14"]["found"] = [[0.0] * 3] * 2


def no_number(d: Documents) -> None:
    d["numerics"]["experts"]["model.layers.29"]["found"][0][0] = None


def constant_experts(d: Documents) -> None:
    d["numerics"]["experts"]["model.layers.0"]["found"] = [[7.0] * 3] * 2


def wrong_router(d: Documents) -> None:
    d["numerics"]["routers"]["model.layers.14"]["found"][0][0] *= 1.2


def six_percent(d: Documents) -> None:
    row = d["numerics"]["draft_linears"]["model.pre_projection"]
    row["found"] = [[value * 1.06 for value in line] for line in row["expected"]]


def wrong_activation(d: Documents) -> None:
    d["numerics"]["draft_mlps"]["model.layers.0.mlp"]["found"][1][1] *= 0.8


def positions_advance(d: Documents) -> None:
    for row in d["parity"]["rows"]:
        row["position"] += row["step"]


def other_hidden_state(d: Documents) -> None:
    for row in d["parity"]["rows"]:
        if row["hidden"]:
            row["hidden"]["found"].reverse()


def other_activation(d: Documents) -> None:
    for row in d["parity"]["rows"]:
        row["projected"]["found"] = [value * 1.05 for value in row["projected"]["expected"]]


def one_row_of_another_request(d: Documents) -> None:
    d["parity"]["rows"][70]["projected"]["found"].reverse()


def answers_of(d: Documents, *arms: str, concurrency: int = 0) -> Iterator[dict[str, Any]]:
    """Every measured answer of some arms, at one concurrency or at all."""
    for each in d["load"]["rounds"]:
        if not each["warm_up"] and concurrency in (0, each["concurrency"]):
            for arm in arms:
                yield from (each[arm] or {"answers": []})["answers"]


def write(answer: dict[str, Any], token_ids: list[int]) -> None:
    answer.update(token_ids=token_ids, tokens=len(token_ids))


def fifth(d: Documents, arm: str) -> dict[str, Any]:
    """The first answer to the fifth gold prompt."""
    return list(answers_of(d, arm))[4]


def at_row_4(d: Documents, place: int, token: int) -> None:
    for arm in ("mtp", "plain"):
        fifth(d, arm)["token_ids"][place] = token


def other_tokens_drafted(d: Documents) -> None:
    d["parity"]["rows"][3].update(token=301, gap=1.5)


def other_logits(d: Documents) -> None:
    for row in d["parity"]["rows"]:
        row["logits"]["found"] = [value * 1.03 for value in row["logits"]["expected"]]


def leaves_gold_far_from_a_tie(d: Documents) -> None:
    row = synthetic.GOLD_ROWS[4]
    place = next(place for place, gap in enumerate(row["gap"]) if gap > 3)
    at_row_4(d, place, row["runner_up"][place])


def leaves_gold_for_a_third_token(d: Documents) -> None:
    at_row_4(d, 1, 3)


def stops_early(d: Documents) -> None:
    answer = fifth(d, "mtp")
    write(answer, answer["token_ids"][:2])
    answer["counts"] = None


def follows_little(d: Documents) -> None:
    for answer in answers_of(d, "mtp", "plain"):
        answer["token_ids"][1] = 3


def marlin(d: Documents) -> None:
    d["moe"]["layers"]["model.layers.3.moe.experts"]["backend"] = "MARLIN"


def one_layer_fell_back(d: Documents) -> None:
    d["moe"]["layers"]["model.layers.3.moe.experts"]["experts"] = "TritonExperts"


def log_disagrees(d: Documents) -> None:
    d["moe"]["log_lines"] = ["Using 'MARLIN' NvFp4 MoE backend out of potential backends: ['MARLIN']."]


def came_up(d: Documents) -> None:
    d["moe_refusal"].update(came_up=True, exit_code=None, reason=None)


def died_otherwise(d: Documents) -> None:
    d["moe_refusal"]["reason"] = "RuntimeError: out of memory"


def hung(d: Documents) -> None:
    d["moe_refusal"].update(exit_code=None, reason=None)


def on(d: Documents, device: str) -> Any:
    return d["moe_oracle"]["devices"][device]


def chose_marlin(d: Documents) -> None:
    on(d, "SM 110")["chosen"] = "MARLIN"


def chose_on_the_cpu(d: Documents) -> None:
    on(d, "CPU").update(chosen="MARLIN", error=None)


def flashinfer_refused(d: Documents) -> None:
    backend = on(d, "SM 121")["backends"]["FLASHINFER_CUTLASS"]
    backend["state"] = backend["kernels"][0]["state"] = "refused"


def replaced_request(d: Documents) -> None:
    on(d, "SM 90")["explicit"]["cutlass"].update(chosen="MARLIN", error=None)


def reasonless_request(d: Documents) -> None:
    on(d, "SM 90")["explicit"]["cutlass"]["error"] = "ValueError: VLLM_CUTLASS does not support this."


def crashed_request(d: Documents) -> None:
    on(d, "CPU")["explicit"]["cutlass"]["error"] = "AttributeError: no such op"


def emulated(d: Documents) -> None:
    on(d, "SM 80")["chosen"] = "EMULATION"


def left_without_kernel(d: Documents) -> None:
    on(d, "SM 80").update(chosen=None, error="NotImplementedError: No NvFp4 MoE backend supports it.")


def integer_as_text(d: Documents) -> None:
    call = d["tools"]["prompts"][3]["whole"]["calls"][0]
    call["arguments"] = json.dumps({"city": "Oslo", "days": "3", "metric": True})


def leaked_call(d: Documents) -> None:
    d["tools"]["prompts"][0]["whole"].update(calls=[], content="<|tool_call>call:get_weather{days:0}")


def lost_arguments(d: Documents) -> None:
    d["tools"]["prompts"][0]["streamed"]["calls"][0]["arguments"] = "{}"


def broken_json(d: Documents) -> None:
    d["tools"]["prompts"][0]["streamed"]["calls"][0]["arguments"] = '{"city": "Os'


def recount(d: Documents, count: Callable[[int], list[int]], concurrency: int = 0) -> None:
    """Other acceptance: ``count`` gives the tokens accepted per position of so many drafts."""
    for answer in answers_of(d, "mtp", concurrency=concurrency):
        per_position = count(answer["counts"]["drafts"])
        answer["counts"].update(accepted=sum(per_position), accepted_per_position=per_position)
        written = 1 + answer["counts"]["drafts"] + sum(per_position)
        answer["counts"]["output_tokens"] = written
        write(answer, (answer["token_ids"] * 3)[:written])
    for each in d["load"]["rounds"]:
        each["mtp"]["counted"] = synthetic.totals([answer["counts"] for answer in each["mtp"]["answers"]])


def no_acceptance(d: Documents) -> None:
    recount(d, lambda _: [1, 0, 0, 0])


def last_position_lost(d: Documents) -> None:
    recount(d, lambda drafts: [drafts, drafts, drafts, 0])


def lost_at_eight(d: Documents) -> None:
    recount(d, lambda drafts: [drafts, 0, 0, 0], concurrency=8)


def tenth_lost(d: Documents) -> None:
    """A tenth of the acceptance length: above the published floor all the same."""
    recount(d, lambda drafts: [drafts, drafts, drafts - drafts // 4, drafts - drafts // 4])


def diverges_far_from_a_tie(d: Documents) -> None:
    d["ties"]["divergences"][0]["gap"] = 0.5


def tenth_differs(d: Documents) -> None:
    d["ties"]["divergences"] *= 20


def ends_otherwise(d: Documents) -> None:
    next(answers_of(d, "mtp"))["finish_reason"] = "length"


def pads(d: Documents) -> None:
    next(answers_of(d, "mtp"))["token_ids"][2] = 0


def repeats(d: Documents) -> None:
    answer = next(answers_of(d, "mtp"))
    write(answer, [7, 8, 9] * (answer["tokens"] // 3))
    answer["counts"] = None


def half_as_long(d: Documents) -> None:
    for answer in answers_of(d, "mtp"):
        write(answer, answer["token_ids"][: answer["tokens"] // 2])


def slower(d: Documents, concurrency: int, factor: float) -> None:
    for answer in answers_of(d, "mtp", concurrency=concurrency):
        answer["seconds"] *= factor


def slow_in_a_row(d: Documents) -> None:
    slower(d, 1, 1.5)


def slow_at_once(d: Documents) -> None:
    slower(d, 8, 1.5)


def does_not_pay_at_17(d: Documents) -> None:
    slower(d, 17, 3.0)


def rates_of(d: Documents, place: int) -> Any:
    return d["calibration"]["rates"][place]


def coins_of_other_rates(d: Documents) -> None:
    rates_of(d, 1)["joint"] = [0.95, 0.82, 0.72, 0.61]


def last_steps_lost(d: Documents) -> None:
    """Of every answer one accepted token at the last position is not counted."""
    for row in (each for trial in rates_of(d, 1)["trials"] for each in trial):
        row["accepted_per_position"][-1] -= row["accepted_per_position"][-1] > 0


def trials_unlike_each_other(d: Documents) -> None:
    """The same requests, so that the rates are as before, but the good ones in one trial and the bad in another."""
    for row in d["calibration"]["rates"]:
        size, every = len(row["trials"][0]), [each for trial in row["trials"] for each in trial]
        every.sort(key=lambda each: sum(each["accepted_per_position"]) / each["drafts"])
        row["trials"] = [every[begin : begin + size] for begin in range(0, len(every), size)]


def all_accepted(d: Documents) -> None:
    for row in d["sampling"]["prompts"]:
        row["mtp"]["samples"] = {"7 1 5": synthetic.SEEDS}


def drawn_again_with_the_rejected(d: Documents) -> None:
    """The drafted token 1 has p + (1 - p) p = 0.84 for p = 0.6."""
    for row in d["sampling"]["prompts"]:
        row["mtp"]["samples"] = {"7 1 5": 112, "7 1 6": 56, "7 2 8": 20, "7 3 8": 12}


def later_position_differs(d: Documents) -> None:
    """The second token is as it should be, the third never the rarer of its two."""
    for row in d["sampling"]["prompts"]:
        row["mtp"]["samples"]["7 1 5"] += row["mtp"]["samples"].pop("7 1 6")


def slow_draft_in_the_server_under_test(d: Documents) -> None:
    """12 ms of sleep at each step, which the swept server has not."""
    for row in d["sweep"]["rows"]:
        if row["server"] == "mtp":
            row["seconds"] += 0.012 * row["drafts"]


# check -> damages, each with a part of the sentence that it must give
DAMAGES: list[tuple[str, Callable[[Documents], None], str]] = [
    ("ENV-01", old_version, "transformers is 5.7.0 where 5.19.0 is expected"),
    ("ENV-01", not_installed, "rich is not installed where 15.0.0 is expected"),
    ("ENV-01", other_import, "vllm is 0.31.0 where 0.32.0 is expected"),
    ("ENV-02", unknown_draft, "gemma4_assistant in transformers is False where True is expected"),
    ("ENV-03", unregistered_draft, "Gemma4MTPModel in vLLM's registry is False"),
    ("CKPT-01", lost_tensor, "model.layers.2.mlp.up_proj.weight is absent where BF16 [512, 64] is expected"),
    ("CKPT-01", extra_tensor, "lm_head.weight is BF16 [640, 64] where nothing is expected"),
    ("CKPT-01", halved_config, "mlp.gate_proj.weight is BF16 [512, 64] where BF16 [256, 64] is expected"),
    ("CKPT-02", refused, "backbone_hidden_size is 96"),
    ("CKPT-03", extra_tensor, "the draft holds lm_head.weight"),
    ("CKPT-03", own_keys, "the draft holds model.layers.0.self_attn.k_proj.weight"),
    ("CKPT-03", token_twice, "masked_embedding.token_ordering has distinct 1535, not 1536"),
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
    ("GEOM-03", no_place, "E4B under nvfp4-modelopt: masked_embedding.token_ordering is absent where"),
    ("DRAFT-01", half_wide, "model.layers.0.mlp.down_proj.weight is [64, 256] where [64, 512] is expected"),
    ("DRAFT-02", packed, "gate_up_proj.weight is uint8 where bfloat16 is expected"),
    ("DRAFT-02", quantised_linear, "gate_up_proj is ModelOptNvFp4LinearMethod where"),
    ("DRAFT-03", never_loaded, "model.layers.0.mlp.down_proj.weight is "),
    ("DRAFT-03", lost_buffer, "model.layers.1.layer_scalar is absent where"),
    ("DRAFT-03", swapped_gate_and_up, "model.layers.0.mlp.gate_proj.weight is "),
    ("DRAFT-04", embedding_copied, "the embedding is the target's is False where True is expected"),
    ("DRAFT-05", head_of_the_target, "hidden is 128 where 64 is expected; is_targets is True where False"),
    ("DRAFT-06", scale_of_the_draft, "embedding scale 8 against 11.3137 is off by 29.29%"),
    ("DRAFT-07", first_sliding_layer, "layer 1 is layer 0 where layer 28 is expected"),
    ("DRAFT-07", unshared_layer, "layer 3 is None where layer 29 is expected"),
    ("DRAFT-08", advancing_positions, "constant draft positions is False where True is expected"),
    ("DRAFT-09", uncalibrated_scales, "layer 0 k is 1.0 where 0.003 is expected"),
    ("DRAFT-10", one_position, "positions in /metrics is ['0'] where ['0', '1', '2', '3'] is expected"),
    ("NUM-01", expert_of_zeros, "model.layers.14.experts is off by 100.00%"),
    ("NUM-01", null_experts, "model.layers.14.experts is all zeros where at most 2.00% is expected"),
    ("NUM-01", no_number, "model.layers.29.experts is not a number"),
    ("NUM-01", constant_experts, "model.layers.0.experts is the constant 7"),
    ("NUM-01", wrong_router, "model.layers.14.router is off by"),
    ("NUM-02", six_percent, "model.pre_projection is off by 6.00% (cosine 1.00000) where at most 1.00% is expected"),
    ("NUM-02", wrong_activation, "model.layers.0.mlp is off by"),
    ("PARITY-01", positions_advance, "alone, place 20, step 1 is 21 where 20 is expected"),
    ("PARITY-01", other_hidden_state, "step 0 of a request alone is off by"),
    ("PARITY-02", other_activation, "step 0 of a request alone is off by 5.00% (cosine 1.00000) where at most 3.00%"),
    ("PARITY-02", other_tokens_drafted, "alone, place 20, step 3 drafts 301 where 300 is expected, by 1.50"),
    ("PARITY-02", other_logits, "step 0 of a request alone is off by 3.00%"),
    ("PARITY-02", one_row_of_another_request, "the worst step of together is off by"),
    (
        "GOLD-01",
        leaves_gold_far_from_a_tie,
        " leaves the gold answer at token 0 to the runner-up, which lost by ",
    ),
    (
        "GOLD-01",
        leaves_gold_for_a_third_token,
        "at token 1 to a token that is not even the runner-up, which",
    ),
    ("GOLD-02", stops_early, " leaves the gold answer at token 2"),
    ("GOLD-02", follows_little, "share of gold tokens compared 0.0"),
    ("MOE-01", marlin, "model.layers.3.moe.experts is MARLIN where CPU is expected"),
    ("MOE-01", log_disagrees, "the log's line 1 is MARLIN where CPU is expected"),
    ("MOE-06", one_layer_fell_back, "model.layers.3.moe.experts is TritonExperts where CPUUnquantizedExperts"),
    ("MOE-02", came_up, "the server came up with --moe-backend cutlass"),
    ("MOE-02", died_otherwise, "RuntimeError: out of memory"),
    ("MOE-02", hung, "it gave no reason and was stopped after 20 s"),
    ("MOE-03", chose_marlin, "SM 110 is MARLIN where VLLM_CUTLASS is expected"),
    ("MOE-03", chose_on_the_cpu, "CPU is MARLIN where none is expected"),
    ("MOE-03", flashinfer_refused, "SM 121 is VLLM_CUTLASS where FLASHINFER_CUTLASS is expected"),
    ("MOE-04", replaced_request, "SM 90: --moe-backend cutlass became MARLIN"),
    ("MOE-04", reasonless_request, "SM 90: --moe-backend cutlass ended in ValueError: VLLM_CUTLASS does not"),
    ("MOE-04", crashed_request, "CPU: --moe-backend cutlass ended in AttributeError: no such op"),
    ("MOE-05", emulated, "SM 80 falls back to EMULATION"),
    ("MOE-05", left_without_kernel, "SM 80 has no kernel at all"),
    ("TOOL-01", integer_as_text, 't03 is get_weather({"city": "Oslo", "days": "3", "metric": true}) where'),
    ("TOOL-01", leaked_call, "t00 is no call but the text <|tool_call>call:get_weather"),
    ("TOOL-02", lost_arguments, 't00 is get_weather({}) where get_weather({"city": "Oslo"'),
    ("TOOL-02", broken_json, "t00 is get_weather with arguments that are not JSON"),
    ("ACC-01", no_acceptance, "acceptance length 1.0"),
    ("ACC-02", no_acceptance, "joint acceptance at position 1 0.0"),
    ("ACC-02", last_position_lost, "joint acceptance at position 4 0.000 [0.000, 0.023] misses 0.51"),
    ("ACC-03", lost_at_eight, "acceptance length 8 at once over in a row 0."),
    ("ACC-04", tenth_lost, "acceptance length of pair 4."),
    ("LOSS-01", tenth_differs, "share of equal texts 0.846"),
    ("LOSS-02", diverges_far_from_a_tie, "code-00 differs at token 7 (plain 8: token 300, mtp 8: token 301), where"),
    ("LOSS-03", ends_otherwise, 'code-00 ends by "length" with MTP, by "stop" without'),
    ("LOSS-03", pads, "code-00 has <pad> at token 2 with MTP"),
    ("LOSS-03", repeats, "code-00 repeats itself at its end with MTP"),
    ("LOSS-03", half_as_long, "length with MTP over without 0."),
    (
        "LOSS-04",
        all_accepted,
        "widest difference: token 1 after 7 in s0 comes in 100% with MTP, in 60% without",
    ),
    ("LOSS-04", drawn_again_with_the_rejected, "the distributions differ: p = "),
    (
        "LOSS-04",
        later_position_differs,
        "widest difference: token 5 after 7 1 in s0 comes in 100% with MTP, in 67% without",
    ),
    ("SPEED-01", slow_in_a_row, "speedup in a row 1.7"),
    ("SPEED-05", does_not_pay_at_17, "speedup 17 at once 0.7"),
    ("SPEED-02", slow_at_once, "speedup at once 1.4"),
    ("SPEED-03", slow_draft_in_the_server_under_test, "measured over expected speedup 0.5"),
    ("CAL-01", coins_of_other_rates, 'acceptance length at the rates "published" is'),
    ("CAL-01", last_steps_lost, 'joint acceptance at position 4 at the rates "published" is'),
    ("CAL-01", trials_unlike_each_other, "the intervals of acceptance length hold the truth in"),
]


def no_samples(d: Documents) -> None:
    for row in d["sampling"]["prompts"]:
        row["mtp"]["samples"] = row["plain"]["samples"] = {}


def lost_samples(d: Documents) -> None:
    del d["sampling"]["prompts"][1]["mtp"]["samples"]["7 2 8"]


def only_first_tokens(d: Documents) -> None:
    for row in d["sampling"]["prompts"]:
        row["mtp"]["samples"] = row["plain"]["samples"] = {"7": synthetic.SEEDS}


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


def no_parameters(d: Documents) -> None:
    d["draft_load"]["draft"].update(parameters={}, linears={})


def no_draft_in_the_server(d: Documents) -> None:
    d["wiring"]["described"] = {"vllm_version": "0.32.0"}


def no_layers_shared(d: Documents) -> None:
    described(d).update(draft_kv_sharing={}, draft_kv_scales={})


def nothing_computed(d: Documents) -> None:
    d["numerics"].update(draft_linears={}, draft_mlps={}, routers={}, experts={}, backends={})


def nothing_captured(d: Documents) -> None:
    d["parity"]["rows"] = []


def no_logits(d: Documents) -> None:
    d["parity"]["rows"][5].update(token=None, logits=None, gap=None)


def one_step_only(d: Documents) -> None:
    d["parity"]["rows"] = [row for row in d["parity"]["rows"] if row["step"] == 0]


def other_weights(d: Documents) -> None:
    d["gold"]["weights_sha256"] = synthetic.digest("retrained")


def no_gold_prompt(d: Documents) -> None:
    for each in d["load"]["rounds"]:
        each["prompts"] = [f"other {name}" for name in each["prompts"]]
    prompts = d["load"]["prompts"]
    d["load"]["prompts"] = {f"other {name}": prompt for name, prompt in prompts.items()}


def two_backends(d: Documents) -> None:
    d["numerics"]["backends"]["model.layers.14"] = "EMULATION"


def other_shape(d: Documents) -> None:
    d["numerics"]["draft_linears"]["lm_head"]["found"] = [[1.0]]


def no_layers(d: Documents) -> None:
    d["moe"].update(layers={}, log_lines=[])


def no_log_lines(d: Documents) -> None:
    d["moe"]["log_lines"] = ["INFO nothing about it"]


def no_devices(d: Documents) -> None:
    d["moe_oracle"]["devices"] = {}


def no_requests(d: Documents) -> None:
    for device in d["moe_oracle"]["devices"].values():
        device["explicit"] = {}


def only_the_cpu(d: Documents) -> None:
    d["moe_oracle"]["devices"] = {"CPU": on(d, "CPU")}


def no_tools(d: Documents) -> None:
    d["tools"]["prompts"] = []


def no_calls(d: Documents) -> None:
    for row in d["tools"]["prompts"]:
        row["whole"]["calls"] = row["streamed"]["calls"] = []


def no_drafts(d: Documents) -> None:
    nothing = {"drafts": 0, "draft_tokens": 0, "accepted": 0, "accepted_per_position": [0] * 4, "output_tokens": 1}
    for answer in answers_of(d, "mtp"):
        write(answer, answer["token_ids"][:1])
        answer["counts"] = dict(nothing)
    for each in d["load"]["rounds"]:
        each["mtp"]["counted"] = synthetic.totals([answer["counts"] for answer in each["mtp"]["answers"]])


def no_rounds(d: Documents) -> None:
    d["load"]["rounds"] = []


def only_warm_up(d: Documents) -> None:
    for each in d["load"]["rounds"]:
        each["warm_up"] = True


def only_in_a_row(d: Documents) -> None:
    d["load"]["rounds"] = [each for each in d["load"]["rounds"] if each["concurrency"] == 1]


def unequal_lengths(d: Documents) -> None:
    half_as_long(d)


def nothing_compared(d: Documents) -> None:
    d["ties"].update(compared={"with_mtp": 0, "without_mtp": 0}, divergences=[])


def not_against_itself(d: Documents) -> None:
    d["ties"]["compared"]["without_mtp"] = 0


def no_shifts(d: Documents) -> None:
    d["ties"]["shifts"] = []


def no_padding_token(d: Documents) -> None:
    del d["checkpoint"]["target"]["special_tokens"]["<pad>"]


def first_counts(d: Documents) -> dict[str, Any]:
    counts: dict[str, Any] = next(answers_of(d, "mtp"))["counts"]
    return counts


def nothing_swept(d: Documents) -> None:
    d["sweep"].update(rows=[], counted=[])


def one_length_only(d: Documents) -> None:
    d["sweep"].update(rows=[row for row in d["sweep"]["rows"] if row["k"] in (0, synthetic.K)], counted=[])


def prompt_left_out(d: Documents) -> None:
    d["sweep"]["rows"].pop()
    d["sweep"]["counted"] = []


def longer_drafts(d: Documents) -> None:
    next(row for row in d["sweep"]["rows"] if row["k"] == 1)["draft_tokens"] *= 2


def positions_lost(d: Documents) -> None:
    d["sweep"]["rows"][-1]["accepted_per_position"].pop()


def uncounted_draft(d: Documents) -> None:
    d["sweep"]["counted"][1]["drafts"] -= 1


def one_token_answer(d: Documents) -> None:
    d["sweep"]["rows"][0]["output_tokens"] = 1


def no_runs(d: Documents) -> None:
    d["bench"]["runs"] = []


def no_runs_of_vllm(d: Documents) -> None:
    d["bench"]["runs"] = [run for run in d["bench"]["runs"] if run["client"] == "ours"]


def prompts_dropped(d: Documents) -> None:
    d["bench"]["runs"][1]["completed"] = 18


def slow_client(d: Documents) -> None:
    for run in d["bench"]["runs"]:
        run["seconds"] *= 1.06 if run["client"] == "ours" else 1


def other_acceptance(d: Documents) -> None:
    for run in d["bench"]["runs"]:
        run["accepted"] -= 100 if run["client"] == "vllm" else 0


def lost_count(d: Documents) -> None:
    first_counts(d)["accepted"] -= 1


def other_traffic(d: Documents) -> None:
    next(each for each in d["load"]["rounds"] if not each["warm_up"])["mtp"]["counted"]["drafts"] += 1
    next(each for each in d["load"]["rounds"] if not each["warm_up"])["mtp"]["counted"]["draft_tokens"] += 4


def rising_positions(d: Documents) -> None:
    counts = first_counts(d)
    counts.update(accepted_per_position=[1, 2, 2, 2], accepted=7)


def uncounted_output(d: Documents) -> None:
    first_counts(d)["output_tokens"] += 50


def lost_token_ids(d: Documents) -> None:
    next(answers_of(d, "mtp"))["token_ids"].pop()


def no_rates(d: Documents) -> None:
    d["calibration"]["rates"] = []


def no_trials(d: Documents) -> None:
    rates_of(d, 2)["trials"] = []


def short_trials(d: Documents) -> None:
    rates_of(d, 2)["trials"] = [trial[:3] for trial in rates_of(d, 2)["trials"]]


def coins_passed_by(d: Documents) -> None:
    rates_of(d, 0)["decided"] = 0


def rising_counts(d: Documents) -> None:
    rates_of(d, 0)["trials"][0][0]["accepted_per_position"] = [0, 0, 0, 1]


def half_a_draft(d: Documents) -> None:
    rates_of(d, 0)["trials"][0][0]["draft_tokens"] -= 2


def unexplained_output(d: Documents) -> None:
    rates_of(d, 0)["trials"][0][0]["output_tokens"] += 50


def rate_missing(d: Documents) -> None:
    rates_of(d, 0)["joint"].pop()


# check -> a document that says nothing, or contradicts itself, and a part of the sentence that it must give
NOTHING: list[tuple[str, Callable[[Documents], None], str]] = [
    ("ENV-01", no_versions, "nothing to compare"),
    ("CKPT-01", no_tensors, "nothing to compare"),
    ("CKPT-02", no_tensors, "nothing was looked at"),
    ("CKPT-03", no_tensors, "nothing was looked at"),
    ("CKPT-04", no_tensors, "nothing to compare"),
    ("CKPT-05", no_target_tensors, "nothing to compare"),
    ("CKPT-06", no_target_tensors, "nothing was looked at"),
    ("CKPT-08", no_tokens, "nothing to compare"),
    ("CKPT-09", no_renders, "nothing to compare"),
    ("GEOM-01", no_builds, "nothing is said of E2B under bf16"),
    ("GEOM-01", nothing_built, "vLLM 0.32.0 built no draft: KeyError: 'head_dim'"),
    ("GEOM-02", no_layers_built, "nothing to compare"),
    ("GEOM-02", quantisation_unseen, "26B-A4B under nvfp4-modelopt: vLLM saw no quantisation in the target"),
    ("GEOM-03", no_builds, "nothing is said of E2B under bf16"),
    ("DRAFT-01", no_parameters, "nothing to compare"),
    ("DRAFT-02", no_parameters, "nothing to compare"),
    ("DRAFT-03", no_parameters, "nothing to compare"),
    ("DRAFT-04", no_draft_in_the_server, "this server has no draft"),
    ("DRAFT-05", no_draft_in_the_server, "this server has no draft"),
    ("DRAFT-06", no_draft_in_the_server, "this server has no draft"),
    ("DRAFT-07", no_layers_shared, "nothing to compare"),
    ("DRAFT-08", no_draft_in_the_server, "this server has no draft"),
    ("DRAFT-09", no_layers_shared, "nothing to compare"),
    ("NUM-01", nothing_computed, "nothing to compare"),
    ("PARITY-01", nothing_captured, "fewer than 10 proposals of requests alone were recognised"),
    ("PARITY-02", nothing_captured, "fewer than 10 proposals of requests alone were recognised"),
    ("PARITY-02", no_logits, "of some draft steps no logits were captured"),
    ("PARITY-02", one_step_only, "not every one of the 4 draft steps was captured"),
    ("GOLD-01", other_weights, "was computed from other weights"),
    ("GOLD-01", no_gold_prompt, "nothing was looked at"),
    ("GOLD-02", no_gold_prompt, "nothing was looked at"),
    ("NUM-01", two_backends, "the experts are served by CPU, EMULATION, not by one backend"),
    ("NUM-02", nothing_computed, "nothing to compare"),
    ("NUM-02", other_shape, "cannot be held against"),
    ("MOE-01", no_layers, "nothing to compare"),
    ("MOE-06", no_layers, "nothing to compare"),
    ("MOE-01", no_log_lines, "the server's log names no MoE backend"),
    ("MOE-03", no_devices, "no device was walked"),
    ("MOE-04", no_devices, "nothing was looked at"),
    ("MOE-04", no_requests, "nothing was looked at"),
    ("MOE-05", no_devices, "nothing was looked at"),
    ("MOE-05", only_the_cpu, "nothing was looked at"),
    ("TOOL-01", no_tools, "nothing to compare"),
    ("TOOL-02", no_tools, "no tool call came back"),
    ("TOOL-02", no_calls, "no tool call came back"),
    ("ACC-01", no_rounds, "nothing to estimate"),
    ("ACC-01", no_drafts, "nothing to estimate"),
    ("ACC-01", lost_count, "the positions sum to"),
    ("ACC-01", other_traffic, "but /metrics counted"),
    ("ACC-01", rising_positions, "must not rise"),
    ("ACC-01", uncounted_output, "tokens came out of"),
    ("ACC-01", lost_token_ids, "token ids for"),
    ("ACC-02", no_drafts, "nothing to estimate"),
    ("ACC-03", only_in_a_row, "no measured rounds with more than one request at once"),
    ("ACC-04", no_rounds, "nothing to estimate"),
    ("LOSS-01", nothing_compared, "nothing to estimate"),
    ("LOSS-01", not_against_itself, "nothing to estimate"),
    ("LOSS-01", no_shifts, "no scores were compared across batches"),
    ("LOSS-02", nothing_compared, "nothing was looked at"),
    ("LOSS-02", no_shifts, "no scores were compared across batches"),
    ("LOSS-03", no_rounds, "nothing was looked at"),
    ("LOSS-03", no_padding_token, "has no <pad>"),
    ("SPEED-01", no_rounds, "no measured rounds"),
    ("SPEED-01", only_warm_up, "no measured rounds"),
    ("LOSS-04", no_samples, "s0: 0 samples came of 200 seeds"),
    ("LOSS-04", lost_samples, "samples came of 200 seeds"),
    ("LOSS-04", only_first_tokens, "no context was reached 20 times by both servers"),
    ("SPEED-01", unequal_lengths, "the times do not compare"),
    ("SPEED-02", only_in_a_row, "no measured rounds with 8 requests at once"),
    ("SPEED-02", unequal_lengths, "the times do not compare"),
    ("SPEED-05", no_rounds, "nothing was compared"),
    ("CAL-01", no_rates, "nothing was looked at"),
    ("CAL-01", no_trials, "trials of nothing requests with 0 drafts"),
    ("CAL-01", short_trials, "trials of [3] requests with"),
    ("CAL-01", coins_passed_by, "but coins decided only 0"),
    ("CAL-01", rising_counts, "must not rise"),
    ("CAL-01", half_a_draft, "where k is 4"),
    ("CAL-01", unexplained_output, "tokens came out of"),
    ("CAL-01", rate_missing, "are 3, but k is 4"),
    ("SPEED-03", nothing_swept, "0 prompts at 0 lengths"),
    ("SPEED-03", one_length_only, "6 prompts at 1 lengths"),
    ("SPEED-03", prompt_left_out, "not every prompt was asked at every k"),
    ("SPEED-03", longer_drafts, "p000 at k = 1: 40 tokens drafted in 20 drafts"),
    ("SPEED-03", positions_lost, "tokens accepted, by position"),
    ("SPEED-03", uncounted_draft, "/metrics of the sweep server counts"),
    ("SPEED-03", one_token_answer, "p000 at k = 0 has no step after its first token"),
    ("SPEED-04", no_runs, "our client measured nothing"),
    ("SPEED-04", no_runs_of_vllm, "vllm bench serve measured nothing"),
    ("SPEED-04", prompts_dropped, "vllm bench serve completed 18 of 20 prompts"),
    ("SPEED-04", slow_client, "output tokens/s is 562.29 by our client and 596.03 by vllm bench serve, -5.7%"),
    ("SPEED-04", other_acceptance, "acceptance length is 4.63 by our client and 4.11 by vllm bench serve, +12.8%"),
]
# Two instruments that differ are an ERROR, never a FAIL, so their negative controls are among NOTHING.
INSTRUMENTS = {"SPEED-04"}
# Their documents are one answer each: there is no set that could be empty.
SINGLE_ANSWERS = {"ENV-02", "ENV-03", "CKPT-07", "MOE-02", "DRAFT-10"}
