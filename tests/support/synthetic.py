"""Made-up observations of a healthy run: small enough to read, valid against every schema."""

from __future__ import annotations

import copy
import functools
import gc
import hashlib
import json
import pickle
from collections import UserDict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from conformance import FIXTURES
from conformance.checkpoints.pairing import implied_tensors
from conformance.evidence.folder import Evidence
from conformance.observers.checkpoint import describe
from conformance.profile.facts import load_facts
from conformance.profile.known_rates import conditional_rates, load_plan
from conformance.profile.profile import load_profile, profile_to_json
from conformance.run.session import new_header_here
from support import synthetic_chat, synthetic_features

K, SEEDS = 4, 200
TIMED = ("seconds", "first_seconds", "tokens")
FIRST_SECONDS = 0.1  # without MTP; with it, the draft reads the prompt too
ROUNDS = {1: 12, 3: 4, 8: 10, 17: 2}
ASKED = 160  # of the gold prompts, so that every category has enough of them for an interval
Documents = dict[str, dict[str, Any]]
START = {
    "name": "mtp",
    "started": "2026-11-26T12:00:00Z",
    "command": ["python", "-m", "vllm.entrypoints.openai.api_server", "--speculative-config", '{"method": "mtp"}'],
    "environment": {"VLLM_CPU_OMP_THREADS_BIND": "0-1", "HF_TOKEN": "<redacted>"},
}

FACTS = load_facts()
GOLD = FIXTURES / "gold" / "micro-26b-a4b-nvfp4.jsonl"
GOLD_HEADER, *GOLD_ROWS = (json.loads(line) for line in GOLD.read_text(encoding="utf-8").splitlines())
DRAFT_CONFIG: dict[str, Any] = dict(FACTS.draft("micro-26b-a4b").config)


def digest(name: str) -> str:
    """A SHA-256 that stands for a tensor's bytes."""
    return hashlib.sha256(name.encode()).hexdigest()


class Fresh(UserDict[str, dict[str, Any]]):
    """Every observation, of a server that passes every check, each copied when it is first asked for."""

    def __init__(self) -> None:
        super().__init__(_pickled())

    def __getitem__(self, name: str) -> dict[str, Any]:
        if isinstance(pickled := self.data[name], bytes):
            self.data[name] = pickle.loads(pickled)
        return self.data[name]


def healthy() -> Documents:
    """Every observation, of a server that passes every check; a fresh copy at each call."""
    gc.disable()  # it would look for garbage again and again while so many objects are made
    try:
        return {name: pickle.loads(document) for name, document in _pickled().items()}
    finally:
        gc.enable()


@functools.cache
def _pickled() -> dict[str, bytes]:
    """The observations; to read them back takes a tenth of the time of a deep copy."""
    documents: Documents = {
        "environment": environment(),
        "checkpoint": {"target": target(), "draft": draft()},
        "geometry": geometry(),
        "refusals": {"refusals": []},
        "draft_load": draft_load(),
        "wiring": wiring(),
        "resolved_config": resolved_config(),
        "numerics": numerics(),
        "parity": parity(),
        "gold": gold(),
        "moe": moe(),
        "kernels": {
            "vllm_version": "0.32.0",
            "activity": "CPU",
            "executed": {"aten::mul": 2964, "_C::cpu_fused_moe": 90, "_C::onednn_mm": 681},
        },
        "moe_refusal": {
            "backend": "cutlass",
            "came_up": False,
            "exit_code": 1,
            "reason": "ValueError: NvFp4 MoE backend 'VLLM_CUTLASS' does not support the deployment configuration.",
            "log_tail": "",
            "seconds": 20.0,
        },
        "moe_oracle": moe_oracle(),
        "cuda_graphs": cuda_graphs(),
        "graph_steps": graph_steps(),
        "load": load(),
        "near_ties": ties(),
        "sampling": sampling(),
        "task_score": task_score(),
        "tools": {"prompts": [tool(i) for i in range(12)]},
        "parsers": synthetic_chat.parsers(),
        "bad_requests": synthetic_chat.misuse(),
        **synthetic_chat.chats(),
        "calibration": calibration(),
        "sweep": sweep(),
        "k_by_batch": k_by_batch(),
        "bench": bench(),
        **synthetic_features.documents(),
        "served_load": served_load(),
        "soak": soak(),
        "energy": energy(),
    }
    return {name: pickle.dumps(document) for name, document in documents.items()}


