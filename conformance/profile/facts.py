"""What is known of the published Gemma 4 checkpoints, from ``fixtures/facts``: configs, tensors, totals, layouts.

Facts are what checks hold builds and files against. Each table says how certain it is and where it comes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from conformance import FIXTURES
from conformance.formats import toml_tables
from conformance.formats.toml_tables import STRICT

SLIDING, FULL = "sliding_attention", "full_attention"
MINIATURE = "micro-26b-a4b"
GENERATIONS = ("T0", "T1", "T2")  # of the chat template, oldest first
EMPTY_THOUGHT = "<|channel>thought\n<channel|>"
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
    quantised_linears: Mapping[str, int] | None = None


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
class _Miniature:
    draft: _Draft
    target: _Target


@dataclass(frozen=True, config=STRICT)
class Tokens:
    """Special tokens by id, and the names of those that end generation or must not be emitted."""

    stop: tuple[str, ...]
    suppress: tuple[str, ...]
    suppress_certain: tuple[str, ...]
    ids: Mapping[str, int]
    multimodal: Mapping[str, Mapping[str, int]]

    def of(self, size: str) -> dict[str, int]:
        """Those of a published size, or of the miniature."""
        return {**self.ids, **self.multimodal.get(size, self.multimodal["published"])}


@dataclass(frozen=True, config=STRICT)
class Case:
    """One conversation, and its render by generations of the chat template; ``any`` holds for all of them."""

    id: str
    messages: str
    options: Mapping[str, bool] = field(default_factory=dict)
    tools: str = "[]"
    any: str | None = None
    T0: str | None = None
    T1: str | None = None
    T2: str | None = None
    then_empty_thought: bool = False

    def render(self, generation: str, empty_thought: bool) -> str | None:
        """What that generation makes of it, with or without the empty thought; None where nobody has seen it."""
        known: str | None = self.any if self.any is not None else getattr(self, generation)
        thought = EMPTY_THOUGHT if self.then_empty_thought and empty_thought else ""
        return None if known is None else known + thought


@dataclass(frozen=True, config=STRICT)
class ChatTemplate:
    """The goldens of all generations; ``sha256`` are templates that were seen, ``empty_thought`` sizes."""

    empty_thought: tuple[str, ...]
    sha256: Mapping[str, str]
    case: tuple[Case, ...]

    def goldens(self, generation: str, empty_thought: bool) -> dict[str, str]:
        """Render of every case that is known for a generation, by the case's id."""
        renders = {case.id: case.render(generation, empty_thought) for case in self.case}
        return {id: render for id, render in renders.items() if render is not None}


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
    """One published target: its text model's config, and the totals of its BF16 file.

    ``quantised_linears`` counts the linears that its NVFP4 file quantises, by method where that is known.
    """

    repository: str
    flag: Flag
    architecture: str
    text_config: Mapping[str, Any]
    totals: Totals
    quantised_linears: Mapping[str, int]

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
    """Drafts and targets by size ("E2B" … "31B"), quantisations by name; the embedded miniature apart from them."""

    drafts: Mapping[str, Draft]
    targets: Mapping[str, Target]
    quantisations: Mapping[str, Quantisation]
    miniature: tuple[Draft, Target]
    tokens: Tokens
    chat_template: ChatTemplate

    def known_draft(self, config: Mapping[str, Any]) -> str | None:
        """The size of a draft with this config.json, judged by its widths; None for none that is known."""
        width = (text_of(config).get("hidden_size"), config.get("backbone_hidden_size"))
        known = {**self.drafts, MINIATURE: self.miniature[0]}
        return next((size for size, it in known.items() if _draft_widths(it) == width), None)

    def known_target(self, config: Mapping[str, Any]) -> str | None:
        """The size of a target with this config.json, judged by width and depth; None for none that is known."""
        text = text_of(config)
        known = {**self.targets, MINIATURE: self.miniature[1]}
        keys = ("hidden_size", "num_hidden_layers")
        return next((s for s, it in known.items() if all(it.text_config[k] == text.get(k) for k in keys)), None)

    def draft(self, size: str) -> Draft:
        """That of a published size, or the miniature's."""
        return self.miniature[0] if size == MINIATURE else self.drafts[size]

    def target(self, size: str) -> Target:
        """That of a published size, or the miniature's."""
        return self.miniature[1] if size == MINIATURE else self.targets[size]


def text_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The text model's part of a config.json, which may be all of it."""
    nested = config.get("text_config")
    return nested if isinstance(nested, Mapping) else config


def load_facts(folder: Path = FIXTURES / "facts") -> Facts:
    """Everything known; raises UsageError naming file, key and mend."""
    drafts, targets = (
        toml_tables.read(folder / "drafts.toml", _Drafts),
        toml_tables.read(folder / "targets.toml", _Targets),
    )
    small = toml_tables.read(folder / "miniature.toml", _Miniature)
    path, alone = folder / "quantisations.toml", _Shared({})
    return Facts(
        {size: _draft(row, drafts.shared) for size, row in drafts.sizes.items()},
        {size: _target(row, targets.shared) for size, row in targets.sizes.items()},
        toml_tables.convert(path, toml_tables.parse(path), dict[str, Quantisation]),
        (_draft(small.draft, alone), _target(small.target, alone)),
        toml_tables.read(folder / "tokens.toml", Tokens),
        toml_tables.read(folder / "chat_template.toml", ChatTemplate),
    )


def _draft_widths(draft: Draft) -> tuple[Any, Any]:
    return draft.config["text_config"]["hidden_size"], draft.config["backbone_hidden_size"]


def _draft(row: _Draft, shared: _Shared) -> Draft:
    text = {**shared.text_config, **row.text_config, **dict.fromkeys(row.null)}
    config = {**(shared.config or {}), **row.config, "text_config": text}
    shapes = {**row.tensors, **dict(_of_layers(row.layers, text["layer_types"]))}
    return Draft(row.repository, config, {name: (_dtype(name), shape) for name, shape in shapes.items()}, row.totals)


def _target(row: _Target, shared: _Shared) -> Target:
    kinds = ([SLIDING] * (row.group - 1) + [FULL]) * row.groups
    text = {**shared.text_config, **row.text_config, **dict.fromkeys(row.null), "layer_types": kinds}
    return Target(row.repository, row.flag, row.architecture, text, row.totals, row.quantised_linears or {})


def _of_layers(layers: Layers, kinds: list[str]) -> Iterator[tuple[str, Shape]]:
    for number, kind in enumerate(kinds):
        for name, shape in {**layers.each, **(layers.full if kind == FULL else layers.sliding)}.items():
            yield f"model.layers.{number}.{name}", shape


def _dtype(name: str) -> str:
    """As safetensors writes it: the one table of integers, and BF16."""
    return "I64" if name == "masked_embedding.token_ordering" else "BF16"
