"""The draft at its published sizes: what this vLLM builds, compared with the facts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.checkpoints.draft_names import in_vllm
from conformance.errors import ObservationError, Unsupported
from conformance.profile.facts import Draft, Facts

EMBEDDING, HEAD = "model.embed_tokens", "lm_head"
BUILT, TENSOR = "built", "a tensor"
# Attention's scales of the KV cache, one number each, which vLLM sets itself where the checkpoint has none. The draft
# reads the target's cache, so its attention may know them: vLLM 0.21 to 0.24 register them as parameters.
CACHE_SCALE = re.compile(r"\.attn\.((q|k|v|prob)_scale|[qkv]_zero_point)$")


@dataclass(frozen=True)
class Layer:
    """A linear layer, embedding or output head: its sizes, quantisation method, and dtype and shape of its weight."""

    inputs: int
    outputs: int
    method: str
    weight: str
    embeds: bool

    @property
    def plain(self) -> str:
        """The weight of this layer in unpacked BF16; an embedding has a row for each input."""
        shape = [self.inputs, self.outputs] if self.embeds else [self.outputs, self.inputs]
        return f"bfloat16 {shape}"


@dataclass(frozen=True)
class Build:
    """One draft: its layers by path, the tensors that it expects from a checkpoint, and its own buffers."""

    layers: Mapping[str, Layer]
    parameters: Mapping[str, str]
    buffers: frozenset[str]


@dataclass(frozen=True)
class Geometry:
    """The ``geometry`` observation; the keys are names such as "26B-A4B under fp8"."""

    builds: Mapping[str, Build]
    failures: Mapping[str, str]
    unsupported: Mapping[str, str]
    drafts: Mapping[str, Draft]
    source: str = "observations/geometry.json"

    @classmethod
    def of(cls, document: Mapping[str, Any], facts: Facts) -> Self:
        """Read the observation.

        Raises:
            Unsupported: this vLLM can configure none of the combinations.
            ObservationError: a published combination is missing, vLLM did not recognise the target's quantisation, or
                vLLM built no draft.
        """
        builds, failures, unsupported, drafts = {}, {}, {}, {}
        for size, draft in facts.drafts.items():
            for configuration, quantisation in facts.quantisations.items():
                name = f"{size} under {configuration}"
                row = document["builds"].get(size, {}).get(configuration)
                if row is None:
                    raise ObservationError(f"{cls.source}: there is no row for {name}")
                if "unsupported" in row:
                    unsupported[name] = row["unsupported"]
                    continue
                drafts[name] = draft
                if "error" in row:
                    failures[name] = row["error"]
                    continue
                quantised = quantisation.quantization_config is not None
                if bool(row["target_quantisation"]) != quantised:
                    seen = row["target_quantisation"] or "no quantisation"
                    raise ObservationError(
                        f"{cls.source}: {name}: vLLM saw {seen} in the target, so the build proves nothing"
                    )
                builds[name] = _build(row)
        if not drafts:
            raise Unsupported("; ".join(dict.fromkeys(unsupported.values())))
        if not builds:
            raise ObservationError(f"vLLM {document['vllm_version']} built no draft: {next(iter(failures.values()))}")
        return cls(builds, failures, unsupported, drafts)

    def outcomes(self) -> dict[str, str]:
        """For each combination that this vLLM can configure, ``built`` or the exception of the build."""
        return dict.fromkeys(self.builds, BUILT) | dict(self.failures)

    def sizes(self) -> dict[str, str]:
        """The input and output size of every layer of every build."""
        return self._each(lambda layer: f"{layer.inputs} to {layer.outputs}")

    def published_sizes(self) -> dict[str, str]:
        """The same sizes in the published checkpoints."""
        return {f"{name}: {path}": sizes for name in self.builds for path, sizes in _published_sizes(self.drafts[name])}

    def weights(self) -> dict[str, str]:
        """The dtype and shape of every layer's weight."""
        return self._each(lambda layer: layer.weight)

    def plain_weights(self) -> dict[str, str]:
        """The same for unpacked BF16 weights of each layer's sizes."""
        return self._each(lambda layer: layer.plain)

    def methods(self) -> dict[str, str]:
        """The class of every layer's quantisation method."""
        return self._each(lambda layer: layer.method)

    def dtypes(self) -> dict[str, str]:
        """The dtype of every parameter of every build."""
        return {f"{name}: {path}": d for name, build in self.builds.items() for path, d in build.parameters.items()}

    def tensors(self) -> dict[str, str]:
        """The tensors that the builds expect from a checkpoint, without vLLM's own buffers."""
        found: dict[str, str] = {}
        for name, build in self.builds.items():
            known = build.buffers & set(_fused_shapes(self.drafts[name]))
            found |= dict.fromkeys((f"{name}: {path}" for path in (*build.parameters, *sorted(known))), TENSOR)
        return found

    def published_tensors(self) -> dict[str, str]:
        """The same tensors in the published checkpoints, with gate and up fused."""
        return {f"{name}: {path}": TENSOR for name in self.builds for path in _fused_shapes(self.drafts[name])}

    def left_out(self) -> str:
        """The combinations that this vLLM cannot configure, with the reasons; empty if there are none."""
        return "; ".join(f"{name} is unsupported: {reason}" for name, reason in self.unsupported.items())

    def _each(self, value: Callable[[Layer], str]) -> dict[str, str]:
        return {
            f"{name}: {path}": value(layer)
            for name, build in self.builds.items()
            for path, layer in build.layers.items()
        }


def _build(row: Mapping[str, Any]) -> Build:
    tensors = {own: held for name, held in row["tensors"].items() for own in (name, *held["aliases"])}
    layers = {}
    for path, layer in row["layers"].items():
        held = tensors.get(f"{path}.weight")
        weight = f"{held['dtype']} {held['shape']}" if held else "no weight"
        layers[path] = Layer(layer["in"], layer["out"], layer["quant_method"], weight, path == EMBEDDING)
    own = {name for name, held in row["tensors"].items() if CACHE_SCALE.search(name) and held["shape"] in ([], [1])}
    parameters = {
        name: held["dtype"] for name, held in row["tensors"].items() if held["kind"] == "parameter" and name not in own
    }
    return Build(layers, parameters, frozenset(row["tensors"]) - parameters.keys())


def _fused_shapes(draft: Draft) -> dict[str, tuple[int, ...]]:
    """The shapes by their names in vLLM's draft: projections are inside the model, gate and up are fused."""
    return in_vllm({name: shape for name, (_, shape) in draft.tensors.items()})


def _published_sizes(draft: Draft) -> Iterator[tuple[str, str]]:
    """The path and sizes of every layer with a matrix, and of the output head, which shares the embedding's weight."""
    for name, shape in _fused_shapes(draft).items():
        if len(shape) != 2:
            continue
        rows, columns = shape
        path = name.removesuffix(".weight")
        if path == EMBEDDING:
            yield path, f"{rows} to {columns}"
            yield HEAD, f"{columns} to {rows}"
        else:
            yield path, f"{columns} to {rows}"
