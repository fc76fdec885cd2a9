"""``python -m conformance.inside_vllm.geometry``: the draft as this vLLM builds it, at real sizes, without weights.

Standard input is JSON: ``tokenizer`` (a folder; in fixtures/ where relative), ``k``, and ``pairs`` of ``size``,
``configuration`` and the config.json of ``target`` and ``draft``. The last line of standard output is JSON:
``vllm_version`` and ``builds`` by size and configuration. One process makes all builds, because importing vLLM takes
seconds, but a build only hundredths of a second.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from conformance import FIXTURES
from conformance.errors import Unsupported
from conformance.inside_vllm import adapters

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
PLAIN = "torch.nn.Linear"  # a layer that vLLM's quantisation does not affect


def main() -> None:
    """Build every pair in standard input."""
    asked = json.load(sys.stdin)
    builds: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for number, pair in enumerate(asked["pairs"]):
            target, draft = (folder / f"{number}-{role}" for role in ("target", "draft"))
            for where, config in ((target, pair["target"]), (draft, pair["draft"])):
                write(where, config, FIXTURES / asked["tokenizer"])
            builds.setdefault(pair["size"], {})[pair["configuration"]] = build(target, draft, asked["k"], stack)
    print(json.dumps({"vllm_version": adapters.vllm_version(), "builds": builds}))


def write(folder: Path, config: Mapping[str, Any], tokenizer: Path) -> None:
    """Write the files of a checkpoint that vLLM reads for its configuration."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    for name in TOKENIZER:
        shutil.copy(tokenizer / name, folder)


def build(target: Path, draft: Path, k: int, stack: ExitStack) -> dict[str, Any]:
    """The layers and tensors of one build, or why it failed.

    ``unsupported``: this vLLM refuses the configuration, or lacks a name that the suite needs. ``error``: making the
    configuration or building the draft raised another exception.
    """
    try:
        config = adapters.engine_config(target, draft, k)
    except Unsupported as reason:
        return {"unsupported": str(reason)}
    except (ValueError, NotImplementedError) as refusal:  # pydantic's ValidationError is a ValueError
        sentence = f"vLLM {adapters.vllm_version()} does not accept this configuration: {_said(refusal)}."
        return {"unsupported": sentence}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {_said(error)}"}
    try:
        if not adapters.is_alone():
            stack.enter_context(adapters.alone(config))
        return describe(adapters.build_draft(config)) | {"target_quantisation": adapters.target_quantisation(config)}
    except Unsupported as reason:
        return {"unsupported": str(reason)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {_said(error)}"}


def describe(model: Any) -> dict[str, Any]:
    """Class, linear layers with embeddings and output head, and every parameter and buffer with shape and dtype."""
    from torch import nn

    from conformance.inside_vllm import snapshot

    layers = {
        name: _layer(module, adapters.quant_method(module), inputs, outputs)
        for find in (adapters.linear_layers, adapters.embeddings)
        for name, module, inputs, outputs in find(model)
    }
    layers |= {
        name: _layer(module, PLAIN, module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }
    return {"class": type(model).__name__, "layers": layers, "tensors": snapshot.parameters(model, hashed=False)}


def _layer(module: Any, method: str, inputs: int, outputs: int) -> dict[str, Any]:
    return {"class": type(module).__name__, "quant_method": method, "in": inputs, "out": outputs}


def _said(error: Exception, limit: int = 300) -> str:
    """The message of an exception in one line, without the first and last lines that pydantic adds."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line.partition(" [type=")[0] for line in lines if line.startswith(("Value error", "Assertion failed"))]
    return (" ".join(told or lines) or type(error).__name__).removeprefix("Value error, ")[:limit].rstrip(".")


if __name__ == "__main__":
    main()
