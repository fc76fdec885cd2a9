"""Checks whether a target's quantisation settings agree with its tensors.

vLLM builds a packed layer for every linear without an exception in the settings, and loads the file's tensors into it.
If a linear is in BF16 but not listed, or listed but packed, loading fails or the numbers are wrong.
Layouts: modelopt's and compressed-tensors' NVFP4, compressed-tensors' packed integers, and FP8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from conformance.errors import Unsupported

Part = tuple[str, tuple[int, ...]]  # of a tensor: dtype as safetensors writes it, and shape
Held = Mapping[str, Part]  # by name

FLOATS = ("BF16", "F16", "F32")
MODELOPT, COMPRESSED, FP8 = "modelopt", "compressed-tensors", "fp8"
PACKED = "pack-quantized"  # integers of compressed-tensors, several in one of 32 bits
GROUP = 16
EXCEPTIONS = ("ignore", "ignored_layers", "modules_to_not_convert")
# A linear of a decoder layer: attention, dense MLP, routed experts, router; not the per-layer inputs of E2B and E4B.
_LINEAR = re.compile(r"\.layers\.\d+\.(self_attn|mlp|router|(moe\.)?experts\.\d+)\.(\w+_)?proj$")
_TOWER = re.compile(r"vision|audio")
_PROJECTION = re.compile(r"\.embed_(vision|audio)\.")  # from a tower to the decoder
_ALWAYS_FLOAT = re.compile(r"\.router\.|embed_tokens|\.embed_(vision|audio)\.")
_PARTS = {
    MODELOPT: ("weight", "weight_scale", "weight_scale_2"),
    COMPRESSED: ("weight_packed", "weight_scale", "weight_global_scale"),
    PACKED: ("weight_packed", "weight_scale", "weight_shape"),
}


@dataclass(frozen=True)
class Integers:
    """How a target packs integers: bits of each, and how many share a scale; None if a row does."""

    bits: int
    group: int | None


def method_of(config: Mapping[str, Any]) -> str | None:
    """The layout that the settings name, or None without quantisation.

    Raises:
        Unsupported: the suite does not know this layout.
    """
    settings = config.get("quantization_config")
    if not settings:
        return None
    if not isinstance(settings, Mapping):
        raise Unsupported(f"config.json has a quantization_config that is no table: {str(settings)[:80]}")
    method, how = settings.get("quant_method"), settings.get("quant_algo") or settings.get("format")
    if (method, how) == (MODELOPT, "NVFP4"):
        return MODELOPT
    if method == COMPRESSED and how == "nvfp4-pack-quantized":
        return COMPRESSED
    if method == COMPRESSED and how == PACKED and _integers(settings):
        return PACKED
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
    ignored, integers = _exceptions(settings), _integers(settings)
    for module, quantised in linears.items():
        listed = covers(ignored, module)
        if quantised and listed:
            found.append(f"{module} is quantised, but config.json lists it as left in BF16")
        elif quantised and _ALWAYS_FLOAT.search(module):
            found.append(f"{module} is quantised and must not be")
        elif not quantised and not listed and not (method == COMPRESSED and ".router." in module):
            found.append(f"{module} is in BF16, but config.json does not list it as left so")
        elif quantised and method in _PARTS:
            found += _packing(module, method, held, integers)
    return found


def packed_as(config: Mapping[str, Any]) -> str:
    """What is to be known about a target of packed integers; empty for another one."""
    if method_of(config) != PACKED or not (integers := _integers(config["quantization_config"])):
        return ""
    shared = f"in groups of {integers.group}" if integers.group else "with a scale for each row"
    own = "those of Google's QAT have drafts of their own, …-qat-q4_0-unquantized-assistant"
    return f"the weights are {integers.bits}-bit integers {shared}; {own}"


def quantised_linears(held: Held) -> int:
    """The number of linear layers that the file quantises."""
    return sum(dict(_linears(held)).values())


def covers(patterns: tuple[str, ...], module: str) -> bool:
    """Whether a list of exceptions names a module: by its path, a parent's path, a glob, or a regular expression."""
    return any(
        _matches(pattern[3:], module)
        if pattern.startswith("re:")
        else fnmatchcase(module, pattern) or module.startswith(f"{pattern}.")
        for pattern in patterns
    )