def environment() -> dict[str, Any]:
    versions = {"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu", "transformers": "5.19.0", "rich": "15.0.0"}
    return {
        "python": "3.11.7",
        "platform": "Linux",
        "machine": "x86_64",
        "cpu_count": 2,
        "cpu_capability": "AVX512",
        "hardware": "cpu",
        "detected": "none: there is no NVIDIA driver",
        "gpus": [],
        "imported": {"vllm": "0.32.0", "torch": "2.13.0+cpu", "transformers": "5.19.0"},
        "installed": dict(versions),
        "locked": dict(versions),
        "gemma4_assistant_known": True,
        "mtp_model_registered": True,
    }


def tensor(name: str, dtype: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "sha256": digest(name)}


@functools.cache
def target() -> dict[str, Any]:
    """The shipped NVFP4 target, as its observer sees it."""
    return describe(FIXTURES / "models/micro-26b-a4b/target-nvfp4", FACTS.chat_template.case, hashed=False)


def draft() -> dict[str, Any]:
    """A draft whose file holds what its config implies, with the target's tokens."""
    implied = implied_tensors(DRAFT_CONFIG)
    return {
        "folder": "somewhere",
        "config": DRAFT_CONFIG,
        "generation_config": None,
        "hf_quant_config": None,
        "special_tokens": target()["special_tokens"],
        "chat_template": None,
        "token_order": None,
        "tensors": {name: tensor(name, want.dtype, want.shape) for name, want in implied.items()},
    }


def geometry() -> dict[str, Any]:
    """Every published draft under every configuration, built right."""
    facts = FACTS
    builds: dict[str, Any] = {}
    for size, draft in facts.drafts.items():
        for configuration, quantisation in facts.quantisations.items():
            quantised = {} if quantisation.quantization_config is None else {"target_quantisation": "SomeConfig"}
            builds.setdefault(size, {})[configuration] = build_of(draft.tensors) | quantised
    return {"vllm_version": "0.32.0", "builds": builds}


def build_of(published: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, Any]:
    """One build as gemma4_mtp.py makes it: projections inside the model, gate and up as one, the head tied."""
    layers, tensors = {}, {}
    for name, (dtype, shape) in published.items():
        held = f"model.{name}" if name.startswith(("pre_", "post_")) else name
        if ".up_proj." in name:
            continue
        if ".gate_proj." in name:
            held, shape = held.replace(".gate_proj.", ".gate_up_proj."), (2 * shape[0], shape[1])
        aliases = ["lm_head.weight"] if name == "model.embed_tokens.weight" else []
        kind = "buffer" if name.endswith(("layer_scalar", "token_ordering")) else "parameter"
        torch_dtype = {"BF16": "bfloat16", "I64": "int64"}[dtype]
        tensors[held] = {"kind": kind, "shape": list(shape), "dtype": torch_dtype, "aliases": aliases}
        if len(shape) == 2:
            sizes = {"in": shape[1], "out": shape[0]}
            layer = {"class": "ColumnParallelLinear", "quant_method": "UnquantizedLinearMethod"}
            layers[held.removesuffix(".weight")] = layer | sizes
            if aliases:
                layers["lm_head"] = {"class": "ParallelLMHead", "quant_method": "UnquantizedEmbeddingMethod"} | sizes
                layers["model.embed_tokens"].update({"in": shape[0], "out": shape[1]})
    scale = {"kind": "buffer", "shape": [], "dtype": "float32", "aliases": []}
    tensors["model.layers.0.self_attn.attn._k_scale"] = scale  # vLLM's own, in no checkpoint
    tensors["model.layers.0.self_attn.attn.k_scale"] = scale | {"kind": "parameter"}  # as up to 0.24
    tensors["model.layers.0.self_attn.attn.q_zero_point"] = scale | {"kind": "parameter", "shape": [1], "dtype": "int8"}
    return {"class": "Gemma4MTP", "target_quantisation": "", "layers": layers, "tensors": tensors}


