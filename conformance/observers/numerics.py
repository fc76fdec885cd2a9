"""The outputs of single modules of the running server for fixed inputs, beside their reference.

The reference is computed in float32 on the GPU, if there is one with room, and one layer of it on the CPU as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from conformance.checkpoints.headers import draft_folder, target_folder
from conformance.errors import ObservationError
from conformance.evidence.folder import Evidence
from conformance.observers.draft_load import ask
from conformance.observers.refusals import require_sound_pair
from conformance.profile.profile import Profile
from conformance.profile.tolerances import load_tolerances
from conformance.reference import modules
from conformance.reference.numeric_error import deviation
from conformance.serving.pool import ServerPool

CPU = "cpu"
ROOM_BYTES = 12 << 30  # a layer of 26B-A4B has experts of 3 GiB in float32, which are gathered once more

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
    device = reference_device(profile)
    with full_precision():
        return compare(found, target_folder(profile.pair), draft_folder(profile.pair), device)


def reference_device(profile: Profile) -> str:
    """The GPU, if servers may share its memory with others and it has room for a layer; else the CPU."""
    if not (profile.hardware.loads_beside and torch.cuda.is_available()):
        return CPU
    free, _ = torch.cuda.mem_get_info()
    return "cuda" if free > ROOM_BYTES else CPU


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply float32 matrices without TF32, and leave no memory of the GPU allocated."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def spread_layers(count: int, wanted: int) -> tuple[int, ...]:
    """Numbers of ``wanted`` layers, including the first and the last, or of all if there are no more."""
    if wanted >= count:
        return tuple(range(count))
    return tuple(sorted({round(place * (count - 1) / max(1, wanted - 1)) for place in range(wanted)}))


def compare(found: Mapping[str, Any], target_path: Path, draft_path: Path, device: str = CPU) -> dict[str, Any]:
    """The probe's answer with its reference; parts that this vLLM does not support stay as they are.

    Raises:
        ObservationError: the reference of the first layer differs between the device and the CPU.
    """
    target, draft = modules.weights(target_path, device), modules.weights(draft_path, device)
    target.choose_threads()
    mixed: Outputs = found["experts"]
    told = mixed if "unsupported" not in mixed else {}

    def part(name: str) -> Outputs:
        return {layer: each[name] for layer, each in told.items()} if told else mixed

    compared = {
        "vllm_version": found["vllm_version"],
        "reference": device,
        "backends": part("backend") if told else {},
        "draft_linears": _beside(found["draft_linears"], lambda name: modules.draft_linear(draft, name)),
        "draft_mlps": _beside(found["draft_mlps"], lambda name: modules.draft_mlp(draft, name)),
        "routers": _beside(part("router"), lambda name: modules.router(target, _number(name), name)),
        "experts": _beside(part("experts"), lambda name: modules.experts(target, _number(name), name)),
    }
    if device != CPU and told:
        first = next(iter(told))
        twice = modules.experts(modules.weights(target_path), _number(first), first)
        _require_agreement(first, device, compared["experts"][first]["expected"], twice)
    return compared


def _require_agreement(layer: str, device: str, one: modules.Shown, other: modules.Shown) -> None:
    """Require that two devices compute the same reference, but for the order of their sums.

    Raises:
        ObservationError: they do not.
    """
    error, allowed = deviation(one, other).error, load_tolerances()["reference_devices"]
    if not error <= allowed:  # NaN is no agreement
        raise ObservationError(
            f"the reference of {layer} on {device} is {100 * error:.3g} % off the one on the CPU, more than "
            f"{100 * allowed:g} %, so it says nothing about the server"
        )


def _number(layer: str) -> int:
    """The number of a decoder layer, from its name in vLLM."""
    return int(layer.rpartition(".")[2])


def _beside(found: Outputs | None, expected: Callable[[str], modules.Shown]) -> dict[str, Any]:
    if found is None or "unsupported" in found:
        return dict(found or {})
    return {name: {"found": shown, "expected": expected(name)} for name, shown in found.items()}
