"""Checks whether a target's quantisation settings agree with its tensors.

vLLM builds a packed layer for every linear without an exception in the settings, and loads the file's tensors into it.
If a linear is in BF16 but not listed, or listed but packed, loading fails or the numbers are wrong.
Layouts: modelopt's and compressed-tensors' NVFP4, and FP8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from conformance.errors import Unsupported

Held = Mapping[str, tuple[str, tuple[int, ...]]]  # tensors: dtype as safetensors writes it, and shape, by name

FLOATS = ("BF16", "F16", "F32")
MODELOPT, COMPRESSED, FP8 = "modelopt", "compressed-tensors", "fp8"
GROUP = 16
# A linear of a decoder layer: attention, dense MLP, routed experts, router; not the per-layer inputs of E2B and E4B.
_LINEAR = re.compile(r"\.layers\.\d+\.(self_attn|mlp|router|(moe\.)?experts\.\d+)\.(\w+_)?proj$")
_TOWER = re.compile(r"vision|audio")
_PROJECTION = re.compile(r"\.embed_(vision|audio)\.")  # from a tower to the decoder
_ALWAYS_FLOAT = re.compile(r"\.router\.|embed_tokens|\.embed_(vision|audio)\.")
_PARTS = {
    MODELOPT: ("weight", "weight_scale", "weight_scale_2"),
    COMPRESSED: ("weight_packed", "weight_scale", "weight_global_scale"),
}


def method_of(config: Mapping[str, Any]) -> str | None:
    """The layout that the settings name, or None without quantisation.

    Raises:
        Unsupported: the suite does not know this layout.
    """
    settings = config.get("quantization_config")
    if not settings:
        return None
    method, how = settings.get("quant_method"), settings.get("quant_algo") or settings.get("format")
    if (method, how) == (MODELOPT, "NVFP4"):
        return MODELOPT
    if method == COMPRESSED and how == "nvfp4-pack-quantized":
        return COMPRESSED
    if method == FP8 or how in ("float-quantized", "FP8"):
        return FP8
    raise Unsupported(f'The suite does not know the target\'s quantisation, quant_method "{method}" with "{how}".')


def objections(config: Mapping[str, Any], hf_quant: Mapping[str, Any] | None, held: Held) -> list[str]:
    """Sentences that say where settings and tensors contradict each other; none if they agree.

    Raises:
        Unsupported: the suite does not know the layout of the quantisation.
    """
    method = method_of(config)
    if method is None:
        odd = [
            f"{name} is {dtype} in an unquantised target" for name, (dtype, _) in held.items() if dtype not in FLOATS
        ]
        return odd + (["hf_quant_config.json names a quantisation, but config.json names none"] if hf_quant else [])
    settings = config["quantization_config"]
    linears = dict(_linears(held))
    found = [*_disagreements(settings, hf_quant)]
    if not any(linears.values()):
        return [*found, f'config.json says "{method}", but no linear layer is quantised']
    ignored = tuple(
        settings.get("ignore") or settings.get("ignored_layers") or settings.get("modules_to_not_convert") or ()
    )
    for module, quantised in linears.items():
        listed = covers(ignored, module)
        if quantised and listed:
            found.append(f"{module} is quantised, but config.json lists it as left in BF16")
        elif quantised and _ALWAYS_FLOAT.search(module):
            found.append(f"{module} is quantised and must not be")
        elif not quantised and not listed and not (method == COMPRESSED and ".router." in module):
            found.append(f"{module} is in BF16, but config.json does not list it as left so")
        elif quantised and method in _PARTS:
            found += _packing(module, method, held)
    return found


def quantised_linears(held: Held) -> int:
    """The number of linear layers that the file quantises."""
    return sum(dict(_linears(held)).values())


def covers(patterns: tuple[str, ...], module: str) -> bool:
    """Whether a list of exceptions names a module: by its path, a parent's path, a glob, or a regular expression."""
    return any(
        bool(re.match(pattern[3:], module))
        if pattern.startswith("re:")
        else fnmatchcase(module, pattern) or module.startswith(f"{pattern}.")
        for pattern in patterns
    )


def _linears(held: Held) -> Iterator[tuple[str, bool]]:
    """The linear layers of the decoder, and whether each is quantised; a projection from a tower only if it is."""
    for name, (dtype, _) in held.items():
        module, _, part = name.rpartition(".")
        quantised = dtype not in FLOATS
        of_decoder = _LINEAR.search(module) and not _TOWER.search(module)
        if part in ("weight", "weight_packed") and (of_decoder or (quantised and _PROJECTION.search(module))):
            yield module, quantised


def _packing(module: str, method: str, held: Held) -> Iterator[str]:
    """An NVFP4 weight [N, K] is U8 [N, K/2] with an FP8 scale for every 16 columns and one F32 scale for all."""
    weight, scale, overall = (held.get(f"{module}.{part}") for part in _PARTS[method])
    if weight is None or scale is None or overall is None:
        lacking = [part for part in _PARTS[method] if f"{module}.{part}" not in held]
        yield f"{module} lacks {', '.join(lacking)}"
        return
    (rows, columns), one = weight[1], () if method == MODELOPT else (1,)
    wanted = (("U8", (rows, columns)), ("F8_E4M3", (rows, 2 * columns // GROUP)), ("F32", one))
    for part, have, want in zip(_PARTS[method], (weight, scale, overall), wanted, strict=True):
        if have != want:
            yield f"{module}.{part} is {have[0]} {list(have[1])} where {want[0]} {list(want[1])} is expected"


def _disagreements(settings: Mapping[str, Any], hf_quant: Mapping[str, Any] | None) -> Iterator[str]:
    """The settings in which modelopt's own file and config.json differ."""
    if hf_quant is None:
        return
    own = hf_quant.get("quantization") or {}
    said = {
        "quant_algo": (own.get("quant_algo"), settings.get("quant_algo")),
        "the exceptions": (sorted(own.get("exclude_modules") or ()), sorted(settings.get("ignore") or ())),
        "an FP8 KV cache": (own.get("kv_cache_quant_algo") == "FP8", _fp8_cache(settings)),
        "group_size": ({own.get("group_size")}, _group_sizes(settings) or {own.get("group_size")}),
    }
    for what, (theirs, ours) in said.items():
        if theirs != ours:
            yield f"hf_quant_config.json and config.json disagree about {what}: {_short(theirs)} and {_short(ours)}"


def _fp8_cache(settings: Mapping[str, Any]) -> bool:
    scheme = settings.get("kv_cache_scheme") or {}
    return (scheme.get("num_bits"), scheme.get("type")) == (8, "float")


def _group_sizes(settings: Mapping[str, Any]) -> set[Any]:
    groups = (settings.get("config_groups") or {}).values()
    return {group["weights"].get("group_size") for group in groups if group.get("weights")}


def _short(value: Any) -> str:
    return f"{len(value)} entries" if isinstance(value, list) else str(value)
