"""Settings against tensors, in the layouts that publishers use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from conformance.checkpoints.quantisation import covers, method_of, objections, packed_as, quantised_linears
from conformance.errors import Unsupported
from conformance.profile.facts import Facts, load_facts

PREFIX = "model.language_model.layers"
BF16 = ("BF16", (64, 64))


@pytest.fixture(scope="module")
def facts() -> Facts:
    return load_facts()


def modelopt(module: str, rows: int, columns: int) -> Iterator[tuple[str, Any]]:
    yield f"{module}.weight", ("U8", (rows, columns // 2))
    yield f"{module}.weight_scale", ("F8_E4M3", (rows, columns // 16))
    yield f"{module}.weight_scale_2", ("F32", ())
    yield f"{module}.input_scale", ("F32", ())


def compressed(module: str, rows: int, columns: int) -> Iterator[tuple[str, Any]]:
    yield f"{module}.weight_packed", ("U8", (rows, columns // 2))
    yield f"{module}.weight_scale", ("F8_E4M3", (rows, columns // 16))
    yield f"{module}.weight_global_scale", ("F32", (1,))
    yield f"{module}.input_global_scale", ("F32", (1,))


def nvidia_26b() -> dict[str, Any]:
    """The linears of nvidia's 26B-A4B: routed experts one by one, all else in BF16."""
    held: dict[str, Any] = {"model.language_model.embed_tokens.weight": ("BF16", (262144, 2816))}
    for layer in range(30):
        at = f"{PREFIX}.{layer}"
        names = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj", "router.proj")
        held |= {f"{at}.{name}.weight": BF16 for name in names}
        for expert in range(128):
            for name, sizes in {"gate": (704, 2816), "up": (704, 2816), "down": (2816, 704)}.items():
                held.update(modelopt(f"{at}.experts.{expert}.{name}_proj", *sizes))
    return held


def test_nvidias_26b_keeps_all_but_its_experts(facts: Facts) -> None:
    config = facts.targets["26B-A4B"].text_model(facts.quantisations["nvfp4-modelopt"])
    held = nvidia_26b()
    assert quantised_linears(held) == facts.targets["26B-A4B"].quantised_linears["modelopt"] == 11_520
    assert objections(config, None, held) == []
    held |= {f"{PREFIX}.7.mlp.up_proj.weight": ("U8", (2112, 1408))}
    assert objections(config, None, held) == [
        f"{PREFIX}.7.mlp.up_proj is quantised, but config.json lists it as left in BF16"
    ]


def test_nvidias_31b_quantises_the_mlp_alone(facts: Facts) -> None:
    config = facts.targets["31B"].text_model(facts.quantisations["nvfp4-modelopt"])
    held: dict[str, Any] = {}
    for layer in range(60):
        held[f"{PREFIX}.{layer}.self_attn.q_proj.weight"] = BF16
        for name, sizes in {"gate": (21504, 5376), "up": (21504, 5376), "down": (5376, 21504)}.items():
            held.update(modelopt(f"{PREFIX}.{layer}.mlp.{name}_proj", *sizes))
    assert held[f"{PREFIX}.0.mlp.down_proj.weight"] == ("U8", (5376, 10752))
    assert held[f"{PREFIX}.0.mlp.down_proj.weight_scale"] == ("F8_E4M3", (5376, 1344))
    assert quantised_linears(held) == facts.targets["31B"].quantised_linears["modelopt"]
    assert objections(config, None, held) == []
    own = {"quant_algo": "NVFP4", "group_size": 16, "kv_cache_quant_algo": "FP8"}
    hf_quant = {"quantization": own | {"exclude_modules": config["quantization_config"]["ignore"]}}
    assert objections(config, hf_quant, held) == []
    hf_quant["quantization"]["group_size"] = 32
    assert objections(config, hf_quant, held) == [
        "hf_quant_config.json and config.json disagree about group_size: {32} and {16}"
    ]


def test_compressed_tensors_quantises_attention_too(facts: Facts) -> None:
    config = facts.targets["26B-A4B"].text_model(facts.quantisations["nvfp4-compressed-tensors"])
    held: dict[str, Any] = {f"{PREFIX}.0.router.proj.weight": BF16, "lm_head.weight": BF16}
    held |= dict(compressed(f"{PREFIX}.0.self_attn.q_proj", 4096, 2816))
    assert objections(config, None, held) == []
    held[f"{PREFIX}.0.self_attn.q_proj.weight_global_scale"] = ("F32", ())
    assert objections(config, None, held) == [
        f"{PREFIX}.0.self_attn.q_proj.weight_global_scale is F32 [] where F32 [1] is expected"
    ]
    held[f"{PREFIX}.1.self_attn.q_proj.weight"] = BF16
    assert f"{PREFIX}.1.self_attn.q_proj is in BF16, but config.json does not list it as left so" in (
        objections(config, None, held)
    )


