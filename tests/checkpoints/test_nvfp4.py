"""NVFP4 arithmetic against compressed-tensors' and vLLM's own, and the converted checkpoint against its layout."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.micro_pair import EXPERTS, HIDDEN, LAYERS, MicroPair
from torch import Tensor

from conformance.checkpoints import nvfp4
from conformance.errors import UsageError
from conformance.miniature.convert_nvfp4 import convert

MOE_INTERMEDIATE = 32


@pytest.fixture(autouse=True, scope="module")
def _eager() -> Iterator[None]:
    # compressed-tensors compiles its rounding; the arithmetic is the same without.
    with torch.compiler.set_stance("force_eager"):
        yield


@st.composite
def weights(draw: st.DrawFn, power_of_two: bool) -> Tensor:
    """[rows, columns] with zero blocks, exact ties and block sizes down to 2^-8 of the largest value.

    With ``power_of_two`` the largest value is 10.5 times a power of two: then amax / 2688 and compressed-tensors'
    2688 / amax are both exact, and the two conventions may not differ in a single bit.
    """
    rows, groups = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    shape = (rows, groups, nvfp4.GROUP)
    if draw(st.booleans()):
        values = torch.randn(shape, generator=generator)
    else:  # multiples of 1/4 fall on the ties of E2M1 when the block's scale is a power of two
        values = torch.randint(-24, 25, shape, generator=generator) / 4
    values *= 2.0 ** -torch.randint(0, 9, (rows, groups, 1), generator=generator)
    values *= torch.rand((rows, groups, 1), generator=generator) > 0.1
    values = values.flatten(-2)
    values *= 10.0 / values.abs().max().clamp(min=1e-3)
    values[0, 0] = 10.5
    scale = 2.0 ** draw(st.integers(-12, 12)) if power_of_two else draw(st.floats(1e-3, 1e3))
    return (values * scale).to(draw(st.sampled_from([torch.bfloat16, torch.float32])))


def compressed(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Packed bytes, FP8 scales and global scale by compressed-tensors' own arithmetic."""
    from compressed_tensors.compressors.nvfp4.base import NVFP4PackedCompressor
    from compressed_tensors.quantization import QuantizationScheme
    from compressed_tensors.quantization.quant_scheme import NVFP4
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    weight = weight.float()
    global_scale = generate_gparam(weight.min(), weight.max())
    blocks = weight.unflatten(-1, (-1, nvfp4.GROUP))
    scale, _ = calculate_qparams(blocks.amin(-1), blocks.amax(-1), NVFP4["weights"], global_scale=global_scale)
    state = {"weight": weight, "weight_scale": scale, "weight_global_scale": global_scale}
    packed = NVFP4PackedCompressor.compress(state, QuantizationScheme(targets=["Linear"], **NVFP4))
    return packed["weight_packed"], packed["weight_scale"], packed["weight_global_scale"]


@settings(max_examples=150, deadline=None)
@given(weights(power_of_two=True))
def test_bytes_equal_compressed_tensors(weight: Tensor) -> None:
    ours = nvfp4.quantise(weight)
    packed, scale, global_scale = compressed(weight)

    assert torch.equal(ours.weight, packed)
    assert ours.weight_scale_2 == 1 / global_scale
    zero = weight.unflatten(-1, (-1, nvfp4.GROUP)).eq(0).all(-1)  # any scale does there: theirs is 1/8, ours 1
    assert torch.equal(ours.weight_scale[~zero].view(torch.uint8), scale[~zero].view(torch.uint8))
    assert torch.equal(ours.weight_scale[zero].float(), torch.ones(int(zero.sum())))


@settings(max_examples=150, deadline=None)
@given(weights(power_of_two=False))
def test_codes_differ_from_compressed_tensors_at_ties_only(weight: Tensor) -> None:
    ours = nvfp4.quantise(weight)
    packed, scale, _ = compressed(weight)

    same_scale = ours.weight_scale.view(torch.uint8) == scale.view(torch.uint8)
    factor = (ours.weight_scale.float() * ours.weight_scale_2).repeat_interleave(nvfp4.GROUP, -1)
    scaled = (weight.float() / factor).abs()
    midpoints = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    near_tie = ((scaled.unsqueeze(-1) - midpoints).abs() < 1e-5).any(-1)
    excused = near_tie | ~same_scale.repeat_interleave(nvfp4.GROUP, -1)
    assert (codes(ours.weight) == codes(packed))[~excused].all()


@settings(max_examples=100, deadline=None)
@given(weights(power_of_two=False))
def test_decodes_as_vllm_does(weight: Tensor) -> None:
    from vllm.model_executor.layers.quantization.utils.nvfp4_emulation_utils import dequantize_to_dtype

    ours = nvfp4.quantise(weight)
    theirs = dequantize_to_dtype(*ours, torch.float32, nvfp4.GROUP, swizzle=False)
    assert torch.equal(nvfp4.dequantise(ours, torch.float32), theirs)


@settings(max_examples=100, deadline=None)
@given(weights(power_of_two=False))
def test_error_is_at_most_half_a_step(weight: Tensor) -> None:
    assert within_half_a_step(weight, nvfp4.quantise(weight))


