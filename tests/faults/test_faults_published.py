"""Pairs of a published size as others publish them: their files have the headers of the size and no numbers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from negative_controls.faux_servers.checkpoints import write_file
from support.faults import fault
from support.scene import Scene
from test_faults_checkpoint import W4A16, edit_json

from conformance.checkpoints.headers import INDEX, TOKEN_ORDER, read_headers

LINEAR = re.compile(r"model\.language_model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj\.weight$")
Layout = Mapping[str, tuple[str, tuple[int, ...]]]

published = partial(fault, group="checkpoint", seconds=90)


def make_e2b(folder: Path) -> None:
    """E2B as transformers saves it: without the keys and values of the 20 layers that read those of earlier ones."""
    words = ("--size=E2B", "--quantisation=bf16", "--device=meta", f"--into={folder}")
    subprocess.run([sys.executable, "-m", "conformance.miniature.published_size", *words], check=True)
    order = read_headers(folder / "draft")[TOKEN_ORDER]
    with order.file.open("r+b") as file:
        file.seek(order.start)
        file.write(b"".join(number.to_bytes(8, "little") for number in range(*order.shape)))


def write_again(target: Path, change: Mapping[str, Layout]) -> None:
    """Replace tensors of the target, each by these; the new ones have no numbers."""
    held, files = read_headers(target), dict[Path, dict[str, tuple[str, tuple[int, ...]]]]()
    for name, tensor in held.items():
        files.setdefault(tensor.file, {}).update(change.get(name, {name: (tensor.dtype, tensor.shape)}))
    for path in {held[name].file for name in change}:
        write_file(path, files[path])
    placed = {name: path.name for path, tensors in files.items() for name in tensors}
    (target / INDEX).write_text(json.dumps({"weight_map": placed}))


def packed(target: Path) -> dict[str, Layout]:
    """Each linear layer of the decoder as compressed-tensors packs it: eight 4-bit integers in one of 32 bits."""
    found: dict[str, Layout] = {}
    for name, tensor in read_headers(target).items():
        if LINEAR.match(name):
            module = name.removesuffix(".weight")
            rows, columns = tensor.shape
            found[name] = {
                f"{module}.weight_packed": ("I32", (rows, columns // 8)),
                f"{module}.weight_scale": ("BF16", (rows, columns // 32)),
                f"{module}.weight_shape": ("I64", (2,)),
            }
    return found


@published(
    "layers that share keys and values",
    done="The target is E2B without the 60 tensors of the layers that read the keys and values of earlier ones.",
    verdict="PASS",
    code=0,
    says="60 tensors are absent: the keys and values of layers that read those of earlier ones",
)
def test_layers_that_share_keys_and_values(scene: Scene) -> None:
    make_e2b(scene.folder)
    scene.serve(real=["checkpoint", "refusals"])
    scene.expect(scene.run("--show=all", level="static"), "CKPT-05")


@published(
    "a layer without keys of its own",
    done="The target is E2B, and its fourth layer lacks its keys, which no other layer has for it.",
    verdict="FAIL",
    code=1,
    says="parameters is 5122784835 where 5123178051 is expected",
)
def test_a_layer_without_keys(scene: Scene) -> None:
    make_e2b(scene.folder)
    write_again(scene.folder / "target", {"model.language_model.layers.3.self_attn.k_proj.weight": {}})
    scene.serve(real=["checkpoint", "refusals"])
    scene.expect(scene.run(level="static"), "CKPT-05")


@published(
    "W4A16 with its own draft",
    done="The target is E2B of quantisation-aware training, as compressed-tensors' pack-quantized, with its own draft.",
    verdict="PASS",
    code=0,
    says="the weights are 4-bit integers in groups of 32",
)
def test_w4a16_with_its_own_draft(scene: Scene) -> None:
    make_e2b(scene.folder)
    target = scene.folder / "target"
    write_again(target, packed(target))
    edit_json(target / "config.json", lambda document: document.update(quantization_config=W4A16))
    own = "google/gemma-4-E2B-it-qat-q4_0-unquantized-assistant"
    edit_json(scene.folder / "draft/config.json", lambda document: document.update(_name_or_path=own))
    scene.serve(real=["checkpoint", "refusals"])
    scene.expect(scene.run("--show=all", level="static"), "CKPT-06")
