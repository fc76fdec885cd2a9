"""What can make the arms of a speedup unlike, and leave a batch without a graph; each function damages one thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from support import synthetic

Documents = synthetic.Documents
Row = tuple[str, Callable[[Documents], None], str]


def plain(d: Documents, **changes: Any) -> None:
    """Change the configuration of the server without MTP."""
    d["resolved_config"]["plain"].update(changes)


def graphs_to_64(d: Documents) -> None:
    """vLLM's own defaults for 32 requests, with k = 4 and without MTP."""
    sizes = [1, 2, 4, *range(8, 65, 8)]
    name = "compilation_config.{}cudagraph_capture_size{}"
    plain(d, **{name.format("", "s"): sizes, name.format("max_", ""): 64})


def fewer_scheduled_tokens(d: Documents) -> None:
    plain(d, **{"scheduler_config.max_num_scheduled_tokens": 4096})


def another_backend(d: Documents) -> None:
    plain(d, **{"worker.attention.model.layers.0.self_attn.attn": "FLASH_ATTN"})


def half_the_blocks(d: Documents) -> None:
    plain(d, **{"cache_config.num_gpu_blocks": 500})


def unknown_field(d: Documents) -> None:
    plain(d, **{"turbo_config.gear": 3})


def unknown_value(d: Documents) -> None:
    plain(d, lora_config="LoRAConfig")


def earlier_between_64_and_320(d: Documents) -> None:
    """The pattern of an H200 whose server without MTP has no graph for prompts of 65 to 320 tokens."""
    tokens = {id: len(row["token_ids"]) for id, row in d["load"]["prompts"].items()}
    for each in d["load"]["rounds"]:
        for id, answer in zip(each["prompts"], each["mtp"]["answers"], strict=True):
            answer["first_seconds"] /= 2.71 * 1.15 if 64 < tokens[id] <= 320 else 1


def unlike_and_earlier(d: Documents) -> None:
    graphs_to_64(d)
    earlier_between_64_and_320(d)


def faster_steps(d: Documents) -> None:
    for each in d["load"]["rounds"]:
        for answer in each["mtp"]["answers"]:
            answer["gaps_ms"] = [gap / 2 for gap in answer["gaps_ms"]]


def unlike_and_faster_steps(d: Documents) -> None:
    another_backend(d)
    faster_steps(d)


def cuda_rows(d: Documents) -> Any:
    return d["cuda_graphs"]["rows"]


def widest_batch_dropped(d: Documents) -> None:
    cuda_rows(d)[1].update(sizes=[5, 10, 155], batches={"FULL": list(range(1, 32)), "NONE": [32]})
    cuda_rows(d)[1]["settings"]["maximum"] = 160


def attention_eager_for_half(d: Documents) -> None:
    half = list(range(2, 33, 2))
    cuda_rows(d)[1]["batches"] = {"FULL": [each for each in range(1, 33) if each not in half], "PIECEWISE": half}


def widest_batch_dropped_without_mtp(d: Documents) -> None:
    cuda_rows(d)[0].update(sizes=[1, 2, 4, 8, 16, 24], batches={"FULL": list(range(1, 25)), "NONE": [*range(25, 33)]})


def settings_refused(d: Documents) -> None:
    cuda_rows(d)[1].update(sizes=[], batches={}, error="ValueError: No valid cudagraph sizes")


def steps_of(d: Documents, arm: str) -> Any:
    return d["graph_steps"]["arms"][arm]["steps"]


def eager_steps_at_the_widest(d: Documents) -> None:
    steps_of(d, "mtp")[7].update(padded=40, mode="NONE")


def attention_eager_without_mtp(d: Documents) -> None:
    for row in steps_of(d, "plain")[2:4]:
        row["mode"] = "PIECEWISE"


def cliff_at_eight(d: Documents) -> None:
    """As where a graph is missing for eight requests."""
    for row in d["graph_steps"]["arms"]["mtp"]["rates"]:
        if row["requests"] == 8:
            row["tokens_per_second"] *= 0.6