def draft_load() -> dict[str, Any]:
    """The draft as gemma4_mtp.py holds it: projections inside the model, gate and up as one."""
    parameters: dict[str, Any] = {}
    for name, want in implied_tensors(DRAFT_CONFIG).items():
        held = f"model.{name}" if name.startswith(("pre_", "post_")) else name
        row = {
            "kind": "buffer" if name.endswith("layer_scalar") else "parameter",
            "shape": list(want.shape),
            "dtype": "bfloat16",
            "aliases": [],
            "sha256": digest(name),
        }
        if ".gate_proj." in name:
            fused = name.replace(".gate_proj.", ".gate_up_proj.")
            parts = [digest(name), digest(name.replace(".gate_proj.", ".up_proj."))]
            parameters[fused] = row | {
                "shape": [2 * want.shape[0], want.shape[1]],
                "sha256": digest(fused),
                "parts": parts,
            }
        elif ".up_proj." not in name:
            parameters[held] = row
    for i in range(4):  # vLLM's own, in no checkpoint
        scale = {"kind": "buffer", "shape": [], "dtype": "float32", "aliases": [], "sha256": digest("1.0")}
        parameters[f"model.layers.{i}.self_attn.attn._k_scale"] = scale
    linear = {"class": "MergedColumnParallelLinear", "quant_method": "UnquantizedLinearMethod", "in": 64, "out": 1024}
    head = {"class": "ParallelLMHead", "quant_method": "UnquantizedEmbeddingMethod", "in": 64, "out": 640}
    target = {"kind": "parameter", "shape": [128], "dtype": "bfloat16", "aliases": []}
    return {
        "vllm_version": "0.32.0",
        "draft": {
            "class": "Gemma4MTP",
            "parameters": parameters,
            "linears": {"model.layers.0.mlp.gate_up_proj": linear, "lm_head": head},
            "moe": {},
        },
        "target": {"class": "Gemma4ForCausalLM", "parameters": {"norm": target}, "linears": {}, "moe": {}},
    }


def wiring() -> dict[str, Any]:
    shared = {f"draft_model.layers.{i}.self_attn.attn": "model.layers.28.self_attn.attn" for i in range(3)}
    shared["draft_model.layers.3.self_attn.attn"] = "model.layers.29.self_attn.attn"
    scales = dict.fromkeys(("draft_k", "draft_v", "target_k", "target_v"), 1.0)
    return {
        "k": K,
        "described": {
            "vllm_version": "0.32.0",
            "attention_backends": dict.fromkeys([*shared, *shared.values()], "CPU_ATTN"),
            "draft_embedding_is_targets": True,
            "draft_normalizer": 11.3125,
            "draft_lm_head": {"class": "ParallelLMHead", "vocabulary": 1536, "hidden": 64, "is_targets": False},
            "draft_kv_sharing": shared,
            "draft_kv_scales": {name: dict(scales) for name in shared},
            "constant_draft_positions": True,
        },
        "metrics_positions": [str(position) for position in range(K)],
        "drafted": {"drafts": 3, "draft_tokens": 3 * K},
    }


def resolved_config() -> dict[str, Any]:
    """Both servers with graphs up to the same size; what differs is the draft and what it needs."""
    plain = {
        "speculative_config": None,
        "scheduler_config.max_num_batched_tokens": 8192,
        "scheduler_config.max_num_scheduled_tokens": None,
        "scheduler_config.max_num_seqs": 32,
        "scheduler_config.async_scheduling": True,
        "cache_config.num_gpu_blocks": 1000,
        "compilation_config.cudagraph_capture_sizes": [1, 2, 4, *range(8, 321, 8)],
        "compilation_config.max_cudagraph_capture_size": 320,
        "compilation_config.fast_moe_cold_start": True,
        "worker.model_runner": "vllm.v1.worker.gpu.model_runner.GPUModelRunner",
        "worker.attention.model.layers.0.self_attn.attn": "TRITON_ATTN",
        "lora_config": None,
    }
    mtp = {name: value for name, value in plain.items() if name != "speculative_config"} | {
        "speculative_config.method": "mtp",
        "speculative_config.num_speculative_tokens": K,
        "scheduler_config.max_num_scheduled_tokens": 8192,
        "cache_config.num_gpu_blocks": 980,
        "compilation_config.fast_moe_cold_start": False,
        "worker.attention.draft_model.layers.0.self_attn.attn": "TRITON_ATTN",
    }
    return {"vllm_version": "0.32.0", "mtp": mtp, "plain": plain}


