"""What a run will be, before anything is started: who is served, in which memory, one server at a time or two."""

from __future__ import annotations

from conformance.harness.profile import Hardware, Profile, Sizes, soak_windows

UTILISATION = "--gpu-memory-utilization"


def as_text(profile: Profile) -> str:
    """A few lines, each a sentence."""
    hardware, pair = profile.hardware, profile.pair
    together = "both servers up together" if hardware.two_servers else "one server at a time"
    if profile.level == "soak":
        together = "the server with MTP alone"
    lines = [
        f"{pair.name} on {hardware.name}, level {profile.level}: {together}, environment {hardware.locked_environment}",
        f"target {pair.target}, draft {pair.draft}, k = {pair.k}",
    ]
    if pair.weights_gb is not None and hardware.memory_gb is not None:
        lines.append(_memory(pair.weights_gb, hardware.memory_gb * _utilisation(hardware), hardware))
    if profile.level == "soak":
        lines.append(_soak(profile.sizes))
    return "".join(f"{line}\n" for line in lines)


def _soak(sizes: Sizes) -> str:
    windows = soak_windows(sizes)
    return (
        f"{sizes.soak_at_once} requests at once for {sizes.soak_minutes:g} minutes, seen in {windows} windows of "
        f"{60 * sizes.soak_minutes / windows:.3g} s; before it the start of the server and what smoke looks at"
    )


def _memory(weights: float, usable: float, hardware: Hardware) -> str:
    whose = "that CPU and GPU share" if hardware.memory == "unified" else "of the GPU"
    share = f"{usable:.1f} GB of {hardware.memory_gb:g} GB {whose}"
    if weights >= usable:
        return f"{weights:g} GB of weights do not fit into {share}"
    return f"{weights:g} GB of weights in {share}, {usable - weights:.1f} GB for keys, values and activations"


def _utilisation(hardware: Hardware) -> float:
    words = hardware.serve_args
    return float(words[words.index(UTILISATION) + 1]) if UTILISATION in words else 1.0
