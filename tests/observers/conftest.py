"""Observations of faux servers, made by way of the evidence and its schemas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from negative_controls.faux_servers import PROFILE, Observe, launcher, recording, with_prompts
from negative_controls.faux_servers.checkpoints import Checkpoints

from conformance.evidence.folder import Evidence
from conformance.observers import observer
from conformance.profile.profile import Profile
from conformance.serving.command import Launch
from conformance.serving.pool import ServerPool


@pytest.fixture
def pair(tmp_path: Path) -> Checkpoints:
    (tmp_path / "pair").mkdir()
    made = Checkpoints(tmp_path / "pair", "E2B")
    made.target_config["text_config"]["enable_moe_block"] = True
    made.write()
    return made


@pytest.fixture
def profile(tmp_path: Path, pair: Checkpoints) -> Profile:
    moved = replace(PROFILE.pair, home=str(pair.target.parent))
    return with_prompts(replace(PROFILE, pair=moved), tmp_path / "prompts")


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    return recording(tmp_path / "evidence")


@pytest.fixture
def observe(profile: Profile, evidence: Evidence) -> Iterator[Observe]:
    """Makes an observation with faux servers, by way of the evidence and its schemas."""
    opened: list[ServerPool] = []

    def made(name: str, on: Profile = profile, **arms: Launch) -> dict[str, Any]:
        if not opened:
            opened.append(ServerPool(on, evidence, launcher=launcher(**arms)))
        return evidence.observe(name, lambda: observer(name)(on, opened[0], evidence))

    yield made
    for servers in opened:
        servers.close()