def cuda_graphs() -> dict[str, Any]:
    """Every step of decoding has its graph."""

    def row(k: int) -> dict[str, Any]:
        settings = {"sm": 121, "k": k, "max_num_seqs": 32, "max_num_batched_tokens": 8192, "maximum": 320}
        return {
            "hardware": "gb10",
            "settings": settings | {"sizes": None, "new_runner": True},
            "sizes": [1, 2, 4, *range(8, 321, 8)],
            "batches": {"FULL": list(range(1, 33))},
            "error": None,
        }

    return {"vllm_version": "0.32.0", "rows": [row(0), row(K)], "eager": ["h100-small-eager"]}


def numerics() -> dict[str, Any]:
    def close(row: int) -> dict[str, Any]:
        expected = [[1.0 + row, -2.0, 0.5], [0.25, 3.0, -1.0]]
        return {"found": [[value * 1.001 for value in line] for line in expected], "expected": expected}

    layers = [f"model.layers.{i}" for i in (0, 14, 29)]
    return {
        "vllm_version": "0.32.0",
        "backends": dict.fromkeys(layers, "CPU"),
        "draft_linears": {"model.pre_projection": close(0), "lm_head": close(1)},
        "draft_mlps": {"model.layers.0.mlp": close(2)},
        "routers": {name: close(3) for name in layers},
        "experts": {name: close(4) for name in layers},
    }


def parity() -> dict[str, Any]:
    def both(scale: float) -> dict[str, Any]:
        expected = [1.0, -2.0, 0.5, 3.0]
        return {"found": [value * (1 + scale) for value in expected], "expected": expected}

    rows = [
        {
            "request": request,
            "rows": 3 if request == "together" else 1,
            "place": 20 + 5 * number,
            "step": step,
            "position": 20 + 5 * number,
            "hidden": both(0.01) if step == 0 else None,
            "carried": {"token": 300, "likeliest": [300], "equal": 128, "width": 128} if step else None,
            "projected": both(0.01),
            "logits": both(0.005),
            "token": 300,
            "expected_token": 300,
            "gap": 0.0,
        }
        for request in ("alone", "together")
        for number in range(12)
        for step in range(K)
    ]
    past_the_end = {"rows": 3, "place": 80, "token": 1, "request": "together"}
    return {"k": K, "rows": rows, "unrecognised": [past_the_end]}


def gold() -> dict[str, Any]:
    return {"file": GOLD.name, "weights_sha256": GOLD_HEADER["sha256"]}


def moe() -> dict[str, Any]:
    layer = {"experts": "CPUUnquantizedExperts", "backend": "CPU", "quant_method": "ModelOptNvFp4DecodedMoE"}
    return {
        "vllm_version": "0.32.0",
        "layers": {f"model.layers.{i}.moe.experts": dict(layer) for i in range(30)},
        "log_lines": ["Using CPU Unquantized MoE backend out of potential backends: ['CPU']."],
    }


def moe_oracle() -> dict[str, Any]:
    """As on a machine without FlashInfer and Humming."""
    return {
        "vllm_version": "0.32.0",
        "devices": {
            "SM 80": oracle_device("MARLIN", HUMMING=("not evaluated", "humming"), VLLM_CUTLASS=("refused", "")),
            "SM 90": oracle_device("MARLIN", HUMMING=("not evaluated", "humming"), VLLM_CUTLASS=("refused", "")),
            "SM 110": oracle_device("VLLM_CUTLASS", FLASHINFER_CUTLASS=("refused", "flashinfer")),
            "SM 121": oracle_device("VLLM_CUTLASS", FLASHINFER_CUTLASS=("not evaluated", "flashinfer")),
            "CPU": oracle_device("", MARLIN=("refused", ""), VLLM_CUTLASS=("refused", "")),
        },
    }


def oracle_device(chosen: str, **others: tuple[str, str]) -> dict[str, Any]:
    """vLLM's selection on one device: the chosen backend, and others with their state and the library they lack."""

    def backend(state: str, library: str) -> dict[str, Any]:
        objections = ["device"] if state == "refused" else []
        reason = "kernel does not support current device" if objections else f"not installed: {library}"
        facts = {"reason": reason, "objections": objections, "libraries": [library] if library else []}
        return {"state": state, "kernels": [{"kernel": "Experts", "state": state} | facts]}

    since = "does not support the deployment configuration since kernel does not support current device."
    refusal = {"chosen": None, "error": f"ValueError: NvFp4 MoE backend 'VLLM_CUTLASS' {since}"}
    taken = {"chosen": chosen, "error": None}
    backends = {name: backend(*facts) for name, facts in others.items()}
    if chosen:
        backends[chosen] = backend("accepted", "")
    nothing = {"chosen": None, "error": "NotImplementedError: No NvFp4 MoE backend supports the configuration."}
    return {
        "order": list(backends),
        "backends": backends,
        "explicit": {"cutlass": {"backend": "VLLM_CUTLASS"} | (taken if chosen == "VLLM_CUTLASS" else refusal)},
        **(taken if chosen else nothing),
    }


