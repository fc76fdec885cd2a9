"""Checks from configs and safetensors headers whether a draft and a target can belong together.

``refusals`` compares the tensors that the draft's config implies with those in its file, and the target that the draft
expects with the actual target. Sizes, names and dtypes are those of the published Gemma 4 assistants; upstream:
transformers' ``Gemma4AssistantForCausalLM`` and vLLM's ``gemma4_mtp.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.checkpoints.headers import SINGLE, Damaged, Tensor, read_headers, read_json, read_optional_json

DRAFT_TYPES = {"gemma4_assistant": "gemma4_text", "gemma4_unified_assistant": "gemma4_unified_text"}
TARGET_TYPES = {"gemma4": "gemma4_text", "gemma4_unified": "gemma4_unified_text"}
TEXT_TYPES = frozenset(TARGET_TYPES.values())
DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
FULL = "full_attention"
EMBEDDING = "embed_tokens.weight"
_ADAPTER = re.compile(r"\.lora_(A|B|embedding)|\.modules_to_save\.")


@dataclass(frozen=True)
class Axis:
    """One axis of a tensor: its size, and the config keys that imply it."""

    size: int
    keys: str


@dataclass(frozen=True)
class Implied:
    """A tensor that the draft's config implies."""

    dtype: str
    axes: tuple[Axis, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(axis.size for axis in self.axes)


class Missing(Exception):
    """A config lacks a key. The message names the key."""


@dataclass(frozen=True)
class Keys:
    """A table of a config. Its errors name the missing key with the prefix under which the user finds it."""

    table: Mapping[str, Any]
    prefix: str = ""

    def integer(self, key: str) -> int:
        value = self.table.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise Missing(f"{self.prefix}{key} is {'missing' if value is None else f'{value!r}, not a whole number'}")
        return value

    def axis(self, key: str) -> Axis:
        return Axis(self.integer(key), f"{self.prefix}{key}")

    def strings(self, key: str) -> list[str]:
        value = self.table.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise Missing(f"{self.prefix}{key} is missing or is not a list of names")
        return value


def text_keys(config: Mapping[str, Any]) -> Keys:
    """The part of a config that describes the text model: ``text_config`` if it exists, else the config itself."""
    nested = config.get("text_config")
    return Keys(nested, "text_config.") if isinstance(nested, dict) else Keys(config)


def attention_axes(text: Keys, number: int) -> tuple[Axis, Axis]:
    """Head size and number of key/value heads of layer ``number``.

    Published configs use ``global_*`` keys; transformers from 5.15 on saves ``per_layer_config`` instead.

    Raises:
        Missing: the config lacks a key.
    """
    if "per_layer_config" in text.table:
        own = (text.table["per_layer_config"] or {}).get(str(number), {})
        override = Keys(own, f"{text.prefix}per_layer_config.{number}.")
        head, kv = (override if key in own else text for key in ("head_dim", "num_key_value_heads"))
        return head.axis("head_dim"), kv.axis("num_key_value_heads")
    if text.strings("layer_types")[number] != FULL:
        return text.axis("head_dim"), text.axis("num_key_value_heads")
    own_heads = text.table.get("attention_k_eq_v", True) and text.table.get("num_global_key_value_heads") is not None
    kv_key = "num_global_key_value_heads" if own_heads else "num_key_value_heads"
    return text.axis("global_head_dim"), text.axis(kv_key)


def unused_tensors(config: Mapping[str, Any]) -> dict[str, int]:
    """The keys and values of a target's layers that read those of earlier ones: numbers in each, by name in the file.

    Google's files of E2B and E4B hold them, transformers leaves them out when it saves, and no model uses them.

    Raises:
        Missing: the config lacks a key.
    """
    text = text_keys(config)
    count = len(text.strings("layer_types"))
    sharing = min(text.integer("num_kv_shared_layers"), count) if text.table.get("num_kv_shared_layers") else 0
    found: dict[str, int] = {}
    for number in range(count - sharing, count):
        head, heads = attention_axes(text, number)
        at = f"{'model.language_model' if text.prefix else 'model'}.layers.{number}.self_attn"
        projection = head.size * heads.size * text.integer("hidden_size")
        found |= {f"{at}.{name}_proj.weight": projection for name in ("k", "v")}
        found[f"{at}.k_norm.weight"] = head.size
    return found


def implied_tensors(config: Mapping[str, Any]) -> dict[str, Implied]:
    """All tensors of a draft with this config.

    Raises:
        Missing: the config lacks a key.
    """
    text, top = text_keys(config), Keys(config)
    dtype = DTYPES.get(str(config.get("dtype") or config.get("torch_dtype") or "bfloat16"), "BF16")
    hidden, vocabulary, wide = text.axis("hidden_size"), text.axis("vocab_size"), text.axis("intermediate_size")
    backbone = top.axis("backbone_hidden_size")
    twice = Axis(2 * backbone.size, f"2 x {backbone.keys}")
    found = {
        "pre_projection.weight": Implied(dtype, (hidden, twice)),
        "post_projection.weight": Implied(dtype, (backbone, hidden)),
        f"model.{EMBEDDING}": Implied(dtype, (vocabulary, hidden)),
        "model.norm.weight": Implied(dtype, (hidden,)),
    }
    if config.get("use_ordered_embeddings"):
        found["masked_embedding.centroids.weight"] = Implied(dtype, (top.axis("num_centroids"), hidden))
        found["masked_embedding.token_ordering"] = Implied("I64", (vocabulary,))
    for number in range(len(text.strings("layer_types"))):
        head, _ = attention_axes(text, number)
        count = text.axis("num_attention_heads")
        heads = Axis(count.size * head.size, f"{count.keys} x {head.keys}")
        for name, axes in _layer_axes(hidden, wide, heads, head):
            found[f"model.layers.{number}.{name}"] = Implied(dtype, axes)
    return found


def _layer_axes(hidden: Axis, wide: Axis, heads: Axis, head: Axis) -> Iterator[tuple[str, tuple[Axis, ...]]]:
    for norm in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
        yield f"{norm}_layernorm.weight", (hidden,)
    yield "layer_scalar", (Axis(1, "one number"),)
    yield "self_attn.q_proj.weight", (heads, hidden)
    yield "self_attn.q_norm.weight", (head,)
    yield "self_attn.o_proj.weight", (hidden, heads)
    yield "mlp.gate_proj.weight", (wide, hidden)
    yield "mlp.up_proj.weight", (wide, hidden)
    yield "mlp.down_proj.weight", (hidden, wide)


def refusals(target: Path, draft: Path) -> list[str]:
    """Sentences that say why this pair must not be served; none for a sound pair."""
    try:
        configs = {"target": read_json(target / "config.json"), "draft": read_json(draft / "config.json")}
    except Damaged as damage:
        return [str(damage)]
    wrong_kind = [*_target_kind(target, configs["target"]), *_draft_kind(draft, configs["draft"])]
    if wrong_kind:
        return wrong_kind
    try:
        implied = implied_tensors(configs["draft"])
        held = read_headers(draft)
        found = [*_draft_tensors(draft, configs["draft"], implied, held), *_target_embedding(target, configs["target"])]
        found += [*_adapter(target), *_refused_sampling(target)]
        return found + list(_belong_together(target, draft, configs["target"], configs["draft"]))
    except Missing as missing:
        return [f"draft {draft / 'config.json'}: {missing}"]
    except Damaged as damage:
        return [str(damage)]


def _kind(config: Mapping[str, Any]) -> str:
    architectures = config.get("architectures") or ["no architecture"]
    return f'model_type "{config.get("model_type")}" ({architectures[0]})'


def _draft_kind(folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    if config.get("model_type") not in DRAFT_TYPES:
        yield (
            f"draft {folder / 'config.json'}: this is {_kind(config)}, not an MTP draft; "
            f'expected model_type "gemma4_assistant", or "gemma4_unified_assistant" for the unified 12B'
        )
    elif not isinstance(config.get("text_config"), dict):
        yield f"draft {folder / 'config.json'}: text_config is missing"


def _target_kind(folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    if config.get("model_type") not in TARGET_TYPES.keys() | TEXT_TYPES:
        yield f'target {folder / "config.json"}: this is {_kind(config)}; expected a Gemma 4 model, such as "gemma4"'


def _draft_tensors(
    folder: Path, config: Mapping[str, Any], implied: Mapping[str, Implied], held: Mapping[str, Tensor]
) -> Iterator[str]:
    """Tensors that the file lacks, has in addition, or has in another shape than the config implies."""
    if config.get("quantization_config"):
        return  # a quantised draft packs its linears in a layout that depends on the quantiser
    file = _file_of(folder, held)
    for name, want in implied.items():
        if name not in held:
            yield f"draft {file}: tensor {name} is missing (config implies {list(want.shape)} {want.dtype})"
    for name in sorted(held.keys() - implied.keys()):
        have = held[name]
        yield f"draft {have.file}: tensor {name} {list(have.shape)} is not one that the config implies"
    both = {name: (implied[name], held[name]) for name in sorted(implied.keys() & held.keys())}
    blamed = _blamed_keys(both)
    for keys, name in blamed.items():
        want, have = both[name]
        size = next(axis.size for axis in want.axes if axis.keys == keys)
        yield f"draft {folder / 'config.json'}: {keys} is {size} but {name} is {list(have.shape)}"
    for name, (want, have) in both.items():
        if not set(_disagreeing(want, have)) <= blamed.keys():
            yield f"draft {have.file}: tensor {name} is {list(have.shape)}, but config implies {list(want.shape)}"
        elif have.dtype != want.dtype:
            yield f"draft {have.file}: tensor {name} is {have.dtype}, but config implies {want.dtype}"


def _disagreeing(want: Implied, have: Tensor) -> list[str]:
    """The keys of the axes in which a tensor differs from the config, or of all axes if their number differs."""
    if len(want.axes) != len(have.shape):
        return [axis.keys for axis in want.axes]
    return [axis.keys for axis, size in zip(want.axes, have.shape, strict=True) if axis.size != size]


def _blamed_keys(both: Mapping[str, tuple[Implied, Tensor]]) -> dict[str, str]:
    """Config keys that all tensors with such an axis contradict, each with the first of these tensors.

    In this case the config is wrong. If only some tensors contradict a key, those tensors are wrong.
    """
    using: dict[str, list[str]] = {}
    against: dict[str, list[str]] = {}
    for name, (want, have) in both.items():
        for keys in {axis.keys for axis in want.axes}:
            using.setdefault(keys, []).append(name)
        for keys in set(_disagreeing(want, have)):
            against.setdefault(keys, []).append(name)
    return {keys: names[0] for keys, names in against.items() if names == using[keys] and len(names) > 1}


def _file_of(folder: Path, held: Mapping[str, Tensor]) -> Path:
    files = {tensor.file for tensor in held.values()}
    return files.pop() if len(files) == 1 else folder


def _target_embedding(folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """Compare the target's config with its own embedding; else comparing the draft with it means nothing."""
    text = text_keys(config)
    try:
        want = (text.integer("vocab_size"), text.integer("hidden_size"))
    except Missing as missing:
        yield f"target {folder / 'config.json'}: {missing}"
        return
    for name, tensor in read_headers(folder).items():
        language = "vision" not in name and "audio" not in name
        if language and name.endswith(EMBEDDING) and tensor.shape != want:
            yield (
                f"target {folder / 'config.json'}: {text.prefix}vocab_size and hidden_size are {list(want)} "
                f"but {name} is {list(tensor.shape)}"
            )


def _adapter(target: Path) -> Iterator[str]:
    """The matrices of a LoRA, which vLLM does not load, so that it serves another model than the one that was tuned."""
    left = [name for name in read_headers(target) if _ADAPTER.search(name)]
    if left:
        yield f"target {target / SINGLE}: holds {len(left)} tensors of a LoRA, such as {left[0]}; merge them"


def _refused_sampling(target: Path) -> Iterator[str]:
    """Settings of every request that vLLM answers with status 400 (``_validate_spec_decode`` of its SamplingParams)."""
    path = target / "generation_config.json"
    if value := (read_optional_json(path) or {}).get("min_p"):
        yield f"target {path}: min_p is {value}, and vLLM refuses every request with min_p while it drafts; remove it"


def _belong_together(
    target: Path, draft: Path, target_config: Mapping[str, Any], draft_config: Mapping[str, Any]
) -> Iterator[str]:
    """Compare both configs: the draft reads hidden states, keys and values of the target for which it was made."""
    theirs, mine = text_keys(target_config), text_keys(draft_config)
    at, other = f"draft {draft / 'config.json'}", f"the target {target / 'config.json'}"
    family = theirs.table.get("model_type")
    expected = DRAFT_TYPES[draft_config["model_type"]]
    if family != expected:
        yield f'{at}: {_kind(draft_config)} belongs to a target of "{expected}", but {other} is "{family}"'
    try:
        pairs = [(Keys(draft_config).axis("backbone_hidden_size"), theirs.axis("hidden_size"))]
        pairs += [(mine.axis(key), theirs.axis(key)) for key in ("vocab_size", "sliding_window")]
        for layer_type, (number, donor) in _donors(mine, theirs).items():
            if donor is None:
                yield f"{at}: it has {layer_type} layers, but {other} has none to read keys and values from"
            else:
                pairs += zip(attention_axes(mine, number), attention_axes(theirs, donor), strict=True)
    except Missing as missing:
        yield f"{at} or {other}: {missing}"
        return
    for ours, its in pairs:
        if ours.size != its.size:
            yield f"{at}: {ours.keys} is {ours.size}, but {other} has {its.keys} {its.size}"
    if mine.table.get("rope_parameters") != theirs.table.get("rope_parameters"):
        yield f"{at}: {mine.prefix}rope_parameters differ from those of {other}"


def kv_donors(draft_config: Mapping[str, Any], target_config: Mapping[str, Any]) -> dict[int, int]:
    """For each draft layer the target layer whose keys and values it reads: the last of its kind that owns them.

    Raises:
        Missing: a config lacks a key, or the target has no such layer.
    """
    theirs, mine = text_keys(target_config), text_keys(draft_config)
    donors = {kind: donor for kind, (_, donor) in _donors(mine, theirs).items()}
    found: dict[int, int] = {}
    for number, kind in enumerate(mine.strings("layer_types")):
        donor = donors[kind]
        if donor is None:
            raise Missing(f"the target has no {kind} layer that owns keys and values")
        found[number] = donor
    return found


def _donors(mine: Keys, theirs: Keys) -> dict[str, tuple[int, int | None]]:
    """For each kind of layer: the draft's last one, and the target's last one whose keys and values it reads."""
    kinds = theirs.strings("layer_types")
    own = kinds[: len(kinds) - (theirs.table.get("num_kv_shared_layers") or 0)]
    last = {layer_type: number for number, layer_type in enumerate(own)}
    return {kind: (number, last.get(kind)) for number, kind in enumerate(mine.strings("layer_types"))}
