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
from negative_controls.museum import forking_server

# a word of a command -> what stands there instead
OURS = {PROBE: "negative_controls.museum.worker.Museum", forking_server.VLLM: forking_server.__name__}


class Shown(ServerPool):
    """Servers that already run, with the interface that observers use."""

    def __init__(self, profile: Profile, evidence: Evidence, up: Mapping[str, Server]) -> None:
        super().__init__(profile, evidence, owns=False)
        self._up = up

    def _running(self, arm: str) -> Server:
        return self._up[arm]


def shown_launch(profile: Profile, arm: str, snapshots: Path, inherited: Mapping[str, str]) -> Launch:
    """The launch of an arm that can show exhibits."""
    launch = vllm_launch(profile, arm, snapshots, inherited)
    command = tuple(OURS.get(word, word) for word in launch.command)
    return replace(launch, command=command, environment={**launch.environment, "PYTHONPATH": PYTHONPATH})


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
        launch = change(arm, shown_launch(profile, arm, folder / "snapshots" / arm, os.environ))
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


@contextmanager
def broken(server: Server, exhibit: str) -> Iterator[None]:
    """Show an exhibit in a running server, and take it back."""
    server.call("conformance_break", 30, exhibit=exhibit)
    try:
        yield
    finally:
        server.call("conformance_mend", 30)