def graph_steps(most: int = 8) -> dict[str, Any]:
    """Every step of decoding runs from a full graph; one more request is always worth it. Prompts run piecewise."""

    def arm(width: int, alone: float) -> dict[str, Any]:
        rates = [
            {"requests": n, "tokens_per_second": alone * n**0.8 * (1 + 0.01 * number), "step_ms": 2.0 + 0.1 * n}
            for number in range(2)
            for n in range(1, most + 1)
        ]
        steps = [{"tokens": width * n, "padded": width * n, "mode": "FULL", "steps": 40} for n in range(1, most + 1)]
        steps.append({"tokens": 64, "padded": 64, "mode": "PIECEWISE", "steps": 16})
        return {"width": width, "rates": rates, "steps": steps}

    return {"requests": most, "arms": {"plain": arm(1, 400.0), "mtp": arm(1 + K, 1300.0)}}


@functools.cache
def load() -> dict[str, Any]:
    """Every answer is the gold one; MTP is 2.7 times as fast in a row, and 2.2 times at once."""
    rounds, place = [], 0
    for concurrency, count in ROUNDS.items():
        for number in range(-1, count):
            size = 3 if concurrency == 1 else concurrency
            rows = [GOLD_ROWS[(place + step) % ASKED] for step in range(size)]
            rounds.append(load_round(concurrency, number, rows))
            place += size if number >= 0 else 0
    prompts = {row["id"]: {"category": category(row["id"]), "token_ids": row["prompt"]} for row in GOLD_ROWS}
    return {"k": K, "prompts": prompts, "rounds": rounds, "linear_fallback": None}


def served_load(slower_first: float = 2.7) -> dict[str, Any]:
    """The prompts in a row once more; without MTP, vLLM captures graphs up to 64 tokens only."""
    document, rows = load(), []
    for each in document["rounds"]:
        if each["concurrency"] != 1 or each["warm_up"]:
            continue
        for id, *answers in zip(each["prompts"], each["plain"]["answers"], each["mtp"]["answers"], strict=True):
            tokens = len(document["prompts"][id]["token_ids"])
            plain, mtp = ({**{name: row[name] for name in TIMED}, "prompt_tokens": tokens} for row in answers)
            if 64 < tokens <= 320:
                wait = plain["first_seconds"] * (slower_first - 1)
                plain |= {"first_seconds": plain["first_seconds"] + wait, "seconds": plain["seconds"] + wait}
            rows.append({"id": id, "category": category(id), "plain": plain, "mtp": mtp})
    configs = resolved_config()
    graphs = {
        "compilation_config.cudagraph_capture_sizes": [1, 2, 4, *range(8, 65, 8)],
        "compilation_config.max_cudagraph_capture_size": 64,
    }
    return {"rows": rows, "configs": {"mtp": configs["mtp"], "plain": configs["plain"] | graphs}}


def category(id: str) -> str:
    return id.rpartition("-")[0]


