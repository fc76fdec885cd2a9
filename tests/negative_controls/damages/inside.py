"""What can go wrong with what runs inside the server; each function damages the documents in one way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from support import synthetic

Documents = synthetic.Documents
Row = tuple[str, Callable[[Documents], None], str]


def layers(d: Documents, name: str) -> Any:
    return d["draft_load"]["draft"]["parameters"][f"model.layers.0.mlp.{name}.weight"]


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


def one_token_a_step(d: Documents) -> None:
    """/metrics has the labels of all positions nevertheless."""
    d["wiring"]["drafted"] = {"drafts": 9, "draft_tokens": 9}


def no_draft_at_all(d: Documents) -> None:
    d["wiring"]["drafted"] = {"drafts": 0, "draft_tokens": 0}


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


def hidden_state_of_another_row(d: Documents) -> None:
    d["parity"]["rows"][72]["hidden"]["found"].reverse()


def carried(d: Documents, place: int, step: int) -> Any:
    return next(row for row in d["parity"]["rows"] if (row["place"], row["step"]) == (place, step))["carried"]


def stale_hidden_state(d: Documents) -> None:
    carried(d, 25, 2)["equal"] = 3


def token_not_drafted(d: Documents) -> None:
    carried(d, 25, 3)["token"] = 301


def other_place(d: Documents, **changes: Any) -> None:
    d["parity"]["unrecognised"] += [{"rows": 3, "place": 40, "token": 7, "request": None} | changes] * 2


def row_of_no_first_step(d: Documents) -> None:
    other_place(d, token=None)


def never_ending(d: Documents) -> None:
    other_place(d, request="together")


def other_activation(d: Documents) -> None:
    for row in d["parity"]["rows"]:
        row["projected"]["found"] = [value * 1.05 for value in row["projected"]["expected"]]


def one_row_of_another_request(d: Documents) -> None:
    d["parity"]["rows"][70]["projected"]["found"].reverse()


def other_tokens_drafted(d: Documents) -> None:
    d["parity"]["rows"][3].update(token=301, gap=1.5)


def other_logits(d: Documents) -> None:
    for row in d["parity"]["rows"]:
        row["logits"]["found"] = [value * 1.03 for value in row["logits"]["expected"]]


def draft_chose_for_itself(d: Documents) -> None:
    described(d)["attention_backends"]["draft_model.layers.3.self_attn.attn"] = "FLASHINFER"


def marlin(d: Documents) -> None:
    d["moe"]["layers"]["model.layers.3.moe.experts"]["backend"] = "MARLIN"


def one_layer_fell_back(d: Documents) -> None:
    d["moe"]["layers"]["model.layers.3.moe.experts"]["experts"] = "TritonExperts"


def log_disagrees(d: Documents) -> None:
    d["moe"]["log_lines"] = ["Using 'MARLIN' NvFp4 MoE backend out of potential backends: ['MARLIN']."]


def another_kernel_ran(d: Documents) -> None:
    d["kernels"]["executed"]["void marlin_moe_wna16::Marlin<256, 1, 8, 8, 4>(int4 const*)"] = 90


def its_kernel_never_ran(d: Documents) -> None:
    del d["kernels"]["executed"]["_C::cpu_fused_moe"]


def came_up(d: Documents) -> None:
    d["moe_refusal"].update(came_up=True, exit_code=None, reason=None)


def died_otherwise(d: Documents) -> None:
    d["moe_refusal"]["reason"] = "RuntimeError: out of memory"


def hung(d: Documents) -> None:
    d["moe_refusal"].update(exit_code=None, reason=None, log_tail="INFO Starting to load model")


def wrote_nothing(d: Documents) -> None:
    d["moe_refusal"].update(exit_code=None, reason=None, log_tail="")


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


# check -> damages, each with a part of the sentence that the check must give
DAMAGES: list[Row] = [
    ("DRAFT-01", half_wide, "model.layers.0.mlp.down_proj.weight is [64, 256] where [64, 512] is expected"),
    ("DRAFT-02", packed, "gate_up_proj.weight is uint8 where bfloat16 is expected"),
    ("DRAFT-02", quantised_linear, "gate_up_proj is ModelOptNvFp4LinearMethod where"),
    ("DRAFT-03", never_loaded, "model.layers.0.mlp.down_proj.weight is "),
    ("DRAFT-03", lost_buffer, "model.layers.1.layer_scalar is absent where"),
    ("DRAFT-03", swapped_gate_and_up, "model.layers.0.mlp.gate_proj.weight is "),
    ("DRAFT-04", embedding_copied, '"the draft uses the target\'s embedding" is False where True is expected'),
    ("DRAFT-05", head_of_the_target, "hidden is 128 where 64 is expected; is_targets is True where False"),
    ("DRAFT-06", scale_of_the_draft, "embedding scale 8 (expected 11.3137) is off by 29.29%"),
    ("DRAFT-07", first_sliding_layer, "layer 1 is layer 0 where layer 28 is expected"),
    ("DRAFT-07", unshared_layer, "layer 3 is None where layer 29 is expected"),
    ("DRAFT-08", advancing_positions, '"draft positions are constant" is False where True is expected'),
    ("DRAFT-09", uncalibrated_scales, "layer 0 k is 1.0 where 0.003 is expected"),
    ("DRAFT-10", one_position, "positions in /metrics is ['0'] where ['0', '1', '2', '3'] is expected"),
    ("DRAFT-10", one_token_a_step, "tokens per draft is 1.0 where 4 is expected"),
    ("DRAFT-10", no_draft_at_all, "tokens per draft is 0.0 where 4 is expected"),
    (
        "DRAFT-11",
        draft_chose_for_itself,
        "draft_model.layers.3.self_attn.attn is FLASHINFER where CPU_ATTN is expected",
    ),
    ("NUM-01", expert_of_zeros, "model.layers.14.experts is off by 100.00%"),
    ("NUM-01", null_experts, "model.layers.14.experts is all zeros where at most 2.00% is expected"),
    ("NUM-01", no_number, "model.layers.29.experts is not a number"),
    ("NUM-01", constant_experts, "model.layers.0.experts is the constant 7"),
    ("NUM-01", wrong_router, "model.layers.14.router is off by"),
    ("NUM-02", six_percent, "model.pre_projection is off by 6.00% (cosine 1.00000) where at most 1.00% is expected"),
    ("NUM-02", wrong_activation, "model.layers.0.mlp is off by"),
    ("PARITY-01", positions_advance, "alone, place 20, step 1 is 21 where 20 is expected"),
    ("PARITY-01", other_hidden_state, "step 0 of a request alone is off by"),
    ("PARITY-01", hidden_state_of_another_row, "the worst step of together is off by"),
    (
        "PARITY-01",
        stale_hidden_state,
        "step 2, hidden state is different in 125 of 128 values where the projected state of step 1 is",
    ),
    ("PARITY-01", token_not_drafted, "alone, place 25, step 3, token is 301 where 300 is expected"),
    ("PARITY-01", other_place, "a row of 3 at place 40 begins with token 7, which no request without a row has"),
    ("PARITY-01", row_of_no_first_step, "a row of 3 at place 40 continues no captured first step"),
    ("PARITY-01", never_ending, "3 proposals continue after the end of together, where at most 2 are expected"),
    ("PARITY-02", other_activation, "step 0 of a request alone is off by 5.00% (cosine 1.00000) where at most 3.00%"),
    (
        "PARITY-02",
        other_tokens_drafted,
        "alone, place 20, step 3 drafts token 301 where token 300 is expected, which leads by 1.50",
    ),
    ("PARITY-02", other_logits, "step 0 of a request alone is off by 3.00%"),
    ("PARITY-02", one_row_of_another_request, "the worst step of together is off by"),
    ("MOE-01", marlin, "model.layers.3.moe.experts is MARLIN where CPU is expected"),
    ("MOE-01", log_disagrees, "the log's line 1 is MARLIN where CPU is expected"),
    ("MOE-06", one_layer_fell_back, "model.layers.3.moe.experts is TritonExperts where CPUUnquantizedExperts"),
    (
        "MOE-07",
        another_kernel_ran,
        "void marlin_moe_wna16::Marlin<256, 1, 8, 8, 4>(int4 const*) of MARLIN ran, where CPU",
    ),
    ("MOE-07", its_kernel_never_ran, "no kernel of CPU is among the 2 that ran"),
    ("MOE-02", came_up, "the server started with --moe-backend cutlass"),
    ("MOE-02", died_otherwise, "RuntimeError: out of memory"),
    ("MOE-02", hung, "the server gave no reason and was stopped after 20 s"),
    ("MOE-03", chose_marlin, "SM 110 is MARLIN where VLLM_CUTLASS is expected"),
    ("MOE-03", chose_on_the_cpu, "CPU is MARLIN where none is expected"),
    ("MOE-03", flashinfer_refused, "SM 121 is VLLM_CUTLASS where FLASHINFER_CUTLASS is expected"),
    ("MOE-04", replaced_request, "SM 90: --moe-backend cutlass was replaced by MARLIN"),
    ("MOE-04", reasonless_request, "SM 90: --moe-backend cutlass ended in ValueError: VLLM_CUTLASS does not"),
    ("MOE-04", crashed_request, "CPU: --moe-backend cutlass ended in AttributeError: no such op"),
    ("MOE-05", emulated, "SM 80 falls back to EMULATION"),
    ("MOE-05", left_without_kernel, "SM 80 has no kernel at all"),
]


def no_parameters(d: Documents) -> None:
    d["draft_load"]["draft"].update(parameters={}, linears={})


def no_draft_in_the_server(d: Documents) -> None:
    d["wiring"]["described"] = {"vllm_version": "0.32.0"}


def no_attention(d: Documents) -> None:
    described(d)["attention_backends"] = {}


def no_layers_shared(d: Documents) -> None:
    described(d).update(draft_kv_sharing={}, draft_kv_scales={})


def nothing_computed(d: Documents) -> None:
    d["numerics"].update(draft_linears={}, draft_mlps={}, routers={}, experts={}, backends={})


def nothing_captured(d: Documents) -> None:
    d["parity"]["rows"] = []


def few_recognised(d: Documents) -> None:
    other_place(d)
    d["parity"]["rows"] = d["parity"]["rows"][:72]


def no_logits(d: Documents) -> None:
    d["parity"]["rows"][5].update(token=None, logits=None, gap=None)


def one_step_only(d: Documents) -> None:
    d["parity"]["rows"] = [row for row in d["parity"]["rows"] if row["step"] == 0]


def two_backends(d: Documents) -> None:
    d["numerics"]["backends"]["model.layers.14"] = "EMULATION"


def other_shape(d: Documents) -> None:
    d["numerics"]["draft_linears"]["lm_head"]["found"] = [[1.0]]


def no_layers(d: Documents) -> None:
    d["moe"].update(layers={}, log_lines=[])


def no_log_lines(d: Documents) -> None:
    d["moe"]["log_lines"] = ["INFO nothing about it"]


def nothing_executed(d: Documents) -> None:
    d["kernels"]["executed"] = {}


def no_devices(d: Documents) -> None:
    d["moe_oracle"]["devices"] = {}


def no_requests(d: Documents) -> None:
    for device in d["moe_oracle"]["devices"].values():
        device["explicit"] = {}


def only_the_cpu(d: Documents) -> None:
    d["moe_oracle"]["devices"] = {"CPU": on(d, "CPU")}


# check -> an empty or contradictory document, and a part of the sentence that the check must give
NOTHING: list[Row] = [
    ("MOE-07", nothing_executed, "torch's profiler recorded no CPU activity"),
    ("DRAFT-01", no_parameters, "nothing to compare"),
    ("DRAFT-02", no_parameters, "nothing to compare"),
    ("DRAFT-03", no_parameters, "nothing to compare"),
    ("DRAFT-04", no_draft_in_the_server, "this server has no draft"),
    ("DRAFT-05", no_draft_in_the_server, "this server has no draft"),
    ("DRAFT-06", no_draft_in_the_server, "this server has no draft"),
    ("DRAFT-07", no_layers_shared, "nothing to compare"),
    ("DRAFT-08", no_draft_in_the_server, "this server has no draft"),
    ("DRAFT-09", no_layers_shared, "nothing to compare"),
    ("DRAFT-11", no_attention, "nothing to compare"),
    ("DRAFT-11", no_draft_in_the_server, "this server has no draft"),
    ("NUM-01", nothing_computed, "nothing to compare"),
    ("PARITY-01", nothing_captured, "fewer than 10 proposals of requests alone were recognised"),
    ("PARITY-02", nothing_captured, "fewer than 10 proposals of requests alone were recognised"),
    (
        "PARITY-01",
        few_recognised,
        "fewer than 10 proposals of requests in a batch were recognised; 3 proposals were not recognised",
    ),
    ("PARITY-02", no_logits, "no logits were captured for some draft steps"),
    ("PARITY-02", one_step_only, "some of the 4 draft steps were not captured"),
    ("NUM-01", two_backends, "the experts are served by CPU, EMULATION, not by one backend"),
    ("NUM-02", nothing_computed, "nothing to compare"),
    ("NUM-02", other_shape, "cannot be compared with a reference"),
    ("MOE-01", no_layers, "nothing to compare"),
    ("MOE-06", no_layers, "nothing to compare"),
    ("MOE-02", wrote_nothing, "the server with --moe-backend cutlass wrote nothing for 20 s"),
    ("MOE-01", no_log_lines, "the server's log names no MoE backend"),
    ("MOE-03", no_devices, "no device was examined"),
    ("MOE-04", no_devices, "nothing was looked at"),
    ("MOE-04", no_requests, "nothing was looked at"),
    ("MOE-05", no_devices, "nothing was looked at"),
    ("MOE-05", only_the_cpu, "nothing was looked at"),
]
