"""Checkpoints as others publish them, or as a disk leaves them, and what a run then says before it starts a server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.faults import fault
from support.scene import Scene

from conformance import FIXTURES

EMBEDDED = FIXTURES / "models/micro-26b-a4b"
SINGLE = "model.safetensors"

checkpoint = partial(fault, group="checkpoint", seconds=60)
Change = Callable[[Path, Path], None]  # of the folders of target and draft


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON object in place."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the header of a file of tensors; the bytes of the tensors stay."""
    raw = (folder / SINGLE).read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    change(header)
    new = json.dumps(header).encode()
    (folder / SINGLE).write_bytes(len(new).to_bytes(8, "little") + new + raw[8 + size :])


def first(header: dict[str, Any], part: str = "weight") -> str:
    return next(name for name in header if name.endswith(part))


def wrong_index(target: Path, _: Path) -> None:
    (target / SINGLE).rename(target / "model-00001-of-00002.safetensors")
    placed = {
        "model.norm.weight": "model-00001-of-00002.safetensors",
        "gone.weight": "model-00001-of-00002.safetensors",
    }
    (target / f"{SINGLE}.index.json").write_text(json.dumps({"weight_map": placed}))


def missing_shard(target: Path, _: Path) -> None:
    placed = {"model.norm.weight": "model-00002-of-00002.safetensors"}
    (target / f"{SINGLE}.index.json").write_text(json.dumps({"weight_map": placed}))


