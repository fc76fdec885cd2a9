"""The plan of a run before it starts: the pair, its memory, and how many samples the floors need."""

from __future__ import annotations

from typing import Any

from conformance.judging import sample_size
from conformance.judging.verdict import UNQUALIFYING
from conformance.profile.floors import Floors
from conformance.profile.profile import Hardware, Profile, Sizes, soak_windows
from conformance.reports.progress import duration
from conformance.reports.sanitize import json_text

FORMAT = 1


def as_text(profile: Profile, floors: Floors, last_seconds: float | None = None) -> str:
    """A few lines, each a sentence; ``last_seconds`` is what the last run of this kind took on this machine."""
    hardware, pair = profile.hardware, profile.pair
    together = "both servers at the same time" if hardware.two_servers else "one server at a time"
    if profile.level == "soak":
        together = "only the server with MTP" + (", and at last both for their energy" if hardware.sm else "")
    lines = [
        f"{pair.name} on {hardware.name}, level {profile.level}: {together}, environment {hardware.locked_environment}",
        f"target {pair.target}, draft {pair.draft}, k = {pair.k}",
        *_memory(profile),
    ]
    if profile.level == "soak":
        lines.append(_soak(profile.sizes))
    last = "" if last_seconds is None else f"the last run on this machine took {duration(last_seconds)}\n"
    return "".join(f"{line}\n" for line in lines) + _floors(profile, floors) + last


def _soak(sizes: Sizes) -> str:
    windows = soak_windows(sizes)
    return (
        f"{sizes.soak_at_once} requests at once for {sizes.soak_minutes:g} minutes, in {windows} windows of "
        f"{60 * sizes.soak_minutes / windows:.3g} s, after the start of the server and the checks of level smoke"
    )


def as_json(profile: Profile, floors: Floors, last_seconds: float | None = None) -> str:
    """The same for programs; an unknown value is null."""
    hardware, pair, plans = profile.hardware, profile.pair, _judged(profile, floors)
    document = {
        "format": FORMAT,
        **{"hardware": hardware.name, "pair": pair.name, "level": profile.level},
        "environment": hardware.locked_environment,
        "two_servers": hardware.two_servers,
        **{"target": pair.target, "draft": pair.draft, "k": pair.k},
        **{"memory": hardware.memory, "usable_gb": _usable(hardware), "weights_gb": pair.weights_gb},
        "soak_minutes": profile.sizes.soak_minutes if profile.level == "soak" else None,
        "looks": profile.sizes.looks,
        "last_run_seconds": last_seconds,
        "first_look_seconds": sample_size.first_look(plans),
        "floors": [_row(each) for each in plans],
    }
    return json_text(document)


def _judged(profile: Profile, floors: Floors) -> list[sample_size.Plan]:
    """The floors that the level judges, each with the samples it needs."""
    return [] if profile.level in UNQUALIFYING else sample_size.plan(floors, profile.sizes)


def _floors(profile: Profile, floors: Floors) -> str:
    if profile.level in UNQUALIFYING:
        return f"level {profile.level} judges no floor\n"
    if not _judged(profile, floors):
        return f"no floors: there are no published figures for {profile.pair.name} on {profile.hardware.name}\n"
    return sample_size.as_text(_judged(profile, floors), profile.sizes.looks)


def _row(each: sample_size.Plan) -> dict[str, Any]:
    floor = each.floor
    return {
        "name": each.name,
        **{"floor": floor.bound, "expected": floor.expected, "spread": floor.spread},
        **{"samples": each.sampling.unit, "taken": each.taken, "needed": each.needed, "seconds": each.seconds},
    }


def _memory(profile: Profile) -> list[str]:
    hardware, weights, usable = profile.hardware, profile.pair.weights_gb, _usable(profile.hardware)
    if weights is None or usable is None:
        return []
    whose = "that CPU and GPU share" if hardware.memory == "unified" else "of the GPU"
    share = f"{usable:.1f} GB of {hardware.memory_gb:g} GB {whose}"
    if weights >= usable:
        return [f"{weights:g} GB of weights do not fit into {share}"]
    return [f"{weights:g} GB of weights in {share}, {usable - weights:.1f} GB for keys, values and activations"]


def _usable(hardware: Hardware) -> float | None:
    """The memory that vLLM may use, in GB."""
    return None if hardware.memory_gb is None else hardware.memory_gb * hardware.memory_share
