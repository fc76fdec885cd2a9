"""Servers that show exhibits: those of a profile, with the probe that can break them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from support.paths import PYTHONPATH

from conformance.evidence.folder import Evidence
from conformance.profile.profile import Profile
from conformance.serving.command import PROBE, Launch, vllm_launch
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server, Start, start_together
from conformance.serving.watchdog import watch


class Shown(ServerPool):
    """Servers that already run, with the interface that observers use."""

    def __init__(self, profile: Profile, evidence: Evidence, up: Mapping[str, Server]) -> None:
        super().__init__(profile, evidence, owns=False)
        self._up = up

    def _running(self, arm: str) -> Server:
        return self._up[arm]


@contextmanager
def on_show(
    profile: Profile, folder: Path, *arms: str, change: Callable[[str, Launch], Launch] = lambda _, launch: launch
) -> Iterator[dict[str, Server]]:
    """The servers of these arms, by arm: started together, stopped at the end. ``change`` may replace a launch."""
    bounds, records = profile.hardware.bounds, folder / ".servers"
    records.mkdir()
    starts, guard = [], watch(records, bounds.stop_seconds)

    def keep(server: Server) -> None:
        (records / f"{server.name}.json").write_text(json.dumps({"server": server.record()}))

    for arm in arms:
        launch = vllm_launch(profile, arm, folder / "snapshots" / arm, os.environ)
        command = tuple("negative_controls.museum.worker.Museum" if word == PROBE else word for word in launch.command)
        here = {**launch.environment, "PYTHONPATH": PYTHONPATH}
        launch = change(arm, replace(launch, command=command, environment=here))
        starts.append(Start(launch, arm, folder / f"{arm}.log", bounds, keep))
    started = start_together(starts, bounds.stop_seconds, lambda _: None)
    up = {arm: server for arm, server in started.items() if isinstance(server, Server)}
    try:
        assert up.keys() == started.keys(), started
        yield up
    finally:
        for server in up.values():
            server.stop(bounds.stop_seconds)
        guard.communicate()