def truncate(_: Path, draft: Path) -> None:
    raw = (draft / SINGLE).read_bytes()
    (draft / SINGLE).write_bytes(raw[: len(raw) // 2])


def extra_tensor(_: Path, draft: Path) -> None:
    rewrite(draft, lambda header: header.update({"lm_head.weight": header[first(header)]}))


def missing_tensor(_: Path, draft: Path) -> None:
    rewrite(draft, lambda header: header.pop(first(header, "norm.weight")))


def saved_as_f16(_: Path, draft: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        for name, entry in header.items():
            if name != "__metadata__" and entry["dtype"] == "BF16":
                entry["dtype"] = "F16"

    rewrite(draft, change)


def lora_left_in(target: Path, _: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        name = first(header, "q_proj.weight")
        header[name.replace("weight", "lora_A.weight")] = header[name]

    rewrite(target, change)


def edited_template(target: Path, _: Path) -> None:
    path = target / "chat_template.jinja"
    path.write_text("Be kind. " + path.read_text())


def no_generation_config(target: Path, _: Path) -> None:
    (target / "generation_config.json").unlink()


def min_p(target: Path, _: Path) -> None:
    edit_json(target / "generation_config.json", lambda document: document.update(min_p=0.05))


def quantised_as(**settings: Any) -> Change:
    def change(target: Path, _: Path) -> None:
        edit_json(target / "config.json", lambda document: document.update(quantization_config=settings))

    return change


def fp8_everywhere(target: Path, _: Path) -> None:
    """FP8 with scales made at run time, also over the router and the projection of images, which vLLM keeps in BF16."""

    def change(header: dict[str, Any]) -> None:
        projection, others = "model.embed_vision.embedding_projection.weight", dict(header)
        header.clear()
        header |= {projection: dict(others["model.layers.0.mlp.up_proj.weight"]), **others}
        for name in [projection, *(name for name in header if name.endswith("router.proj.weight"))]:
            begin, end = header[name]["data_offsets"]
            header[name] |= {"dtype": "F8_E4M3", "data_offsets": [begin, (begin + end) // 2]}

    def settle(document: dict[str, Any]) -> None:
        ignored = [name for name in document["quantization_config"]["ignore"] if ".router" not in name]
        settings = {"quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ignored}
        document["quantization_config"] = settings

    rewrite(target, change)
    edit_json(target / "config.json", settle)
    (target / "hf_quant_config.json").unlink()


# As Google's QAT targets are quantised: vllm-project/recipes#514.
W4A16 = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {
        "group_0": {
            "format": "pack-quantized",
            "targets": ["Linear"],
            "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True},
        }
    },
    "ignore": ["lm_head", "re:.*vision.*", "re:.*audio.*", "re:.*router.*", "re:.*embed.*"],
}


def w4a16_in_name_only(target: Path, _: Path) -> None:
    def settle(document: dict[str, Any]) -> None:
        left_out = document["quantization_config"]["ignore"]
        document["quantization_config"] = W4A16 | {"ignore": left_out}

    edit_json(target / "config.json", settle)
    (target / "hf_quant_config.json").unlink()


SEVERAL_GROUPS = {
    "quant_method": "compressed-tensors",
    "format": "mixed-precision",
    "config_groups": {
        "group_0": {"format": "float-quantized", "targets": ["re:.*self_attn.*"]},
        "group_1": {"format": "nvfp4-pack-quantized", "targets": ["re:.*mlp.*"]},
    },
}


def added_vocabulary(target: Path, _: Path) -> None:
    edit_json(target / "config.json", lambda document: document.update(vocab_size=document["vocab_size"] + 8))


def fewer_positions(_: Path, draft: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document.get("text_config", document)["max_position_embeddings"] = 1024

    edit_json(draft / "config.json", change)


def config_of_text(target: Path, _: Path) -> None:
    (target / "config.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5529\n")


def weights_of_text(_: Path, draft: Path) -> None:
    (draft / SINGLE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1203528\n")


DAMAGED: dict[str, tuple[str, Change, str, str, int, str]] = {
    "an index that is wrong": (
        "The index names a tensor that its file lacks.",
        wrong_index,
        "CKPT-02",
        "ERROR",
        4,
        "does not hold tensor gone.weight, but model.safetensors.index.json names it there",
    ),
    "a shard that is missing": (
        "The index names a file that is missing.",
        missing_shard,
        "CKPT-02",
        "ERROR",
        4,
        "model-00002-of-00002.safetensors is missing",
    ),
    "a truncated file": (
        "The draft's file ends in the middle.",
        truncate,
        "CKPT-01",
        "ERROR",
        4,
        "draft/model.safetensors is cut short: model.layers.1.mlp.up_proj.weight ends at byte",
    ),
    "an extra tensor": (
        "The draft has a head of its own.",
        extra_tensor,
        "CKPT-01",
        "FAIL",
        1,
        "tensor lm_head.weight [1536, 64] is not one that the config implies",
    ),
    "a missing tensor": (
        "The draft lacks a norm.",
        missing_tensor,
        "CKPT-01",
        "FAIL",
        1,
        "model.layers.0.input_layernorm.weight is absent where BF16 [64] is expected",
    ),
    "a draft saved as F16": (
        "The draft is saved again as F16.",
        saved_as_f16,
        "CKPT-02",
        "FAIL",
        1,
        "tensor model.embed_tokens.weight is F16, but config implies BF16",
    ),
    "LoRA left in": (
        "The target's file has the matrices of a LoRA.",
        lora_left_in,
        "CKPT-02",
        "FAIL",
        1,
        "model.safetensors: holds 1 tensors of a LoRA, such as",
    ),
    "an edited chat template": (
        "The template begins with a sentence of its own.",
        edited_template,
        "CKPT-09",
        "FAIL",
        1,
        "FAIL CKPT-09 The chat template renders like a published version of Gemma 4's template. … question is Be kind.",
    ),
    "no generation config": (
        "generation_config.json is missing.",
        no_generation_config,
        "CKPT-07",
        "FAIL",
        1,
        "eos_token_id is None where [1, 50, 106] is expected",
    ),
    "a generation config with min_p": (
        "generation_config.json sets min_p.",
        min_p,
        "CKPT-02",
        "FAIL",
        1,
        "generation_config.json: min_p is 0.05, and vLLM refuses every request with min_p while it drafts",
    ),
    "GGUF": (
        "The target is quantised as GGUF.",
        quantised_as(quant_method="gguf"),
        "CKPT-06",
        "UNSUPPORTED",
        0,
        'The suite does not know the target\'s quantisation, quant_method "gguf" with "None".',
    ),
    "MLX": (
        "The target is quantised by MLX.",
        quantised_as(group_size=64, bits=4),
        "CKPT-06",
        "UNSUPPORTED",
        0,
        'The suite does not know the target\'s quantisation, quant_method "None" with "None".',
    ),
    "the quantisation gemma": (
        "The target has Google's own format.",
        quantised_as(quant_method="gemma"),
        "CKPT-06",
        "UNSUPPORTED",
        0,
        'The suite does not know the target\'s quantisation, quant_method "gemma" with "None".',
    ),
    "W4A16 in name only": (
        "The target's settings say W4A16, as compressed-tensors' pack-quantized, and its tensors are NVFP4.",
        w4a16_in_name_only,
        "CKPT-06",
        "FAIL",
        1,
        "model.layers.0.experts.0.gate_proj lacks weight_packed, weight_shape",
    ),
    "several groups": (
        "The target has FP8 attention and an NVFP4 MLP, as compressed-tensors' mixed-precision.",
        quantised_as(**SEVERAL_GROUPS),
        "CKPT-06",
        "UNSUPPORTED",
        0,
        'The suite does not know the target\'s quantisation, quant_method "compressed-tensors" with "mixed-precision".',
    ),
    "FP8 over what stays in BF16": (
        "The target is quantised as FP8_DYNAMIC with its router and its projection of images.",
        fp8_everywhere,
        "CKPT-06",
        "FAIL",
        1,
        "model.embed_vision.embedding_projection is quantised and must not be; model.layers.0.router.proj is quantised",
    ),
    "an added vocabulary": (
        "The target has eight tokens more.",
        added_vocabulary,
        "CKPT-02",
        "FAIL",
        1,
        "text_config.vocab_size is 1536, but the target …config.json has vocab_size 1544",
    ),
    "a draft with fewer positions": (
        "The draft knows fewer positions than --max-model-len.",
        fewer_positions,
        "CKPT-04",
        "FAIL",
        1,
        "text_config max_position_embeddings is 1024 where 4096 is expected",
    ),
    "a pointer instead of a config": (
        "config.json is a pointer of Git LFS.",
        config_of_text,
        "CKPT-02",
        "ERROR",
        4,
        "target/config.json is not valid JSON",
    ),
    "a pointer instead of weights": (
        "The weights are a pointer of Git LFS.",
        weights_of_text,
        "CKPT-01",
        "ERROR",
        4,
        "draft/model.safetensors is not a safetensors file, or is cut short: it has 69 bytes",
    ),
}


@pytest.mark.parametrize(
    "named",
    [
        pytest.param(name, marks=checkpoint(name, done=done, verdict=verdict, code=code, says=says), id=name)
        for name, (done, _, _, verdict, code, says) in DAMAGED.items()
    ],
)
def test_a_checkpoint_is_damaged_or_foreign(scene: Scene, named: str) -> None:
    _, change, check, *_ = DAMAGED[named]
    for folder, source in (("target", "target-nvfp4"), ("draft", "draft")):
        shutil.copytree(EMBEDDED / source, scene.folder / folder)
    change(scene.folder / "target", scene.folder / "draft")
    scene.serve(real=["checkpoint", "refusals"])
    scene.expect(scene.run(level="static"), check)
