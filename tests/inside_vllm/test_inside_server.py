"""The plugin and the probe in a real vLLM server: an NVFP4 target and its BF16 draft, on the CPU."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pytest
import torch
from negative_controls.museum import forking_server
from safetensors.torch import load_file
from support.micro_pair import HIDDEN, LAYERS, MicroPair
from support.paths import PYTHONPATH
from torch import Tensor

from conformance.checkpoints import nvfp4
from conformance.inside_vllm.snapshot import sha256
from conformance.profile.profile import Bounds
from conformance.serving.command import PROBE, Launch
from conformance.serving.server import Server, Start, start_together

pytestmark = pytest.mark.server

BOUNDS = Bounds(load_seconds=180, silence_seconds=120, request_seconds=60, stop_seconds=10)
# Prompts of one token each: with random weights the routing of a longer one is full of near-ties.
TOKENS = list(range(4, 500, 24))


@dataclass(frozen=True)
class Seen:
    """What the server told about itself, and the log probabilities of what follows each of TOKENS."""

    describe: dict[str, Any]
    moe: dict[str, Any]
    snapshot: dict[str, Any]
    logprobs: list[dict[int, float]]
    log: str


@pytest.fixture(scope="module")
def seen(micro_pair: MicroPair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("server")
    start = Start(launch(micro_pair, folder / "snapshots"), "inside", folder / "log", BOUNDS, lambda _: None)
    started = start_together([start], BOUNDS.stop_seconds, lambda _: None)["inside"]
    assert isinstance(started, Server), started
    try:
        answers = {name: started.call(f"conformance_{name}", 30)[0] for name in ("describe", "moe", "snapshot")}
        yield Seen(**answers, logprobs=what_follows(started), log=started.log.read_text())
    finally:
        started.stop(BOUNDS.stop_seconds)


def launch(pair: MicroPair, snapshots: Path) -> Launch:
    command = [sys.executable, "-m", forking_server.__name__, "--model", str(pair.target_nvfp4)]
    command += ["--enforce-eager", "--max-model-len", "512", "--max-num-seqs", "4", "--worker-extension-cls", PROBE]
    command += ["--return-tokens-as-token-ids", "--speculative-config"]
    command += [f'{{"method": "mtp", "model": "{pair.draft}", "num_speculative_tokens": 4}}']
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_SERVER_DEV_MODE": "1",
        "HF_HUB_OFFLINE": "1",
        "SPT_NOENV": "1",
        "CONFORMANCE_SNAPSHOT_DIR": str(snapshots),
        "PYTHONPATH": PYTHONPATH,
    }
    return Launch(tuple(command), os.environ | environment)


def what_follows(server: Server) -> list[dict[int, float]]:
    """Log probabilities of the 20 likeliest tokens after each of TOKENS."""
    prompts = [[token] for token in TOKENS]
    question = {"model": server.model, "prompt": prompts, "max_tokens": 1, "temperature": 0, "logprobs": 20}
    answer = httpx.post(f"{server.base_url}/v1/completions", json=question, timeout=60, trust_env=False).json()
    top = [choice["logprobs"]["top_logprobs"][0] for choice in answer["choices"]]
    return [{int(token.removeprefix("token_id:")): value for token, value in found.items()} for found in top]


def test_the_last_resort_serves_and_says_so_once(seen: Seen) -> None:
    layer = {"experts": seen.moe["layers"]["model.layers.0.experts.routed_experts"]["experts"]}
    layer |= {"backend": "CPU", "quant_method": "ModelOptNvFp4DecodedMoE"}
    assert layer["experts"].endswith("CPUUnquantizedExperts")
    assert list(seen.moe["layers"].values()) == [layer] * LAYERS
    assert seen.log.count("conformance: NVFP4 MoE decoded to BF16 for the CPU (last resort)") == 1


def test_it_computes_what_the_checkpoint_stands_for(seen: Seen, micro_pair: MicroPair) -> None:
    """Against transformers in float32 on the decoded checkpoint; in BF16 now and then another expert is chosen."""
    decoded = distance(seen.logprobs, reference(micro_pair, decoded_experts(micro_pair)))
    assert decoded < 0.1
    spoilt = decoded_experts(micro_pair)
    spoilt["model.layers.3.experts.down_proj"].zero_()
    assert distance(seen.logprobs, reference(micro_pair, spoilt)) > 3 * decoded
    assert distance(seen.logprobs, reference(micro_pair, {})) > 3 * decoded  # what NVFP4 rounded away


def test_every_draft_tensor_arrived_byte_by_byte(seen: Seen, micro_pair: MicroPair) -> None:
    loaded = dict(seen.snapshot["models"]["draft"]["parameters"])
    parts = {"gate_proj": 0, "up_proj": 1}
    for name, tensor in load_file(micro_pair.draft / "model.safetensors").items():
        module, _, kind = name.removesuffix(".weight").rpartition(".")
        if kind in parts:
            assert loaded[f"{module}.gate_up_proj.weight"]["parts"][parts[kind]] == sha256(tensor), name
        else:
            there = loaded.pop(name if name.startswith("model.") else f"model.{name}")
            assert (there["sha256"], there["shape"], there["dtype"]) == (sha256(tensor), [*tensor.shape], "bfloat16")
    attention_scales = [name for name in loaded if ".self_attn.attn._" in name]
    fused = [name for name in loaded if name.endswith("gate_up_proj.weight")]
    assert sorted(loaded) == sorted(attention_scales + fused)


def test_the_snapshot_precedes_the_repacking(seen: Seen) -> None:
    target = seen.snapshot["models"]["target"]["parameters"]
    assert target["model.layers.0.experts.routed_experts.w13_weight"]["dtype"] == "uint8"
    assert target["model.layers.0.experts.routed_experts.w13_weight"]["shape"] == [8, 64, 64]
    assert target["model.layers.0.mlp.gate_up_proj.weight"]["shape"] == [256, 128]


def test_the_draft_is_unquantised(seen: Seen) -> None:
    linears = seen.snapshot["models"]["draft"]["linears"]
    assert {entry["quant_method"] for entry in linears.values()} == {
        "UnquantizedLinearMethod",
        "UnquantizedEmbeddingMethod",
    }
    assert (linears["model.layers.0.mlp.down_proj"]["in"], linears["model.layers.0.mlp.down_proj"]["out"]) == (512, 64)


def test_the_draft_is_wired_to_its_target(seen: Seen) -> None:
    told = seen.describe
    assert (told["target_class"], told["draft_class"]) == ("Gemma4ForCausalLM", "Gemma4MTP")
    assert told["draft_embedding_is_targets"] is True
    assert told["draft_lm_head"] == {"class": "ParallelLMHead", "vocabulary": 512, "hidden": 64, "is_targets": False}
    assert told["constant_draft_positions"] is True
    shared = [f"model.layers.{layer}.self_attn.attn" for layer in (4, 4, 4, 5)]
    assert list(told["draft_kv_sharing"].values()) == shared
    assert {scale for layer in told["draft_kv_scales"].values() for scale in layer.values()} == {1.0}
    assert len(told["attention_backends"]) == LAYERS + 4
    # vLLM keeps the factor in the model's type, which for BF16 is right to three digits.
    assert math.isclose(told["draft_normalizer"], math.sqrt(HIDDEN), rel_tol=2**-8)


def decoded_experts(pair: MicroPair) -> dict[str, Tensor]:
    """The fused expert tensors that the NVFP4 checkpoint stands for, in BF16."""
    tensors = load_file(pair.target_nvfp4 / "model.safetensors")

    def values(prefix: str) -> Tensor:
        return nvfp4.dequantise(nvfp4.Nvfp4(*(tensors[f"{prefix}.{field}"] for field in nvfp4.Nvfp4._fields)))

    fused = {}
    for layer in range(LAYERS):
        prefixes = [f"model.layers.{layer}.experts.{expert}" for expert in range(8)]
        gate_up = [torch.cat((values(f"{prefix}.gate_proj"), values(f"{prefix}.up_proj"))) for prefix in prefixes]
        fused[f"model.layers.{layer}.experts.gate_up_proj"] = torch.stack(gate_up)
        fused[f"model.layers.{layer}.experts.down_proj"] = torch.stack([values(f"{p}.down_proj") for p in prefixes])
    return fused


def reference(pair: MicroPair, replaced: dict[str, Tensor]) -> Tensor:
    """Log probabilities [tokens, vocabulary] of what follows each of TOKENS, by transformers in float32."""
    from transformers import Gemma4ForCausalLM

    model = Gemma4ForCausalLM.from_pretrained(pair.target_bf16, dtype=torch.float32)
    model.load_state_dict({name: tensor.float() for name, tensor in replaced.items()}, strict=False)
    with torch.no_grad():
        logits: Tensor = model(torch.tensor(TOKENS)[:, None]).logits[:, -1]
    return logits.log_softmax(-1)


def distance(found: list[dict[int, float]], expected: Tensor) -> float:
    """The median over the prompts of the largest difference in log probability."""
    pairs = zip(found, expected, strict=True)
    return median(max(abs(value - float(row[token])) for token, value in top.items()) for top, row in pairs)