def test_a_doubled_scale_is_out_of_bounds() -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(1))
    tensor = nvfp4.quantise(weight)
    tensor.weight_scale[3, 2] = tensor.weight_scale[3, 2].float() * 2
    assert not within_half_a_step(weight, tensor)


def test_swapped_nibbles_are_out_of_bounds() -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(1))
    tensor = nvfp4.quantise(weight)
    swapped = tensor._replace(weight=tensor.weight << 4 | tensor.weight >> 4)
    assert not within_half_a_step(weight, swapped)


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(0.25, 0.0), (0.75, 1.0), (1.25, 1.0), (1.75, 2.0), (2.5, 2.0), (3.5, 4.0), (5.0, 4.0), (7.0, 6.0), (2.6, 3.0)],
)
def test_ties_go_to_even(value: float, rounded: float) -> None:
    both = torch.tensor([value, -value])
    assert torch.equal(nvfp4.decode(nvfp4.encode(both)), torch.tensor([rounded, -rounded]))


def test_low_nibble_is_the_even_column() -> None:
    weight = torch.zeros(1, 16)
    weight[0, 0], weight[0, 1] = 6.0, -3.0
    assert nvfp4.quantise(weight).weight[0, 0] == (8 + 5) << 4 | 7


def test_zeros_stay_zero() -> None:
    tensor = nvfp4.quantise(torch.zeros(4, 32))
    assert tensor.weight_scale_2 == 1
    assert torch.equal(nvfp4.dequantise(tensor), torch.zeros(4, 32, dtype=torch.bfloat16))


def test_tiny_blocks_do_not_divide_by_zero() -> None:
    weight = torch.full((1, 32), 1e-9)
    weight[0, 0] = 1.0
    decoded = nvfp4.dequantise(nvfp4.quantise(weight), torch.float32)
    assert decoded.isfinite().all()
    assert decoded[0, 16:].eq(0).all()


