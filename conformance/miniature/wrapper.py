"""``python -m conformance.miniature.wrapper``: wraps the miniature's target like the published targets.

Published targets are ``Gemma4ForConditionalGeneration``: the text model under ``model.language_model.`` and a vision
tower. vLLM serves them with other code than a text model. The tower here is random and small, and no request has an
image. vLLM needs torchvision for it, which the CPU environment does not contain: this pair is for GPUs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Gemma4Config, Gemma4ForConditionalGeneration

from conformance import FIXTURES
from conformance.errors import UsageError
from conformance.miniature.export import write_json

MINIATURE = FIXTURES / "models" / "micro-26b-a4b"
COPIED = ("chat_template.jinja", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
WEIGHTS = "model.safetensors"
TEXT, WRAPPED = "model.", "model.language_model."
# As small as its attention allows; the published tower has 27 layers of width 1152.
VISION = {
    "model_type": "gemma4_vision",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "position_embedding_size": 64,
    "dtype": "bfloat16",
}
TOKENS = {
    "boi_token_id": "<|image>",
    "eoi_token_id": "<image|>",
    "image_token_id": "<|image|>",
    "boa_token_id": "<|audio>",
    "eoa_token_index": "<audio|>",
    "audio_token_id": "<|audio|>",
    "video_token_id": "<|video|>",
}
PROCESSOR = {
    "processor_class": "Gemma4Processor",
    "image_processor": {"image_processor_type": "Gemma4ImageProcessor"},
    "video_processor": {"video_processor_type": "Gemma4VideoProcessor"},
    "feature_extractor": {"feature_extractor_type": "Gemma4AudioFeatureExtractor"},
}


def wrap(source: Path, folder: Path, seed: int = 0) -> None:
    """Write the wrapped target.

    Raises:
        UsageError: ``source`` is not a text model of Gemma 4.
    """
    text = json.loads((source / "config.json").read_text(encoding="utf-8"))
    if text.get("architectures") != ["Gemma4ForCausalLM"]:
        raise UsageError(f"{source}/config.json: architectures is {text.get('architectures')}; give a text model.")
    folder.mkdir(parents=True, exist_ok=True)
    config = wrapped_config(text, _ids(source))
    weights = {name.replace(TEXT, WRAPPED, 1): tensor for name, tensor in load_file(source / WEIGHTS).items()}
    save_file(weights | tower(config, seed), folder / WEIGHTS, metadata={"format": "pt"})
    write_json(folder / "config.json", config)
    write_json(folder / "processor_config.json", PROCESSOR)
    if (settings := source / "hf_quant_config.json").is_file():
        write_json(folder / settings.name, _renamed(json.loads(settings.read_text(encoding="utf-8"))))
    for name in COPIED:
        shutil.copyfile(source / name, folder / name)


def wrapped_config(
    text: Mapping[str, Any], ids: Mapping[str, int], vision: Mapping[str, Any] = VISION
) -> dict[str, Any]:
    """The config.json of the wrapper around the config of a text model."""
    own = ("architectures", "quantization_config", "transformers_version")
    config: dict[str, Any] = {
        "architectures": ["Gemma4ForConditionalGeneration"],
        "model_type": "gemma4",
        "dtype": "bfloat16",
        "text_config": {key: value for key, value in text.items() if key not in own},
        "vision_config": dict(vision),
        "audio_config": None,
        "eos_token_id": text["eos_token_id"],
        "tie_word_embeddings": True,
        **{key: ids[token] for key, token in TOKENS.items()},
    }
    if "quantization_config" in text:
        settings = _renamed(text["quantization_config"])
        ignore = [*settings["ignore"], "model.vision_tower*", "model.embed_vision*"]
        config["quantization_config"] = settings | {"ignore": ignore}
    return config


def tower(config: dict[str, Any], seed: int) -> dict[str, Tensor]:
    """Random BF16 weights of all modules outside the text model."""
    torch.manual_seed(seed)
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    built = Gemma4ForConditionalGeneration(Gemma4Config(**plain)).to(torch.bfloat16)
    held = built.state_dict().items()
    return {
        name: tensor.contiguous().clone()
        for name, tensor in held
        if not name.startswith(WRAPPED) and name != "lm_head.weight"
    }


def _ids(source: Path) -> dict[str, int]:
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    return {token["content"]: token["id"] for token in tokenizer["added_tokens"]}


def _renamed(settings: Any) -> Any:
    """The same settings with the wrapper's names of modules."""
    if isinstance(settings, dict):
        return {key: _renamed(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [_renamed(value) for value in settings]
    if isinstance(settings, str) and settings.startswith(TEXT):
        return settings.replace(TEXT, WRAPPED, 1)
    return settings


def main() -> int:
    """Wrap both targets of the miniature; return exit code 2 for a wrong source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, required=True, metavar="DIR", help="where target-bf16 and -nvfp4 go")
    parser.add_argument("--source", type=Path, default=MINIATURE, metavar="DIR", help="a pair with both targets")
    options = parser.parse_args()
    try:
        for name in ("target-bf16", "target-nvfp4"):
            wrap(options.source / name, options.into / name)
    except UsageError as error:
        print(f"wrapper: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
