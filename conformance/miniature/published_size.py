"""``python -m conformance.miniature.published_size``: a pair of a published size with random weights, NVFP4 experts.

Sizes, names and layout are those of nvidia/Gemma-4-26B-A4B-NVFP4 and google/gemma-4-26B-A4B-it-assistant, from
``fixtures/facts``. The numbers are random, so nothing is downloaded. Use it for shapes, kernels, memory and step times,
not for anything that reads text. With ``--device meta`` the files have headers and no numbers, and take no space on the
disk: enough for the checks of level static.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import Gemma4Config, Gemma4ForCausalLM, Gemma4ForConditionalGeneration, Gemma4TextConfig

from conformance import FIXTURES
from conformance.checkpoints.nvfp4 import E2M1, GROUP
from conformance.errors import UsageError
from conformance.miniature.export import write_json
from conformance.miniature.wrapper import PROCESSOR, wrapped_config
from conformance.profile.facts import Quantisation, Target, load_facts, text_of

QUANTISATION = "nvfp4-modelopt"
TOKENIZER = FIXTURES / "models" / "micro-26b-a4b" / "target-bf16"
COPIED = ("tokenizer_config.json", "chat_template.jinja")
INTEGERS = "token_ordering"
STORED = {torch.bfloat16: "BF16", torch.float32: "F32", torch.float8_e4m3fn: "F8_E4M3", torch.uint8: "U8"}
LAYER = re.compile(r"^model\.(language_model\.)?layers\.(\d+)\.")
VIDEO = "<|video|>"
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Maker:
    """Makes random tensors, which are the same for the same seed and device; on "meta" they have no numbers."""

    device: torch.device
    generator: torch.Generator | None

    @classmethod
    def of(cls, device: str, seed: int) -> Maker:
        """A new maker."""
        generator = None if device == "meta" else torch.Generator(device).manual_seed(seed)
        return cls(torch.device(device), generator)

    def plain(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A BF16 tensor: ones for a norm's weight or a scalar, else normal numbers that keep an output's variance.

        Raises:
            UsageError: the draft of this size orders tokens.
        """
        if len(shape) < 2:
            return torch.ones(shape, dtype=torch.bfloat16, device=self._stored)
        if name.endswith(INTEGERS):
            raise UsageError(f"{name} orders tokens, but a random draft cannot; choose the size 12B, 26B-A4B or 31B.")
        values = torch.randn(shape, generator=self.generator, device=self.device, dtype=torch.float32)
        return (values * shape[-1] ** -0.5).to(torch.bfloat16).to(self._stored)

    def experts(self, prefix: str, parts: Iterable[str], shape: tuple[int, ...]) -> Iterator[tuple[str, Tensor]]:
        """One fused ``[E, rows, columns]`` as modelopt stores it: every part of every expert, with its scales."""
        parts = tuple(parts)
        count, rows, columns = shape[0], shape[1] // len(parts), shape[2]
        spread = float(E2M1.square().mean().sqrt())
        scale = torch.ones((rows, columns // GROUP), device=self._stored).to(torch.float8_e4m3fn)
        of_weights, of_inputs = (torch.tensor(value, device=self._stored) for value in (columns**-0.5 / spread, 1.0))
        for part in parts:
            packed = torch.randint(
                256, (count, rows, columns // 2), generator=self.generator, device=self.device, dtype=torch.uint8
            ).to(self._stored)
            for expert in range(count):
                name = f"{prefix}.{expert}.{part}"
                yield f"{name}.weight", packed[expert].clone()
                yield f"{name}.weight_scale", scale.clone()
                yield f"{name}.weight_scale_2", of_weights.clone()
                yield f"{name}.input_scale", of_inputs.clone()

    @property
    def _stored(self) -> torch.device:
        """Where tensors wait until they are written."""
        return self.device if self.device.type == "meta" else torch.device("cpu")


def make(folder: Path, size: str, device: str, seed: int = 0) -> None:
    """Write ``folder/target`` and ``folder/draft``.

    Raises:
        UsageError: this is not a published size with routed experts.
    """
    facts = load_facts()
    if size not in facts.targets or not facts.targets[size].text_config["enable_moe_block"]:
        known = ", ".join(name for name, each in facts.targets.items() if each.text_config["enable_moe_block"])
        raise UsageError(f'"{size}" is not a published size with routed experts; choose {known}.')
    tokens = facts.tokens.of(size)
    config = target_config(facts.targets[size], facts.quantisations[QUANTISATION], tokens)
    draft = facts.drafts[size]
    shapes = {name: shape for name, (_, shape) in draft.tensors.items()}
    maker = Maker.of(device, seed)
    write_target(folder / "target", config, maker, tokens)
    write_draft(folder / "draft", draft.config, shapes, maker, tokens)


def target_config(target: Target, quantisation: Quantisation, tokens: Mapping[str, int]) -> dict[str, Any]:
    """The published config.json; without ``multimodal`` facts, that of the text model, whose modules lack the prefix.

    ``tokens`` are the ids of the special tokens at this size.
    """
    around = target.multimodal
    if around is None:
        config = target.text_model(quantisation)
        settings = config["quantization_config"]
        left_out = [name.replace("model.language_model.", "model.") for name in settings["ignore"]]
        return config | {"dtype": "bfloat16", "quantization_config": settings | {"ignore": left_out}}
    text = {**target.text_config, "use_bidirectional_attention": around.use_bidirectional_attention}
    config = wrapped_config(text, {**tokens, VIDEO: around.video_token_id}, around.vision_config)
    return config | {
        "architectures": [target.architecture],
        "eos_token_id": [tokens["<eos>"], tokens["<turn|>"]],
        "quantization_config": quantisation.config(target.text_config),
    }


def write_target(folder: Path, config: Mapping[str, Any], maker: Maker, tokens: Mapping[str, int]) -> None:
    """Write the target: a file for each decoder layer, one for the rest, and their index.

    ``tokens`` are the ids of the special tokens at this size.
    """
    groups: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes_of(config).items():
        layer = found[2] if (found := LAYER.match(name)) else "rest"
        groups.setdefault(layer, {})[name] = shape
    folder.mkdir(parents=True, exist_ok=True)
    index: dict[str, str] = {}
    for number, (layer, held) in enumerate(groups.items(), 1):
        tensors = dict(_target_tensors(held, maker))
        file = f"model-{number:05}-of-{len(groups):05}.safetensors"
        _save(tensors, folder / file)
        index |= dict.fromkeys(tensors, file)
        print(f"{file}: {'what is in no layer' if layer == 'rest' else f'layer {layer}'}, {len(tensors)} tensors")
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
    if "vision_config" in config:
        write_json(folder / "processor_config.json", PROCESSOR)
        tokens = {**tokens, VIDEO: config["video_token_id"]}
    _write_rest(folder, config, text_of(config)["vocab_size"], tokens)


def shapes_of(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of every BF16 tensor by its published name, as transformers builds the model."""
    plain = {key: value for key, value in config.items() if key not in ("architectures", "quantization_config")}
    with torch.device("meta"):
        if "vision_config" in config:
            built: torch.nn.Module = Gemma4ForConditionalGeneration(Gemma4Config(**plain))
        else:
            built = Gemma4ForCausalLM(Gemma4TextConfig(**plain))
    return {name: tuple(tensor.shape) for name, tensor in built.state_dict().items() if name != "lm_head.weight"}


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file; tensors without numbers become a hole in it."""
    if not all(tensor.is_meta for tensor in tensors.values()):
        save_file(dict(tensors), path, metadata={"format": "pt"})
        return
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": STORED[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)  # as safetensors aligns its data
    with path.open("wb") as file:
        file.write(len(written).to_bytes(8, "little") + written)
        file.truncate(file.tell() + end)


def _target_tensors(shapes: Shapes, maker: Maker) -> Iterator[tuple[str, Tensor]]:
    for name, shape in shapes.items():
        prefix, _, kind = name.rpartition(".")
        if kind == "gate_up_proj" and prefix.endswith(".experts"):
            yield from maker.experts(prefix, ("gate_proj", "up_proj"), shape)
        elif kind == "down_proj" and prefix.endswith(".experts"):
            yield from maker.experts(prefix, ("down_proj",), shape)
        else:
            yield name, maker.plain(name, shape)


def write_draft(
    folder: Path, config: Mapping[str, Any], shapes: Shapes, maker: Maker, tokens: Mapping[str, int]
) -> None:
    """Write the draft; ``tokens`` as for the target."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: maker.plain(name, shape) for name, shape in shapes.items()}
    _save(tensors, folder / "model.safetensors")
    _write_rest(folder, config, config["text_config"]["vocab_size"], tokens)


def _write_rest(folder: Path, config: Mapping[str, Any], vocabulary: int, tokens: Mapping[str, int]) -> None:
    """Write the config, the stop tokens, and the miniature's tokenizer for this vocabulary."""
    write_json(folder / "config.json", config)
    stop = [tokens[name] for name in load_facts().tokens.stop]
    write_json(folder / "generation_config.json", {"bos_token_id": 2, "eos_token_id": stop, "pad_token_id": 0})
    tokenizer = json.loads((TOKENIZER / "tokenizer.json").read_text(encoding="utf-8"))
    (folder / "tokenizer.json").write_text(
        json.dumps(resized(tokenizer, vocabulary, tokens), ensure_ascii=False), encoding="utf-8"
    )
    for name in COPIED:
        shutil.copy(TOKENIZER / name, folder / name)


def resized(tokenizer: Mapping[str, Any], vocabulary: int, tokens: Mapping[str, int]) -> dict[str, Any]:
    """The tokenizer with the special tokens at these ids, and a name for every id that a target may generate."""
    added = [row | {"id": tokens.get(row["content"], row["id"])} for row in tokenizer["added_tokens"]]
    special = {row["content"]: row["id"] for row in added}
    names = {name: number for name, number in tokenizer["model"]["vocab"].items() if name not in special} | special
    taken = set(names.values())
    names |= {f"▁filler{number}": number for number in range(vocabulary) if number not in taken}
    model = tokenizer["model"] | {"vocab": names}
    return {**tokenizer, "added_tokens": sorted(added, key=lambda row: int(row["id"])), "model": model}


def main() -> int:
    """Make a pair; return exit code 2 for a wrong size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="26B-A4B", help="a published size with routed experts (default: 26B-A4B)")
    parser.add_argument("--into", type=Path, required=True, metavar="DIR", help="where target/ and draft/ go: 18 GB")
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="where to draw numbers; meta: headers only, without numbers and without space on the disk",
    )
    options = parser.parse_args()
    try:
        make(options.into, options.size, options.device)
    except UsageError as error:
        print(f"published_size: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