def load_round(concurrency: int, number: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    ratio = 2.7 if concurrency == 1 else 2.2
    plain = block(rows, ratio if number >= 0 else 60.0, drafts=False)
    order = ["mtp", "plain"] if number % 2 == 0 else ["plain", "mtp"]
    again = number >= 0 and number % 3 == 0
    return {
        "concurrency": concurrency,
        "prompts": [row["id"] for row in rows],
        "warm_up": number < 0,
        "order": [*order, "plain"] if again else order,
        "mtp": block(rows, 1.0 + 0.01 * (number % 3), drafts=True),
        "plain": plain,
        "plain_again": block(rows, ratio * 1.01, drafts=False) if again else None,
    }


def block(rows: list[dict[str, Any]], seconds: float, *, drafts: bool) -> dict[str, Any]:
    """The gold answers of some prompts; each takes ``seconds``, the later ones a few per cent less."""
    answers = [load_answer(row["answer"], seconds * (1 - 0.01 * i), drafts) for i, row in enumerate(rows)]
    counted = totals([answer["counts"] for answer in answers]) if drafts else None
    return {"seconds": seconds, "client_seconds": 0.01, "counted": counted, "answers": answers}


def load_answer(token_ids: list[int], seconds: float, drafts: bool) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "first_seconds": FIRST_SECONDS * (1.15 if drafts else 1) * seconds / round(seconds, 1),
        "gaps_ms": [22.0 if drafts else 15.0] * (len(token_ids) // (5 if drafts else 1)),
        "text": f"{len(token_ids)} tokens",
        "finish_reason": "stop",
        "tokens": len(token_ids),
        "token_ids": list(token_ids),
        "counts": counts(len(token_ids)) if drafts else None,
    }


def counts(tokens: int) -> dict[str, Any]:
    """The counts of an answer whose drafts were nearly all accepted; its end cuts off the last draft."""
    drafts = max(1, -(-(tokens - 1) // 5))
    per_position = [drafts, drafts, drafts, drafts - tokens % 2]
    return {
        "drafts": drafts,
        "draft_tokens": K * drafts,
        "accepted": sum(per_position),
        "accepted_per_position": per_position,
        "output_tokens": tokens,
    }


def totals(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """What /metrics counts during these requests."""
    sums = {name: sum(part[name] for part in parts) for name in ("drafts", "draft_tokens", "accepted", "output_tokens")}
    by_position = zip(*(part["accepted_per_position"] for part in parts), strict=True)
    return sums | {"accepted_per_position": [sum(column) for column in by_position]}


def sampling() -> dict[str, Any]:
    """Four prefixes. Both arms draw the same first token, then one of three; after the commonest, one of two."""
    shares = {"7 1 5": 0.4, "7 1 6": 0.2, "7 2 8": 0.25, "7 3 8": 0.15}

    def sampled(first: int, moved: int) -> dict[str, Any]:
        counts = {sequence: round(share * SEEDS) for sequence, share in shares.items()}
        counts["7 1 5"] += moved
        counts["7 2 8"] -= moved
        return {"first_seed": first, "samples": counts}

    rows = [
        {"id": f"s{i}", "category": "prose", "text": f"Once {i}", "mtp": sampled(i, i), "plain": sampled(1000 + i, 0)}
        for i in range(4)
    ]
    return {"temperature": 1, "tokens": 3, "seeds": SEEDS, "prompts": rows}


QUESTIONS = 120


def task_score() -> dict[str, Any]:
    """Both arms answer all but the last two questions rightly."""

    def row(i: int) -> dict[str, Any]:
        call = {"name": "get_weather", "arguments": {"days": i}}
        written = {"name": "get_weather", "arguments": json.dumps({"days": i if i < QUESTIONS - 2 else -1})}
        said = {"calls": [written], "content": "", "finish_reason": "tool_calls", "tokens": 12}
        row = {"id": f"question-{i:03}", "category": "tool_call", "rule": "calls", "expected": [call]}
        return row | {"mtp": copy.deepcopy(said), "plain": copy.deepcopy(said)}

    return {"at_once": 8, "questions": [row(i) for i in range(QUESTIONS)]}


def ties() -> dict[str, Any]:
    """One divergence with MTP, at a near-tie."""
    divergence = {"id": "code-00", "between": ["plain 8", "mtp 8"], "place": 7, "tokens": [300, 301], "gap": 0.06}
    return {
        "compared": {"with_mtp": 130, "without_mtp": 110},
        "shifts": [{"id": "code-00", "positions": 400, "largest": 0.06}],
        "divergences": [divergence],
    }


SWEPT = range(1, 9)
SWEEP_PROMPTS = 6
RATES = (0.95, 0.9, 0.85, 0.8, 0.6, 0.5, 0.4, 0.3)  # joint acceptance by position


def sweep() -> dict[str, Any]:
    """A target step takes 7 ms, a draft token 1 ms, and the rest of a step 2 ms."""
    rows = []
    for server, k in (("plain", 0), ("mtp", K), *(("sweep", k) for k in SWEPT)):
        for i in range(SWEEP_PROMPTS):
            drafts = 20 + i if k else 0
            per_position = [round(rate * drafts) for rate in RATES[:k]]
            tokens = drafts + sum(per_position) if k else 70
            step = (0.007 + 0.002 + 0.001 * k) * (1 + 0.01 * (i % 3))
            row = {
                "server": server,
                "k": k,
                "prompt": f"p{i:03}",
                "seconds": 0.03 + (drafts * step if k else tokens * 0.007),
                "first_token_seconds": 0.03,
                "output_tokens": 1 + tokens,
                "token_ids": [1, 2, i],
                "drafts": drafts,
                "draft_tokens": k * drafts,
                "accepted": sum(per_position),
                "accepted_per_position": per_position,
            }
            rows.append(row)
    return {"k": K, "method": "probe", "rows": rows, "counted": [counted(rows, name) for name in ("mtp", "sweep")]}


BATCHES = (1, 4, 16)


def k_by_batch() -> dict[str, Any]:
    """Drafts cost more with more requests: k = 4 is the fastest alone, and k = 2 at 4 and 16 at once."""
    joint = [0.85, 0.72, 0.62, 0.51]
    rows = []
    for number in BATCHES:
        for k in range(1, K + 1):
            drafts, accepted = 100 * number, round(sum(joint[:k]) * 100) * number
            tokens = drafts + accepted
            step = 1 + 0.05 * k + (0.25 * max(k - 2, 0) if number > 1 else 0)
            for count in range(4):
                row = {"turn": k, "at_once": number, "round": count, "output_tokens": tokens}
                plain = {"k": 0, "seconds": 0.01 * tokens / number, "drafts": 0, "draft_tokens": 0, "accepted": 0}
                seconds = 0.01 * step * 100 * (1 + 0.01 * count)
                counts = {"drafts": drafts, "draft_tokens": k * drafts, "accepted": accepted}
                rows += [row | plain, row | {"k": k, "seconds": seconds} | counts]
    return {"k": K, "method": "restart", "joint": joint, "published": 4, "source": "made up", "rows": rows}


def counted(rows: list[dict[str, Any]], server: str) -> dict[str, Any]:
    """What /metrics of that server has counted."""
    names = ("drafts", "draft_tokens", "accepted")
    return {"server": server, **{name: sum(row[name] for row in rows if row["server"] == server) for name in names}}


def bench() -> dict[str, Any]:
    def run(client: str, seconds: float, cpu: float) -> dict[str, Any]:
        counts = {"completed": 20, "output_tokens": 900, "drafts": 190, "accepted": 690}
        return {"client": client, "seconds": seconds, "client_cpu_seconds": cpu, **counts}

    runs = [run(client, 1.5 + 0.01 * i, 0.1) for i in range(6) for client in ("ours", "vllm")]
    return {"prompts": [f"p{i:03}" for i in range(20)], "at_once": 8, "command": ["python"], "runs": runs}


SOAK_WINDOWS, WINDOW_SECONDS = 30, 60


def soak() -> dict[str, Any]:
    """Half an hour of a server on one GPU; it neither slows down nor grows."""
    rng = np.random.default_rng(SEEDS)
    windows = [soak_window(number, rng) for number in range(SOAK_WINDOWS)]
    whole = totals([window["counted"] for window in windows])
    answered = sum(window["answered"] for window in windows)
    return {
        "k": K,
        "minutes": SOAK_WINDOWS * WINDOW_SECONDS / 60,
        "at_once": 8,
        "prompts": [f"p{number:03}" for number in range(40)],
        "gpus": "NVIDIA H100 (SM 90, 80 GiB of its own)",
        "windows": windows,
        "seconds": SOAK_WINDOWS * WINDOW_SECONDS + 0.8,
        "answered": answered,
        "output_tokens": whole["output_tokens"],
        "failed": 0,
        "failures": [],
        "alive": True,
        "broken": None,
        "counted": whole,
    }


def energy() -> dict[str, Any]:
    """A GPU that makes 1.9 times as many tokens for a joule with MTP; a second one does nothing."""
    idle = {"looks": 15, "busy": 0, "power_w": None, "sm_clock_mhz": None, "energy_j": 1100.0}
    windows = []
    for number in range(6):
        for arm, tokens in (("plain", 12_000), ("mtp", 24_000)):
            joules = (6000.0 if arm == "plain" else 6300.0) * (1 + 0.01 * (number % 3))
            gpu = {"looks": 15, "busy": 15, "power_w": joules / 15, "sm_clock_mhz": 1980.0, "energy_j": joules}
            windows.append({"arm": arm, "seconds": 15.0, "output_tokens": tokens, "gpus": [gpu, idle]})
    return {"at_once": 8, "gpus": "NVIDIA H200 (SM 90, 140 GiB of its own)", "windows": windows}


def soak_window(number: int, rng: np.random.Generator) -> dict[str, Any]:
    """One window: about 600 tokens/s, 4.9 tokens a step."""
    drafts = round(600 * WINDOW_SECONDS / 4.9 * (1 + rng.normal(0, 0.01)))
    per_position = [round(drafts * (0.99 - 0.01 * place)) for place in range(K)]
    gpu = {"looks": 5, "busy": 5, "memory_mib": 71_000.0, "temperature_c": 61, "sm_clock_mhz": 1980.0}
    return {
        "begin": float(number * WINDOW_SECONDS),
        "end": float((number + 1) * WINDOW_SECONDS),
        "answered": 50,
        "failed": 0,
        "counted": {
            "drafts": drafts,
            "draft_tokens": K * drafts,
            "accepted": sum(per_position),
            "accepted_per_position": per_position,
            "output_tokens": drafts + sum(per_position),
        },
        "resident_mib": 4000 + rng.normal(0, 0.1),
        "others_cpu": 0.02,
        "gpus": [gpu | {"power_w": 410.0, "reasons": {}}],
    }


def tool(i: int) -> dict[str, Any]:
    arguments = {"city": "Oslo", "days": i, "metric": True}
    delivered = {
        "calls": [{"name": "get_weather", "arguments": json.dumps(arguments)}],
        "content": "",
        "reasoning": "",
        "finish_reason": "tool_calls",
    }
    return {
        "id": f"t{i:02}",
        "expected": {"name": "get_weather", "arguments": arguments},
        "whole": copy.deepcopy(delivered),
        "streamed": copy.deepcopy(delivered),
    }


@functools.cache
def calibration() -> dict[str, Any]:
    """Drafts that synthetic acceptance decided at the given rates."""
    chance = np.random.default_rng(1)
    plan = load_plan()

    def request(joint: tuple[float, ...]) -> dict[str, Any]:
        drafts, positions, tokens = 0, np.zeros(K, dtype=int), 1
        while tokens < plan.max_tokens:
            accepted = (chance.random(K) < conditional_rates(joint)).cumprod()
            drafts, positions, tokens = drafts + 1, positions + accepted, tokens + 1 + int(accepted.sum())
        counts = {"drafts": drafts, "draft_tokens": K * drafts, "accepted_per_position": positions.tolist()}
        return counts | {"output_tokens": plan.max_tokens}

    rows = []
    for rates in plan.rates:
        joint = rates.joint_for(K)
        trials = [[request(joint) for _ in range(12)] for _ in range(4)]
        decided = sum(each["drafts"] for trial in trials for each in trial)
        row = {"name": rates.name, "joint": list(joint), "seed": rates.seed, "decided": decided}
        rows.append(row | {"trials": trials})
    return {"k": K, "method": "coins", "max_tokens": plan.max_tokens, "rates": rows}


def record(directory: Path, documents: Mapping[str, Any], *, finished: bool = True, level: str = "qualify") -> Path:
    """Evidence on disk, as a run on the embedded pair leaves it."""
    evidence = Evidence(directory, recording=True)
    pair = "micro-26b-a4b-nvfp4"
    evidence.begin(new_header_here("cpu", pair, level), profile_to_json(load_profile("cpu", pair, level)))
    for name, document in documents.items():
        (directory / "observations" / f"{name}.json").write_text(json.dumps(document))
    (evidence.logs / "mtp.log").write_text("INFO Application startup complete.\n")
    (directory / "servers").mkdir(exist_ok=True)
    (directory / "servers/mtp.json").write_text(json.dumps(START))
    if finished:
        evidence.finish()
    return directory


def header(directory: Path, **changes: Any) -> None:
    """Rewrite a header with some fields changed."""
    base = asdict(new_header_here("cpu", "micro-26b-a4b-nvfp4", "qualify"))
    (directory / "header.json").write_text(json.dumps(base | changes))