def test_fp8_and_nothing(facts: Facts) -> None:
    config = facts.targets["31B"].text_model(facts.quantisations["fp8"])
    linear = f"{PREFIX}.0.mlp.down_proj.weight"
    assert objections(config, None, {linear: ("F8_E4M3", (5376, 21504))}) == []
    assert objections(config, None, {linear: BF16}) == ['config.json says "fp8", but no linear layer is quantised']
    assert objections({}, None, {linear: BF16}) == []
    assert objections({}, {"quantization": {}}, {linear: BF16}) == [
        "hf_quant_config.json names a quantisation, but config.json names none"
    ]


def test_an_unknown_layout_is_unsupported() -> None:
    with pytest.raises(Unsupported, match=r'does not know .* quant_method "awq" with "None"'):
        method_of({"quantization_config": {"quant_method": "awq"}})
    assert method_of({}) is None


@pytest.mark.parametrize(
    ("pattern", "module", "covered"),
    [
        ("lm_head", "lm_head", True),
        ("model.layers.1.mlp*", "model.layers.1.mlp.up_proj", True),
        ("model.layers.1.mlp*", "model.layers.10.mlp.up_proj", False),
        ("model.layers.1", "model.layers.10.mlp.up_proj", False),
        ("model.layers.1", "model.layers.1.mlp.up_proj", True),
        ("re:.*router.*", "model.layers.1.router.proj", True),
        ("re:.*vision.*", "model.layers.1.router.proj", False),
    ],
)
def test_exceptions(pattern: str, module: str, covered: bool) -> None:
    assert covers((pattern,), module) is covered


def integers(**weights: Any) -> dict[str, Any]:
    group = {"weights": {"num_bits": 4, "type": "int", "group_size": 32} | weights}
    settings = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": group}}
    return {"quantization_config": settings}


def packed(**changed: Any) -> dict[str, Any]:
    """A linear [64, 128] of 4-bit integers in groups of 32."""
    parts = {"packed": ("I32", (64, 16)), "scale": ("BF16", (64, 4)), "shape": ("I64", (2,))} | changed
    return {f"{PREFIX}.0.mlp.up_proj.weight_{part}": held for part, held in parts.items() if held}


def test_packed_integers() -> None:
    assert objections(integers(), None, packed()) == []
    assert objections(integers(group_size=None), None, packed(scale=("BF16", (64, 1)))) == []
    assert objections(integers(num_bits=8), None, packed(scale=("BF16", (64, 2)))) == []
    assert packed_as(integers(num_bits=8, group_size=None)).startswith(
        "the weights are 8-bit integers with a scale for"
    )
    assert packed_as({}) == ""


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"scale": ("BF16", (64, 8))}, "up_proj.weight_scale is BF16 [64, 8] where BF16 [64, 4] is expected"),
        ({"scale": ("F8_E4M3", (64, 4))}, "up_proj.weight_scale is F8_E4M3 [64, 4] where BF16 [64, 4] is expected"),
        ({"packed": ("U8", (64, 16))}, "up_proj.weight_packed is U8 [64, 16] where I32 [64, 16] is expected"),
        ({"packed": ("I32", (64,))}, "up_proj.weight_packed is [64], which is no matrix"),
        ({"shape": None}, "up_proj lacks weight_shape"),
    ],
)
def test_integers_that_are_packed_in_another_way(changed: dict[str, Any], says: str) -> None:
    (found,) = objections(integers(), None, packed(**changed))
    assert found.endswith(says)


@pytest.mark.parametrize("weights", [{"num_bits": 3}, {"type": "float"}, {"num_bits": "4"}])
def test_other_integers_are_unknown(weights: dict[str, Any]) -> None:
    with pytest.raises(Unsupported, match="pack-quantized"):
        method_of(integers(**weights))


def test_exceptions_that_name_nothing() -> None:
    config = integers()
    linear = {f"{PREFIX}.0.mlp.up_proj.weight": BF16, **dict(compressed(f"{PREFIX}.1.mlp.up_proj", 64, 64))}
    for listed in ([None, 3], "mlp", ["re:("]):
        config["quantization_config"]["ignore"] = listed
        found = objections(config, None, linear)
        assert f"{PREFIX}.0.mlp.up_proj is in BF16, but config.json does not list it as left so" in found
    with pytest.raises(Unsupported, match="no table: fp8"):
        method_of({"quantization_config": "fp8"})