def test_layout_is_nvidias(micro_pair: MicroPair) -> None:
    tensors = load_file(micro_pair.target_nvfp4 / "model.safetensors")
    shapes = {"gate_proj": (MOE_INTERMEDIATE, HIDDEN), "up_proj": (MOE_INTERMEDIATE, HIDDEN)}
    shapes["down_proj"] = (HIDDEN, MOE_INTERMEDIATE)
    expected: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    for layer in range(LAYERS):
        for expert in range(EXPERTS):
            for part, (rows, columns) in shapes.items():
                prefix = f"model.layers.{layer}.experts.{expert}.{part}"
                expected[f"{prefix}.weight"] = (torch.uint8, (rows, columns // 2))
                expected[f"{prefix}.weight_scale"] = (torch.float8_e4m3fn, (rows, columns // 16))
                expected[f"{prefix}.weight_scale_2"] = (torch.float32, ())
                expected[f"{prefix}.input_scale"] = (torch.float32, ())
    assert {k: (t.dtype, tuple(t.shape)) for k, t in tensors.items() if ".experts." in k} == expected


def test_everything_but_the_experts_is_copied(micro_pair: MicroPair) -> None:
    before = load_file(micro_pair.target_bf16 / "model.safetensors")
    after = load_file(micro_pair.target_nvfp4 / "model.safetensors")
    kept = {name for name in before if ".experts." not in name}
    assert kept == {name for name in after if ".experts." not in name}
    assert all(torch.equal(before[name].view(torch.uint8), after[name].view(torch.uint8)) for name in kept)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (micro_pair.target_nvfp4 / name).read_bytes() == (micro_pair.target_bf16 / name).read_bytes()


def test_experts_decode_to_what_they_were(micro_pair: MicroPair) -> None:
    fused = load_file(micro_pair.target_bf16 / "model.safetensors")
    tensors = load_file(micro_pair.target_nvfp4 / "model.safetensors")
    for expert, gate_up in enumerate(fused["model.layers.2.experts.gate_up_proj"]):
        prefix = f"model.layers.2.experts.{expert}"
        gate, up = (read(tensors, f"{prefix}.{part}") for part in ("gate_proj", "up_proj"))
        assert gate.weight_scale_2 == up.weight_scale_2 == nvfp4.global_scale(gate_up.abs().max())
        assert within_half_a_step(gate_up[:MOE_INTERMEDIATE], gate)
        assert within_half_a_step(gate_up[MOE_INTERMEDIATE:], up)


def test_config_says_what_was_done(micro_pair: MicroPair) -> None:
    config = json.loads((micro_pair.target_nvfp4 / "config.json").read_text())
    quantisation = config.pop("quantization_config")
    assert config == json.loads((micro_pair.target_bf16 / "config.json").read_text())
    assert (quantisation["quant_method"], quantisation["quant_algo"]) == ("modelopt", "NVFP4")
    assert quantisation["config_groups"]["group_0"]["weights"]["group_size"] == 16
    beside = json.loads((micro_pair.target_nvfp4 / "hf_quant_config.json").read_text())["quantization"]
    assert beside["exclude_modules"] == quantisation["ignore"]


KEPT = ["lm_head", "model.layers.3.mlp.gate_up_proj", "model.layers.3.router.proj", "model.layers.5.self_attn.qkv_proj"]


@pytest.mark.parametrize("file", ["config.json", "hf_quant_config.json"])
def test_vllm_reads_the_ignore_list(micro_pair: MicroPair, file: str) -> None:
    read_by_vllm = vllm_config(json.loads((micro_pair.target_nvfp4 / file).read_text()))
    assert all(read_by_vllm.is_layer_excluded(name) for name in KEPT)
    assert not read_by_vllm.is_layer_excluded("model.layers.3.experts")


def test_a_forgotten_module_would_be_quantised(micro_pair: MicroPair) -> None:
    config = json.loads((micro_pair.target_nvfp4 / "config.json").read_text())
    config["quantization_config"]["ignore"].remove("model.layers.5.self_attn*")
    assert not vllm_config(config).is_layer_excluded(KEPT[-1])


def test_same_input_gives_same_bytes(micro_pair: MicroPair, tmp_path: Path) -> None:
    convert(micro_pair.target_bf16, tmp_path)
    names = sorted(path.name for path in micro_pair.target_nvfp4.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    assert [digest(tmp_path / name) for name in names] == [digest(micro_pair.target_nvfp4 / name) for name in names]


def test_input_scales_come_from_the_calibration(micro_pair: MicroPair, tmp_path: Path) -> None:
    amax = {
        f"model.layers.{layer}.experts.{kind}": 1.0 + layer
        for layer in range(LAYERS)
        for kind in ("gate_up_proj", "down_proj")
    }
    convert(micro_pair.target_bf16, tmp_path, amax)
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors["model.layers.4.experts.7.up_proj.input_scale"] == torch.tensor(5.0) / (6 * 448)
    uncalibrated = load_file(micro_pair.target_nvfp4 / "model.safetensors")
    assert uncalibrated["model.layers.4.experts.7.up_proj.input_scale"] == 1


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda amax: amax.pop("model.layers.5.experts.down_proj"), "lacks model.layers.5.experts.down_proj"),
        (lambda amax: amax.update({"model.layers.9.experts.down_proj": 1.0}), "names model.layers.9.experts.down_proj"),
    ],
)
def test_a_calibration_that_does_not_fit_is_refused(
    micro_pair: MicroPair, tmp_path: Path, spoil: Callable[[dict[str, float]], object], sentence: str
) -> None:
    kinds = ("gate_up_proj", "down_proj")
    amax = {f"model.layers.{layer}.experts.{kind}": 1.0 for layer in range(LAYERS) for kind in kinds}
    spoil(amax)
    with pytest.raises(UsageError, match=sentence):
        convert(micro_pair.target_bf16, tmp_path / "out", amax)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"architectures": ["Gemma4ForConditionalGeneration"]}, "give a Gemma4ForCausalLM target"),
        ({"quantization_config": {}}, "give the BF16 checkpoint"),
    ],
)
def test_another_checkpoint_is_refused(
    micro_pair: MicroPair, tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    source = Path(shutil.copytree(micro_pair.target_bf16, tmp_path / "source"))
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UsageError, match=sentence):
        convert(source, tmp_path / "out")


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        convert(tmp_path / "nowhere", tmp_path / "out")


def within_half_a_step(weight: Tensor, tensor: nvfp4.Nvfp4) -> bool:
    """E2M1's widest gap is 2, so no value may be further off than its block's scale (nor any scale be too large)."""
    step = tensor.weight_scale.float() * tensor.weight_scale_2
    error = (nvfp4.dequantise(tensor, torch.float32) - weight.float()).unflatten(-1, (-1, nvfp4.GROUP)).abs().amax(-1)
    amax = weight.float().unflatten(-1, (-1, nvfp4.GROUP)).abs().amax(-1)
    # FP8 rounds a normal scale by at most 1/16; a block of zeros may have any.
    right_scale = (amax == 0) | (step <= amax / 6 * (1 + 1 / 16 + 1e-6))
    return bool((error <= step * (1 + 1e-6)).all() and right_scale.all())


def codes(packed: Tensor) -> Tensor:
    return torch.stack((packed & 15, packed >> 4), -1).flatten(-2)


def read(tensors: dict[str, Tensor], prefix: str) -> nvfp4.Nvfp4:
    return nvfp4.Nvfp4(*(tensors[f"{prefix}.{field}"] for field in nvfp4.Nvfp4._fields))


def vllm_config(content: dict[str, Any]) -> Any:
    """The quantisation config as vLLM's Gemma 4 model class sees it."""
    from vllm.model_executor.layers.quantization.modelopt import ModelOptNvFp4Config
    from vllm.model_executor.models.gemma4 import Gemma4ForCausalLM

    config = ModelOptNvFp4Config.from_config(content.get("quantization_config", content))
    config.apply_vllm_mapper(Gemma4ForCausalLM.hf_to_vllm_mapper)
    config.packed_modules_mapping = Gemma4ForCausalLM.packed_modules_mapping
    return config


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
