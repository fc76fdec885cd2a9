"""The weights that vLLM loaded into draft and target, from a snapshot inside the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from conformance.errors import ObservationError, Unsupported
from conformance.evidence.folder import Evidence
from conformance.observers.refusals import require_sound_pair
from conformance.profile.profile import Profile
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """Parameters and linear layers of both models; the shares of several workers are merged.

    Raises:
        ObservationError: the snapshot failed or lacks a model.
        Unsupported: this vLLM lacks a name that the probe needs.
    """
    require_sound_pair(profile, servers, evidence)
    with servers.exclusive():
        server, seconds = servers.mtp(), profile.hardware.bounds.request_seconds
        snapshots = ask_all(server, "conformance_snapshot", seconds)
    snapshots.sort(key=lambda each: int(each["rank"]))
    snapshot, models = snapshots[0], snapshots[0]["models"]
    if "draft" not in models or "target" not in models:
        raise ObservationError(f"the load snapshot holds {sorted(models)}, not target and draft", server.log_tail())
    return {
        "vllm_version": snapshot["vllm_version"],
        "draft": merge_workers([each["models"]["draft"] for each in snapshots]),
        "target": merge_workers([each["models"]["target"] for each in snapshots]),
    }


def merge_workers(models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One model from the shares of all workers: the shapes of the whole, and the hashes of the shares in their order.

    Parameters that every worker holds completely are those of the first worker.
    """
    first, parameters = models[0], dict(models[0]["parameters"])
    for name, row in first["parameters"].items():
        dimension = row.get("shared_out")
        if dimension is not None:
            rows = [model["parameters"][name] for model in models]
            shape = list(row["shape"])
            shape[dimension] = sum(each["shape"][dimension] for each in rows)
            parameters[name] = {**row, "shape": shape}
            if "sha256" in row:
                fused = [each.get("parts") or [each["sha256"]] for each in rows]
                parameters[name]["shares"] = [list(parts) for parts in zip(*fused, strict=True)]
    return {**first, "parameters": parameters}


def ask(server: Server, method: str, seconds: float, **arguments: Any) -> dict[str, Any]:
    """Call a method of the probe in the first worker.

    Raises:
        ObservationError: the probe gave no usable answer.
        Unsupported: this vLLM lacks a name that the probe needs.
    """
    return ask_all(server, method, seconds, **arguments)[0]


def ask_all(server: Server, method: str, seconds: float, **arguments: Any) -> list[dict[str, Any]]:
    """Call a method of the probe in every worker.

    Raises:
        ObservationError: the probe gave no usable answer.
        Unsupported: this vLLM lacks a name that the probe needs.
    """
    answers = server.call(method, seconds, **arguments)
    if not answers or not all(isinstance(answer, dict) for answer in answers):
        raise ObservationError(f"the probe answered {method} with {str(answers)[:200]}", server.log_tail())
    for answer in answers:
        if "unsupported" in answer:
            raise Unsupported(str(answer["unsupported"]))
    return answers
