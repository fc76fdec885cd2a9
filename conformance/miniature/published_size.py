"""``python -m conformance.miniature.published_size``: a pair of a published size and quantisation with random weights.

Sizes, names and layout are those of ``fixtures/facts``, for example of nvidia/Gemma-4-26B-A4B-NVFP4 and
google/gemma-4-26B-A4B-it-assistant. The numbers are random, so nothing is downloaded. Use it for shapes, kernels,
memory and step times, not for anything that reads text. The pair file beside the weights, ``random-*.toml``, tells vLLM
at which rates to accept drafts. With ``--device meta`` the files have headers and no numbers, and take no space on the
disk: enough for level static.

Targets have their towers, except in FP8. 12B is the text model alone. E2B and E4B lack the keys and values of layers
that read those of earlier ones: the published files hold them, and no model uses them.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import Gemma4Config, Gemma4ForCausalLM, Gemma4ForConditionalGeneration, Gemma4TextConfig

from conformance import FIXTURES
from conformance.checkpoints.nvfp4 import E2M1, GROUP
from conformance.checkpoints.small_files import TEMPLATE
from conformance.errors import UsageError
from conformance.miniature.export import write_json
from conformance.miniature.wrapper import PROCESSOR, wrapped_config
from conformance.profile.facts import Quantisation, Target, load_facts, text_of

LAYOUTS = {"bf16": "bf16", "fp8": "fp8", "nvfp4": "nvfp4-modelopt"}  # of a quantisation, in fixtures/facts
RATES = FIXTURES / "models" / "geometry-26b-a4b-nvfp4.toml"  # how it is served, and the published rates
TOKENIZER = FIXTURES / "models" / "micro-26b-a4b" / "target-bf16"
COPIED = ("tokenizer_config.json", TEMPLATE)
INTEGERS = "token_ordering"
STORED = {
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.uint8: "U8",
    torch.int64: "I64",
}
FP8_SPREAD = 64.0  # of the stored numbers, whose largest is 448
QUANTISED = {
    "bf16": (),
    "fp8": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "nvfp4-modelopt": ("gate_proj", "up_proj", "down_proj"),
}  # linears of a decoder layer
LAYER = re.compile(r"^model\.(language_model\.)?layers\.(\d+)\.")
VIDEO = "<|video|>"
# Of the miniature's template.
EMPTY_THOUGHT = "{%- if not thinking -%}{{- '<|channel>thought\\n<channel|>' -}}{%- endif -%}"
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
        """An order of the tokens, or a BF16 tensor.

        A norm's weight and a scalar are ones. Other numbers are normal and keep the variance of what goes through.
        """
        if name.endswith(INTEGERS):
            return torch.randperm(shape[0], generator=self.generator, device=self.device)
        if len(shape) < 2:
            return torch.ones(shape, dtype=torch.bfloat16, device=self.device)
        return self._normal(shape, shape[-1] ** -0.5).to(torch.bfloat16)

    def quantised(self, layout: str, module: str, shape: tuple[int, ...]) -> Iterator[tuple[str, Tensor]]:
        """One linear ``[rows, columns]`` as it is stored: its weight and its scales."""
        yield from self.experts(layout, (module,), (1, *shape))

    def experts(self, layout: str, modules: Sequence[str], shape: tuple[int, ...]) -> Iterator[tuple[str, Tensor]]:
        """One fused ``[E, rows, columns]`` as it is stored: the linear of every expert, with its scales.

        ``modules`` are the names of the E linears, in their order.
        """
        count, rows, columns = shape
        spread = columns**-0.5
        if layout == "fp8":
            weights = self._normal((count, rows, columns), FP8_SPREAD).to(torch.float8_e4m3fn)
            scales = {"weight_scale": torch.tensor(spread / FP8_SPREAD, device=self.device)}
        else:
            weights = torch.randint(
                256, (count, rows, columns // 2), generator=self.generator, device=self.device, dtype=torch.uint8
            )
            of_weights = spread / float(E2M1.square().mean().sqrt())
            scales = {
                "weight_scale": torch.ones((rows, columns // GROUP), device=self.device).to(torch.float8_e4m3fn),
                "weight_scale_2": torch.tensor(of_weights, device=self.device),
                "input_scale": torch.tensor(1.0, device=self.device),
            }
        for module, weight in zip(modules, weights, strict=True):
            yield f"{module}.weight", weight.clone()
            for name, scale in scales.items():
                yield f"{module}.{name}", scale.clone()

    def _normal(self, shape: tuple[int, ...], spread: float) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device, dtype=torch.float32).mul_(spread)


def make(folder: Path, size: str, quantisation: str, device: str, seed: int = 0) -> None:
    """Write ``folder/target``, ``folder/draft`` and the pair file.

    Raises:
        UsageError: this is not a published size, or not a quantisation that is known here.
    """
    facts = load_facts()
    for word, known in ((size, tuple(facts.targets)), (quantisation, tuple(LAYOUTS))):
        if word not in known:
            raise UsageError(f'"{word}" is not known; choose one of {", ".join(known)}.')
    layout, target = LAYOUTS[quantisation], facts.targets[size]
    if quantisation == "fp8":
        target = replace(target, multimodal=None)
    tokens = facts.tokens.of(size)
    config = target_config(target, facts.quantisations[layout], tokens)
    draft = facts.drafts[size]
    shapes = {name: shape for name, (_, shape) in draft.tensors.items()}
    maker = Maker.of(device, seed)
    write_target(folder / "target", config, layout, maker, tokens)
    write_draft(folder / "draft", draft.config, shapes, maker, tokens)
    if size not in facts.chat_template.empty_thought:
        for path in folder.glob(f"*/{TEMPLATE}"):
            path.write_text(path.read_text(encoding="utf-8").replace(EMPTY_THOUGHT, ""), encoding="utf-8")
    write_pair(folder, size, quantisation, multimodal="vision_config" in config)


def write_pair(folder: Path, size: str, quantisation: str, *, multimodal: bool) -> None:
    """Write ``random-SIZE-QUANTISATION.toml``: how the weights in this folder are served."""
    held = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    served = tomllib.loads(RATES.read_text(encoding="utf-8"))
    args = served["serve_args"]
    if not multimodal:
        at = args.index("--limit-mm-per-prompt")
        args = args[:at] + args[at + 2 :]
    rest = {"quantisation": quantisation, "weights_gb": round(held / 1e9, 1), "serve_args": args}
    rows = {"target": "./target", "draft": "./draft", "k": served["k"], **rest}
    lines = [f"# {size} in {quantisation} with random weights: python -m conformance.miniature.published_size"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in rows.items()]
    lines += ["", "[speculative]", *(f"{key} = {json.dumps(value)}" for key, value in served["speculative"].items())]
    (folder / f"random-{size.lower()}-{quantisation}.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def target_config(target: Target, quantisation: Quantisation, tokens: Mapping[str, int]) -> dict[str, Any]:
    """The published config.json; without ``multimodal`` facts, that of the text model, whose modules lack the prefix.

    ``tokens`` are the ids of the special tokens at this size.
    """
    around = target.multimodal
    if around is None:
        config = target.text_model(quantisation) | {"dtype": "bfloat16"}
        settings = config.get("quantization_config", {})
        if "ignore" in settings:
            left_out = [name.replace("model.language_model.", "model.") for name in settings["ignore"]]
            config["quantization_config"] = {**settings, "ignore": left_out}
        elif settings and config["enable_moe_block"]:  # vLLM never quantises a router
            routers = [f"model.layers.{layer}.router.proj" for layer in range(config["num_hidden_layers"])]
            config["quantization_config"] = {**settings, "ignored_layers": routers}
        return config
    text = {**target.text_config, "use_bidirectional_attention": around.use_bidirectional_attention}
    config = wrapped_config(text, {**tokens, VIDEO: around.video_token_id}, around.vision_config)
    quantised = quantisation.config(target.text_config)
    return config | {
        "architectures": [target.architecture],
        "audio_config": None if around.audio_config is None else dict(around.audio_config),
        "eos_token_id": [tokens["<eos>"], tokens["<turn|>"]],
        **({} if quantised is None else {"quantization_config": quantised}),
    }


def write_target(folder: Path, config: Mapping[str, Any], layout: str, maker: Maker, tokens: Mapping[str, int]) -> None:
    """Write the target: a file for each decoder layer, one for the rest, and their index.

    ``layout`` is a key of ``QUANTISED``; ``tokens`` are the ids of the special tokens at this size.
    """
    groups: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes_of(config).items():
        layer = found[2] if (found := LAYER.match(name)) else "rest"
        groups.setdefault(layer, {})[name] = shape
    folder.mkdir(parents=True, exist_ok=True)
    index: dict[str, str] = {}
    for number, (layer, held) in enumerate(groups.items(), 1):
        tensors = dict(_target_tensors(held, layout, maker))
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
            plain.pop("model_type")  # 12B has another name for the same text model
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


def _target_tensors(shapes: Shapes, layout: str, maker: Maker) -> Iterator[tuple[str, Tensor]]:
    # modelopt quantises the experts of a layer, and not the dense MLP beside them
    beside_experts = layout == "nvfp4-modelopt" and any(".experts." in name for name in shapes)
    for name, shape in shapes.items():
        prefix, _, kind = name.rpartition(".")
        linear = prefix.rpartition(".")[2]
        if prefix.endswith(".experts") and layout != "bf16":
            parts = ("gate_proj", "up_proj") if kind == "gate_up_proj" else ("down_proj",)
            one = (shape[0], shape[1] // len(parts), shape[2])
            for part in parts:
                yield from maker.experts(layout, [f"{prefix}.{expert}.{part}" for expert in range(shape[0])], one)
        elif LAYER.match(name) and linear in QUANTISED[layout] and not beside_experts:
            yield from maker.quantised(layout, prefix, shape)
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
    parser.add_argument("--size", default="26B-A4B", help="a published size (default: 26B-A4B)")
    parser.add_argument("--quantisation", default="nvfp4", help=f"{', '.join(LAYOUTS)} (default: nvfp4)")
    parser.add_argument(
        "--into",
        type=Path,
        required=True,
        metavar="DIR",
        help="where target/, draft/ and the pair file go: up to 64 GB",
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="where to draw numbers; meta: headers only, without numbers and without space on the disk",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)  # every tensor is small: more threads only wait for each other
    try:
        make(options.into, options.size, options.quantisation, options.device)
    except UsageError as error:
        print(f"published_size: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
