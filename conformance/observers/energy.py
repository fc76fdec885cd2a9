"""The energy that a load takes with MTP and without: joules of every GPU and tokens, window by window."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from conformance.errors import ObservationError, Unsupported
from conformance.evidence.folder import Evidence
from conformance.observers.load import cut
from conformance.observers.refusals import require_sound_pair
from conformance.observers.soak import Crowd, describe_gpu
from conformance.profile import gpus
from conformance.profile.arms import MTP, PLAIN
from conformance.profile.gpus import Sensors
from conformance.profile.profile import Profile
from conformance.serving.metrics import generated_tokens
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.workload.client import client
from conformance.workload.prompts import MIXED, Prompt, load_prompts, spread

LOOK_SECONDS = 1.0  # between two readings of the sensors
RAMP_SECONDS = 2.0  # after which all requests of a window run

Sense = Callable[[], list[Sensors]]


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """The windows of both servers, which take turns where both fit.

    Raises:
        ObservationError: a server failed, or the level asks for nothing.
        Unsupported: there is no server without MTP, or no GPU of this machine tells its energy or power.
    """
    sizes = profile.sizes
    if not (sizes.energy_windows and sizes.energy_seconds):
        raise ObservationError(f"level {profile.level} asks nothing: set energy_… in fixtures/levels.toml")
    if not servers.on_this_machine:
        raise Unsupported("The servers run on another machine, whose sensors are not read.")
    with gpus.sensors() as sense:
        if not any(each.energy_j is not None or each.power_w is not None for each in sense()):
            raise Unsupported(f"No GPU tells its energy or its power ({gpus.look()}).")
        require_sound_pair(profile, servers, evidence)
        chosen = spread(load_prompts(profile.prompts / MIXED), sizes.soak_prompts)
        prompts = [cut(prompt, sizes.longest_answer) for prompt in chosen]
        with servers.quiet():
            windows = [_window(profile, server, prompts, arm, sense) for arm, server in _turns(profile, servers)]
    return {"at_once": sizes.soak_at_once, "gpus": str(gpus.look()), "windows": windows}


def _turns(profile: Profile, servers: ServerPool) -> Iterator[tuple[str, Server]]:
    """An arm and its server for each window: in turns if both fit, else first all windows without MTP."""
    start, count = {PLAIN: servers.plain, MTP: servers.mtp}, profile.sizes.energy_windows
    order = [arm for number in range(count) for arm in (list(start) if number % 2 == 0 else list(reversed(start)))]
    for arm in order if profile.hardware.two_servers else sorted(order, reverse=True):
        servers.tell(f"energy: {'with' if arm == MTP else 'without'} MTP")
        yield arm, start[arm]()


def _window(profile: Profile, server: Server, prompts: Sequence[Prompt], arm: str, sense: Sense) -> dict[str, Any]:
    """Hold the load for one window; what the GPUs did before all requests ran is not counted.

    Raises:
        ObservationError: a request failed, or the server does not answer.
    """
    sizes = profile.sizes
    with ExitStack() as opened:
        asking = opened.enter_context(client(server, profile.hardware.bounds.request_seconds))
        crowd = opened.enter_context(Crowd(asking, prompts, sizes.soak_at_once))
        time.sleep(RAMP_SECONDS)
        first, tokens, begin = sense(), generated_tokens(server), time.monotonic()
        looks = list(_looks(sense, begin + sizes.energy_seconds))
        last, seconds, generated = looks[-1], time.monotonic() - begin, generated_tokens(server) - tokens
    if crowd.failed:
        raise ObservationError(f"{server.name} server: {crowd.failures[0][1]}")
    seen = [describe_gpu(each) for each in zip(*looks, strict=True)]
    told = [
        {**{name: row[name] for name in ("looks", "busy", "power_w", "sm_clock_mhz")}, "energy_j": _grown(*ends)}
        for row, ends in zip(seen, zip(first, last, strict=True), strict=True)
    ]
    return {"arm": arm, "seconds": seconds, "output_tokens": generated, "gpus": told}


def _looks(sense: Sense, until: float) -> Iterator[list[Sensors]]:
    """Read the sensors once a second; the last reading is at the end."""
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, LOOK_SECONDS))
        yield sense()


def _grown(first: Sensors, last: Sensors) -> float | None:
    if first.energy_j is None or last.energy_j is None:
        return None
    return last.energy_j - first.energy_j
