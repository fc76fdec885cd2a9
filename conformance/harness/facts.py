"""What is known of the published Gemma 4 checkpoints, from ``fixtures/facts``: configs, tensors, totals, layouts.

Facts are what checks hold builds and files against. Each table says how certain it is and where it comes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from conformance import FIXTURES
from conformance.harness import tables
from conformance.harness.tables import STRICT

SLIDING, FULL = "sliding_attention", "full_attention"
TEXT_ARCHITECTURE = "Gemma4ForCausalLM"
Flag = Literal["certain", "likely", "uncertain"]
Shape = tuple[int, ...]


@dataclass(frozen=True, config=STRICT)
class Totals:
    """Of a whole checkpoint: tensors, floating-point parameters, and the bytes of all tensors where known."""

    tensors: int
    parameters: int
    bytes: int | None = None


@dataclass(frozen=True, config=STRICT)
class Layers:
    """Shapes by name within a layer: those of every layer, and those of one kind."""

    each: Mapping[str, Shape]
    sliding: Mapping[str, Shape]
    full: Mapping[str, Shape]


@dataclass(frozen=True, config=STRICT)
class _Draft:
    repository: str
    flag: Flag
    source: str
    null: tuple[str, ...]
    totals: Totals
    config: Mapping[str, Any]
    text_config: Mapping[str, Any]
    tensors: Mapping[str, Shape]
    layers: Layers


@dataclass(frozen=True, config=STRICT)
class _Target:
    repository: str
    flag: Flag
    source: str
    null: tuple[str, ...]
    group: int
    groups: int
    totals: Totals
    architecture: str
    text_config: Mapping[str, Any]


@dataclass(frozen=True, config=STRICT)
class _Shared:
    text_config: Mapping[str, Any]
    config: Mapping[str, Any] | None = None


@dataclass(frozen=True, config=STRICT)
class _Drafts:
    shared: _Shared
    sizes: Mapping[str, _Draft]


@dataclass(frozen=True, config=STRICT)
class _Targets:
    shared: _Shared
    sizes: Mapping[str, _Target]


@dataclass(frozen=True, config=STRICT)
class Quantisation:
    """How a publisher quantises a target; no ``quantization_config`` for an unquantised one."""

    flag: Flag
    source: str
    ignore: tuple[str, ...] = ()
    with_experts: tuple[str, ...] = ()
    quantization_config: Mapping[str, Any] | None = None

    def config(self, text_config: Mapping[str, Any]) -> dict[str, Any] | None:
        """``quantization_config`` for a target with this text model, its ignore list written out layer by layer."""
        if self.quantization_config is None:
            return None
        patterns = self.ignore + (self.with_experts if text_config["enable_moe_block"] else ())
        if not patterns:
            return dict(self.quantization_config)
        layers = range(text_config["num_hidden_layers"])
        written = dict.fromkeys(pattern.format(layer=layer) for pattern in patterns for layer in layers)
        return {**self.quantization_config, "ignore": list(written)}


@plain_dataclass(frozen=True)
class Draft:
    """One published draft: its config.json, and dtype and shape of every tensor of its file."""

    repository: str
    config: Mapping[str, Any]
    tensors: Mapping[str, tuple[str, Shape]]
    totals: Totals


@plain_dataclass(frozen=True)
class Target:
    """One published target: its text model's config, and the totals of its BF16 file."""

    repository: str
    architecture: str
    text_config: Mapping[str, Any]
    totals: Totals

    def text_model(self, quantisation: Quantisation) -> dict[str, Any]:
        """config.json of the target's text model alone, quantised or not.

        The published files hold vision and audio towers too, which vLLM cannot inspect without torchvision and which
        no draft reads.
        """
        config = {**self.text_config, "architectures": [TEXT_ARCHITECTURE]}
        quantised = quantisation.config(self.text_config)
        return config if quantised is None else config | {"quantization_config": quantised}


@plain_dataclass(frozen=True)
class Facts:
    """Drafts and targets by size ("E2B" … "31B"), quantisations by name; ``source`` is the folder they come from."""

    drafts: Mapping[str, Draft]
    targets: Mapping[str, Target]
    quantisations: Mapping[str, Quantisation]
    source: str = "fixtures/facts"


def load_facts(folder: Path = FIXTURES / "facts") -> Facts:
    """Everything known; raises UsageError naming file, key and mend."""
    drafts, targets = tables.read(folder / "drafts.toml", _Drafts), tables.read(folder / "targets.toml", _Targets)
    path = folder / "quantisations.toml"
    return Facts(
        {size: _draft(row, drafts.shared) for size, row in drafts.sizes.items()},
        {size: _target(row, targets.shared) for size, row in targets.sizes.items()},
        tables.convert(path, tables.parse(path), dict[str, Quantisation]),
    )


def _draft(row: _Draft, shared: _Shared) -> Draft:
    text = {**shared.text_config, **row.text_config, **dict.fromkeys(row.null)}
    config = {**(shared.config or {}), **row.config, "text_config": text}
    shapes = {**row.tensors, **dict(_of_layers(row.layers, text["layer_types"]))}
    return Draft(row.repository, config, {name: (_dtype(name), shape) for name, shape in shapes.items()}, row.totals)


def _target(row: _Target, shared: _Shared) -> Target:
    kinds = ([SLIDING] * (row.group - 1) + [FULL]) * row.groups
    text = {**shared.text_config, **row.text_config, **dict.fromkeys(row.null), "layer_types": kinds}
    return Target(row.repository, row.architecture, text, row.totals)


def _of_layers(layers: Layers, kinds: list[str]) -> Iterator[tuple[str, Shape]]:
    for number, kind in enumerate(kinds):
        for name, shape in {**layers.each, **(layers.full if kind == FULL else layers.sliding)}.items():
            yield f"model.layers.{number}.{name}", shape


def _dtype(name: str) -> str:
    """As safetensors writes it: the one table of integers, and BF16."""
    return "I64" if name == "masked_embedding.token_ordering" else "BF16"