# check -> damages, each with a part of the sentence that the check must give
DAMAGES: list[Row] = [
    ("ARM-01", graphs_to_64, "compilation_config.cudagraph_capture_sizes is 1 … 320 (43 values) with MTP and 1 … 64"),
    ("ARM-01", graphs_to_64, "compilation_config.max_cudagraph_capture_size is 320 with MTP and 64 without"),
    ("ARM-01", fewer_scheduled_tokens, "max_num_scheduled_tokens is 8192 with MTP and 4096 without (confounding: "),
    ("ARM-01", another_backend, "self_attn.attn is TRITON_ATTN with MTP and FLASH_ATTN without (confounding: "),
    ("ARM-01", half_the_blocks, "cache_config.num_gpu_blocks is 980 with MTP and 500 without (confounding: "),
    ("ARM-01", unknown_field, "turbo_config.gear is absent with MTP and 3 without (unknown: no row of arms.toml"),
    ("ARM-01", unknown_value, "lora_config is None with MTP and LoRAConfig without (unknown: "),
    ("ARM-02", earlier_between_64_and_320, "for 65 to 320 prompt tokens, 2.7"),
    ("ARM-02", earlier_between_64_and_320, "the configurations are alike, so suspect what they do not show"),
    ("ARM-02", unlike_and_earlier, "the arms are not alike: compilation_config.cudagraph_capture_sizes is 1 … 320"),
    ("ARM-03", faster_steps, "the time of a step without drafts over that of one with 1.36"),
    ("ARM-03", unlike_and_faster_steps, "the arms are not alike: worker.attention.model.layers.0.self_attn.attn"),
    ("GRAPH-01", widest_batch_dropped, "gb10 with k = 4: a step of 32 of 32 requests, up to 160 tokens, has no graph"),
    ("GRAPH-01", widest_batch_dropped, "captured up to 155, of --max-cudagraph-capture-size 160"),
    ("GRAPH-01", attention_eager_for_half, "2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32 of 32 requests"),
    ("GRAPH-01", attention_eager_for_half, "computes attention outside its graph (PIECEWISE)"),
    ("GRAPH-01", widest_batch_dropped_without_mtp, "gb10 without MTP: a step of 25 to 32 of 32 requests"),
    ("GRAPH-01", settings_refused, "vLLM refuses the settings: ValueError: No valid cudagraph sizes"),
    ("GRAPH-02", eager_steps_at_the_widest, "with MTP: 40 of 40 steps of decoding with 8 requests are NONE, not FULL"),
    ("GRAPH-02", attention_eager_without_mtp, "without MTP: 80 of 80 steps of decoding with 3 to 4 requests are PIECE"),
    ("GRAPH-03", cliff_at_eight, "with MTP: 6228 tokens/s with 7 requests, but 4158 with 8, 33 % less"),
]


def nothing_resolved(d: Documents) -> None:
    d["resolved_config"]["plain"] = {}


def no_rounds_in_a_row(d: Documents) -> None:
    d["load"]["rounds"] = [each for each in d["load"]["rounds"] if each["concurrency"] != 1]


def two_in_a_row(d: Documents) -> None:
    """One round of three prompts is left, which is too few for any class."""
    alone = [each for each in d["load"]["rounds"] if each["concurrency"] == 1 and not each["warm_up"]]
    d["load"]["rounds"] = alone[:1]


def never_asked_again(d: Documents) -> None:
    for each in d["load"]["rounds"]:
        each["plain_again"] = None


def one_delivery(d: Documents) -> None:
    for each in d["load"]["rounds"]:
        for answer in each["mtp"]["answers"]:
            answer["gaps_ms"] = []


def no_hardware(d: Documents) -> None:
    d["cuda_graphs"]["rows"] = []


def batch_forgotten(d: Documents) -> None:
    cuda_rows(d)[0]["batches"]["FULL"].pop()


def no_step_counted(d: Documents) -> None:
    steps_of(d, "mtp").clear()


def number_forgotten(d: Documents) -> None:
    arm = d["graph_steps"]["arms"]["plain"]
    arm["rates"] = [row for row in arm["rates"] if row["requests"] != 5]


# check -> an empty or contradictory document, and a part of the sentence that the check must give
NOTHING: list[Row] = [
    ("ARM-01", nothing_resolved, "the server plain reported no configuration"),
    ("ARM-02", no_rounds_in_a_row, "no measured rounds with 1 requests at once"),
    ("ARM-02", two_in_a_row, "no class of prompts has 5 requests in a row"),
    ("ARM-02", never_asked_again, "the server without MTP was not asked twice"),
    ("ARM-03", one_delivery, "0 answers in a row have several steps in both arms"),
    ("ARM-03", never_asked_again, "the server without MTP was not asked twice, so its shift is unknown"),
    ("GRAPH-01", no_hardware, "nothing was looked at"),
    ("GRAPH-02", no_step_counted, "no step of decoding with MTP was counted"),
    ("GRAPH-03", number_forgotten, "7 of 8 numbers of requests were asked"),
    ("GRAPH-01", batch_forgotten, "gb10 at k = 0: 31 batches were asked for, not 32"),
]
