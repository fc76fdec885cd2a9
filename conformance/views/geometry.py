"""The draft at its published sizes: what this vLLM built, beside what the facts say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.checkpoints.draft_names import in_vllm
from conformance.errors import ObservationError, Unsupported
from conformance.profile.facts import Draft, Facts

EMBEDDING, HEAD = "model.embed_tokens", "lm_head"
BUILT, TENSOR = "built", "a tensor"


@dataclass(frozen=True)
class Layer:
    """A linear layer, embedding or output head: sizes, quantisation method, dtype and shape of its weight."""

    inputs: int
    outputs: int
    method: str
    weight: str
    embeds: bool

    @property
    def plain(self) -> str:
        """The weight of such a layer that is BF16 and not packed; an embedding has a row for each input."""
        shape = [self.inputs, self.outputs] if self.embeds else [self.outputs, self.inputs]
        return f"bfloat16 {shape}"


@dataclass(frozen=True)
class Build:
    """One draft: its layers by path, and the tensors that it expects of a checkpoint, or has of its own."""

    layers: Mapping[str, Layer]
    parameters: Mapping[str, str]
    buffers: frozenset[str]


@dataclass(frozen=True)
class Geometry:
    """The ``geometry`` observation; ``builds`` and ``failures`` by a name such as "26B-A4B under fp8"."""

    builds: Mapping[str, Build]
    failures: Mapping[str, str]
    unsupported: Mapping[str, str]
    drafts: Mapping[str, Draft]
    source: str = "observations/geometry.json"

    @classmethod
    def of(cls, document: Mapping[str, Any], facts: Facts) -> Self:
        """Read the observation.

        Raises Unsupported where this vLLM builds nothing at all, and ObservationError where a published combination
        was not asked for, or where vLLM did not see that the target is quantised, so that its build shows nothing.
        """
        builds, failures, unsupported, drafts = {}, {}, {}, {}
        for size, draft in facts.drafts.items():
            for configuration, quantisation in facts.quantisations.items():
                name = f"{size} under {configuration}"
                row = document["builds"].get(size, {}).get(configuration)
                if row is None:
                    raise ObservationError(f"{cls.source}: nothing is said of {name}")
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
                    raise ObservationError(f"{cls.source}: {name}: vLLM saw {seen} in the target, so it shows nothing")
                builds[name] = _build(row)
        if not drafts:
            raise Unsupported("; ".join(dict.fromkeys(unsupported.values())))
        if not builds:
            raise ObservationError(f"vLLM {document['vllm_version']} built no draft: {next(iter(failures.values()))}")
        return cls(builds, failures, unsupported, drafts)

    def outcomes(self) -> dict[str, str]:
        """For each combination that this vLLM configures, ``built`` or what it raised."""
        return dict.fromkeys(self.builds, BUILT) | dict(self.failures)

    def sizes(self) -> dict[str, str]:
        """Input and output size of every layer of every build."""
        return self._each(lambda layer: f"{layer.inputs} to {layer.outputs}")

    def published_sizes(self) -> dict[str, str]:
        """The same, as the published checkpoints have them."""
        return {f"{name}: {path}": sizes for name in self.builds for path, sizes in _published(self.drafts[name])}

    def weights(self) -> dict[str, str]:
        """Dtype and shape of every layer's weight."""
        return self._each(lambda layer: layer.weight)

    def plain_weights(self) -> dict[str, str]:
        """The same, as a BF16 weight of the layer's own sizes has them."""
        return self._each(lambda layer: layer.plain)

    def methods(self) -> dict[str, str]:
        """Class of every layer's quantisation method."""
        return self._each(lambda layer: layer.method)

    def dtypes(self) -> dict[str, str]:
        """Dtype of every parameter of every build."""
        return {f"{name}: {path}": d for name, build in self.builds.items() for path, d in build.parameters.items()}

    def tensors(self) -> dict[str, str]:
        """What the builds expect of a checkpoint; buffers that no checkpoint holds are vLLM's own."""
        found: dict[str, str] = {}
        for name, build in self.builds.items():
            known = build.buffers & set(_fused(self.drafts[name]))
            found |= dict.fromkeys((f"{name}: {path}" for path in (*build.parameters, *sorted(known))), TENSOR)
        return found

    def published_tensors(self) -> dict[str, str]:
        """The same, as the published checkpoints hold them once gate and up are one."""
        return {f"{name}: {path}": TENSOR for name in self.builds for path in _fused(self.drafts[name])}

    def left_out(self) -> str:
        """The combinations that this vLLM cannot configure, with its reasons; empty if it can all."""
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
    parameters = {name: held["dtype"] for name, held in row["tensors"].items() if held["kind"] == "parameter"}
    return Build(layers, parameters, frozenset(row["tensors"]) - parameters.keys())


def _fused(draft: Draft) -> dict[str, tuple[int, ...]]:
    """Shapes by the names that vLLM's draft has for them: projections inside the model, gate and up as one."""
    return in_vllm({name: shape for name, (_, shape) in draft.tensors.items()})


def _published(draft: Draft) -> Iterator[tuple[str, str]]:
    """Every layer with a matrix, and the output head, which the embedding lends its weight."""
    for name, shape in _fused(draft).items():
        if len(shape) != 2:
            continue
        rows, columns = shape
        path = name.removesuffix(".weight")
        if path == EMBEDDING:
            yield path, f"{rows} to {columns}"
            yield HEAD, f"{columns} to {rows}"
        else:
            yield path, f"{columns} to {rows}"
