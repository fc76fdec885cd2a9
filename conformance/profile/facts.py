"""Facts about the published Gemma 4 checkpoints, from ``fixtures/facts``: configs, tensors, totals, layouts.

Checks compare builds and files with these facts. Each table says how certain it is and where it comes from.
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
GENERATIONS = ("T0", "T1", "T2")  # of the chat template, oldest first
EMPTY_THOUGHT = "<|channel>thought\n<channel|>"
TEXT_ARCHITECTURE = "Gemma4ForCausalLM"
Flag = Literal["certain", "likely", "uncertain"]
Shape = tuple[int, ...]


@dataclass(frozen=True, config=STRICT)
class Totals:
    """Totals of a checkpoint: tensors, floating-point parameters, and the bytes of all tensors if known."""

    tensors: int
    parameters: int
    bytes: int | None = None


@dataclass(frozen=True, config=STRICT)
class Layers:
    """Shapes by name within a layer: those in every layer, and those in one kind of layer."""

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
class Multimodal:
    """What the published config.json holds around its text model."""

    video_token_id: int
    vision_config: Mapping[str, Any]
    audio_config: Mapping[str, Any] | None = None
    use_bidirectional_attention: str | None = None  # a key of text_config that only images change


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
    multimodal: str = ""  # which of the tables that sizes share is around its text model, if that is known


@dataclass(frozen=True, config=STRICT)
class _Shared:
    text_config: Mapping[str, Any]
    config: Mapping[str, Any] | None = None
    multimodal: Mapping[str, Multimodal] | None = None


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
    """Ids of special tokens, and the names of those that end generation or must not be generated."""

    stop: tuple[str, ...]
    suppress: tuple[str, ...]
    suppress_certain: tuple[str, ...]
    ids: Mapping[str, int]
    multimodal: Mapping[str, Mapping[str, int]]

    def of(self, size: str) -> dict[str, int]:
        """The token ids of a published size, or of a miniature."""
        return {**self.ids, **self.multimodal.get(size, self.multimodal["published"])}


@dataclass(frozen=True, config=STRICT)
class Case:
    """One conversation and its renders by the generations of the chat template; ``any`` is the render of all."""

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
        """The render by that generation, with or without the empty thought; None if it is not known."""
        known: str | None = self.any if self.any is not None else getattr(self, generation)
        thought = EMPTY_THOUGHT if self.then_empty_thought and empty_thought else ""
        return None if known is None else known + thought


@dataclass(frozen=True, config=STRICT)
class ChatTemplate:
    """Goldens of all generations. ``sha256`` holds known templates, ``empty_thought`` the sizes that have one."""

    empty_thought: tuple[str, ...]
    sha256: Mapping[str, str]
    case: tuple[Case, ...]

    def goldens(self, generation: str, empty_thought: bool) -> dict[str, str]:
        """The known renders of a generation, by the id of the case."""
        renders = {case.id: case.render(generation, empty_thought) for case in self.case}
        return {id: render for id, render in renders.items() if render is not None}


@dataclass(frozen=True, config=STRICT)
class Quantisation:
    """How a publisher quantises a target. An unquantised target has no ``quantization_config``."""

    flag: Flag
    source: str
    ignore: tuple[str, ...] = ()
    with_experts: tuple[str, ...] = ()
    quantization_config: Mapping[str, Any] | None = None

    def config(self, text_config: Mapping[str, Any]) -> dict[str, Any] | None:
        """The ``quantization_config`` of a target with this text model; its ignore list names every layer."""
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
    """One published draft: its config.json, and the dtype and shape of every tensor in its file."""

    repository: str
    config: Mapping[str, Any]
    tensors: Mapping[str, tuple[str, Shape]]
    totals: Totals


@plain_dataclass(frozen=True)
class Target:
    """One published target: the config of its text model, and the totals of its BF16 file.

    ``quantised_linears`` counts the linear layers that its NVFP4 file quantises, by method, if that is known.
    ``multimodal`` is what surrounds the text model, if that is known.
    """

    repository: str
    flag: Flag
    architecture: str
    text_config: Mapping[str, Any]
    totals: Totals
    quantised_linears: Mapping[str, int]
    multimodal: Multimodal | None = None

    def text_model(self, quantisation: Quantisation) -> dict[str, Any]:
        """The config.json of the target's text model without other modalities, quantised or not.

        The published files also hold vision and audio towers. vLLM cannot inspect them without torchvision, and no
        draft reads them.
        """
        config = {**self.text_config, "architectures": [TEXT_ARCHITECTURE]}
        quantised = quantisation.config(self.text_config)
        return config if quantised is None else config | {"quantization_config": quantised}


@plain_dataclass(frozen=True)
class Facts:
    """Drafts and targets by size ("E2B" … "31B"), quantisations by name, and the embedded miniatures by name."""

    drafts: Mapping[str, Draft]
    targets: Mapping[str, Target]
    quantisations: Mapping[str, Quantisation]
    miniatures: Mapping[str, tuple[Draft, Target]]
    tokens: Tokens
    chat_template: ChatTemplate

    def known_draft(self, config: Mapping[str, Any]) -> str | None:
        """The size of the draft with this config.json, found by its widths; None for an unknown draft."""
        width = (text_of(config).get("hidden_size"), config.get("backbone_hidden_size"))
        return next((size for size, it in self._drafts().items() if _draft_widths(it) == width), None)

    def known_target(self, config: Mapping[str, Any]) -> str | None:
        """The size of the target with this config.json, found by width and depth; None for an unknown target."""
        text = text_of(config)
        known = {**self.targets, **{name: target for name, (_, target) in self.miniatures.items()}}
        keys = ("hidden_size", "num_hidden_layers")
        return next((s for s, it in known.items() if all(it.text_config[k] == text.get(k) for k in keys)), None)

    def draft(self, size: str) -> Draft:
        """The draft of a published size, or of a miniature."""
        return self._drafts()[size]

    def target(self, size: str) -> Target:
        """The target of a published size, or of a miniature."""
        return self.miniatures[size][1] if size in self.miniatures else self.targets[size]

    def _drafts(self) -> dict[str, Draft]:
        return {**self.drafts, **{name: draft for name, (draft, _) in self.miniatures.items()}}


def text_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config.json that describes the text model, which may be the whole file."""
    nested = config.get("text_config")
    return nested if isinstance(nested, Mapping) else config