def _matches(pattern: str, module: str) -> bool:
    """Whether a regular expression matches the start of a name; a broken one matches none."""
    try:
        return re.match(pattern, module) is not None
    except re.error:
        return False


def _exceptions(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The names and patterns of modules that stay as they are; entries that are no text name none."""
    listed = next((settings[key] for key in EXCEPTIONS if settings.get(key)), ())
    return tuple(name for name in listed if isinstance(name, str)) if isinstance(listed, list | tuple) else ()


def _linears(held: Held) -> Iterator[tuple[str, bool]]:
    """The linear layers of the decoder, and whether each is quantised; a projection from a tower only if it is."""
    for name, (dtype, _) in held.items():
        module, _, part = name.rpartition(".")
        quantised = dtype not in FLOATS
        of_decoder = _LINEAR.search(module) and not _TOWER.search(module)
        if part in ("weight", "weight_packed") and (of_decoder or (quantised and _PROJECTION.search(module))):
            yield module, quantised


def _packing(module: str, method: str, held: Held, integers: Integers | None) -> Iterator[str]:
    """The parts of a packed weight that are absent, or that have another dtype or shape than its layout implies."""
    weight, scale, last = parts = tuple(held.get(f"{module}.{part}") for part in _PARTS[method])
    if weight is None or scale is None or last is None:
        lacking = [part for part, have in zip(_PARTS[method], parts, strict=True) if have is None]
        yield f"{module} lacks {', '.join(lacking)}"
        return
    if len(weight[1]) != 2:
        yield f"{module}.{_PARTS[method][0]} is {list(weight[1])}, which is no matrix"
        return
    wanted = _integer_parts(weight[1], scale[0], integers) if integers else _nvfp4_parts(weight[1], method)
    for part, have, want in zip(_PARTS[method], (weight, scale, last), wanted, strict=True):
        if have != want:
            yield f"{module}.{part} is {have[0]} {list(have[1])} where {want[0]} {list(want[1])} is expected"


def _nvfp4_parts(packed: tuple[int, ...], method: str) -> tuple[Part, Part, Part]:
    """An NVFP4 weight [N, K] is U8 [N, K/2] with an FP8 scale for every 16 columns and one F32 scale for all."""
    (rows, columns), one = packed, () if method == MODELOPT else (1,)
    return ("U8", (rows, columns)), ("F8_E4M3", (rows, 2 * columns // GROUP)), ("F32", one)


def _integer_parts(packed: tuple[int, ...], scales: str, integers: Integers) -> tuple[Part, Part, Part]:
    """A weight [N, K] of B-bit integers is I32 [N, B*K/32] with a scale for each group or row, and its shape."""
    rows, columns = packed
    shared = columns * 32 // integers.bits // integers.group if integers.group else 1
    return ("I32", (rows, columns)), (scales if scales in FLOATS else "BF16", (rows, shared)), ("I64", (2,))


def _integers(settings: Mapping[str, Any]) -> Integers | None:
    """The integers of settings with one group of them; None for others."""
    groups = settings.get("config_groups")
    found = list(groups.values()) if isinstance(groups, Mapping) and settings.get("format") == PACKED else []
    weights = found[0].get("weights") if len(found) == 1 and isinstance(found[0], Mapping) else None
    if not isinstance(weights, Mapping) or weights.get("type") != "int" or weights.get("num_bits") not in (4, 8):
        return None
    group = weights.get("group_size")
    return Integers(weights["num_bits"], group if isinstance(group, int) and group > 0 else None)


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
