"""The outputs of single modules of the running server for fixed inputs, beside their reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from conformance.checkpoints.headers import draft_folder, target_folder
from conformance.evidence.folder import Evidence
from conformance.observers.draft_load import ask
from conformance.observers.refusals import require_sound_pair
from conformance.profile.profile import Profile
from conformance.reference import modules
from conformance.reference.modules import Weights
from conformance.serving.pool import ServerPool

Outputs = Mapping[str, Any]


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """The outputs of the draft's linears and MLPs and of some MoE layers, and their reference in the same columns."""
    require_sound_pair(profile, servers, evidence)
    target = modules.weights(target_folder(profile.pair))
    layers = spread_layers(int(target.text["num_hidden_layers"]), profile.sizes.moe_layers)
    with servers.exclusive():
        seconds = profile.hardware.bounds.request_seconds
        found = ask(servers.mtp(), "conformance_numerics", seconds, layers=list(layers))
    if not target.text.get("enable_moe_block"):
        found["experts"] = {"unsupported": f"The target of {profile.pair.name} has no experts."}
    return compare(found, target, modules.weights(draft_folder(profile.pair)))


def spread_layers(count: int, wanted: int) -> tuple[int, ...]:
    """Numbers of ``wanted`` layers, including the first and the last, or of all if there are no more."""
    if wanted >= count:
        return tuple(range(count))
    return tuple(sorted({round(place * (count - 1) / max(1, wanted - 1)) for place in range(wanted)}))


def compare(found: Mapping[str, Any], target: Weights, draft: Weights) -> dict[str, Any]:
    """The probe's answer with its reference; parts that this vLLM does not support stay as they are."""
    target.choose_threads()
    mixed: Outputs = found["experts"]
    told = mixed if "unsupported" not in mixed else {}

    def part(name: str) -> Outputs:
        return {layer: each[name] for layer, each in told.items()} if told else mixed

    return {
        "vllm_version": found["vllm_version"],
        "backends": part("backend") if told else {},
        "draft_linears": _beside(found["draft_linears"], lambda name: modules.draft_linear(draft, name)),
        "draft_mlps": _beside(found["draft_mlps"], lambda name: modules.draft_mlp(draft, name)),
        "routers": _beside(part("router"), lambda name: modules.router(target, _number(name), name)),
        "experts": _beside(part("experts"), lambda name: modules.experts(target, _number(name), name)),
    }


def _number(layer: str) -> int:
    """The number of a decoder layer, from its name in vLLM."""
    return int(layer.rpartition(".")[2])


def _beside(found: Outputs | None, expected: Callable[[str], modules.Shown]) -> dict[str, Any]:
    if found is None or "unsupported" in found:
        return dict(found or {})
    return {name: {"found": shown, "expected": expected(name)} for name, shown in found.items()}