def load_facts(folder: Path = FIXTURES / "facts") -> Facts:
    """All facts.

    Raises:
        UsageError: a file of facts is wrong; the sentence names the file, the key and the mend.
    """
    drafts, targets = (
        toml_tables.read(folder / "drafts.toml", _Drafts),
        toml_tables.read(folder / "targets.toml", _Targets),
    )
    small = {path.stem: toml_tables.read(path, _Miniature) for path in sorted((folder / "miniatures").glob("*.toml"))}
    path, alone = folder / "quantisations.toml", _Shared({})
    return Facts(
        {size: _draft(row, drafts.shared) for size, row in drafts.sizes.items()},
        {size: _target(row, targets.shared) for size, row in targets.sizes.items()},
        toml_tables.convert(path, toml_tables.parse(path), dict[str, Quantisation]),
        {name: (_draft(row.draft, alone), _target(row.target, alone)) for name, row in small.items()},
        toml_tables.read(folder / "tokens.toml", Tokens),
        toml_tables.read(folder / "chat_template.toml", ChatTemplate),
    )


def _draft_widths(draft: Draft) -> tuple[Any, Any]:
    return draft.config["text_config"]["hidden_size"], draft.config["backbone_hidden_size"]


def _draft(row: _Draft, shared: _Shared) -> Draft:
    text = {**shared.text_config, **row.text_config, **dict.fromkeys(row.null)}
    config = {**(shared.config or {}), **row.config, "text_config": text}
    shapes = {**row.tensors, **dict(_layer_shapes(row.layers, text["layer_types"]))}
    return Draft(row.repository, config, {name: (_dtype(name), shape) for name, shape in shapes.items()}, row.totals)


def _target(row: _Target, shared: _Shared) -> Target:
    kinds = ([SLIDING] * (row.group - 1) + [FULL]) * row.groups
    text = {**shared.text_config, **row.text_config, **dict.fromkeys(row.null), "layer_types": kinds}
    around = (shared.multimodal or {}).get(row.multimodal)
    return Target(row.repository, row.flag, row.architecture, text, row.totals, row.quantised_linears or {}, around)


def _layer_shapes(layers: Layers, kinds: list[str]) -> Iterator[tuple[str, Shape]]:
    for number, kind in enumerate(kinds):
        for name, shape in {**layers.each, **(layers.full if kind == FULL else layers.sliding)}.items():
            yield f"model.layers.{number}.{name}", shape


def _dtype(name: str) -> str:
    """The dtype as safetensors writes it: I64 for the only table of integers, BF16 for the rest."""
    return "I64" if name == "masked_embedding.token_ordering" else "BF16"
