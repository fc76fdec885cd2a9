"""Versions, and whether transformers and vLLM know Gemma 4's MTP draft at all."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from conformance import PACKAGE
from conformance.errors import UsageError
from conformance.evidence.folder import Evidence
from conformance.formats import toml_tables
from conformance.profile import gpus
from conformance.profile.profile import UNLOCKED, Profile
from conformance.serving.executors import HERE, Executor
from conformance.serving.interpreter import normalised
from conformance.serving.json_subprocess import ask_subprocess
from conformance.serving.pool import NOT_INSTALLED, ServerPool

LOCKS = PACKAGE.parent / "envs"
FROM_SOURCE = "from-source.toml"


def observe(profile: Profile, servers: ServerPool, _evidence: Evidence) -> Mapping[str, Any]:
    """Imported, installed and locked versions; machine and its GPUs; both registries."""
    servers.must_be_ours(NOT_INSTALLED)
    name = profile.hardware.locked_environment
    place = servers.place
    with servers.beside():  # importing vLLM takes a core for ten seconds
        found = ask_interpreter([sys.executable, "-m", "conformance.serving.interpreter"], place)
    there = {"platform_machine": str(found["machine"]), "python_full_version": str(found["python"])}
    wanted = None if name == UNLOCKED else locked(LOCKS / name / "lock.txt", there) | commits_wanted(LOCKS / name)
    installed = found.pop("installed") | (commits_built(Path(sys.prefix)) if place.same_python else {})
    seen = gpus.look() if place.same_machine else gpus.ELSEWHERE
    machine = {"hardware": profile.hardware.name, "gpus": [asdict(gpu) for gpu in seen.gpus], "detected": str(seen)}
    return (
        found | machine | {"locked": wanted, "installed": {name: installed.get(name) for name in wanted or installed}}
    )


def commits_wanted(environment: Path) -> dict[str, str]:
    """What an environment builds from source, each as ``commit SHA``."""
    path = environment / FROM_SOURCE
    sources = toml_tables.parse(path) if path.is_file() else {}
    return {name: f"commit {source['commit']}" for name, source in sources.items()}


def commits_built(prefix: Path) -> dict[str, str]:
    """What scripts/build_vllm_pr noted when it had built the installed ones."""
    path = (prefix / FROM_SOURCE).with_suffix(".json")
    noted = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {name: f"commit {commit}" for name, commit in noted.items()}


def ask_interpreter(command: list[str], place: Executor = HERE) -> dict[str, Any]:
    """What the interpreter says of itself; ObservationError with its own error where it cannot."""
    return ask_subprocess(
        command, doing="importing vLLM", failed="vLLM or transformers cannot be imported", place=place
    )


def locked(path: Path, platform: Mapping[str, str] | None = None) -> dict[str, str]:
    """Name and version of what a lock demands; UsageError where there is no such lock.

    ``platform`` has markers (PEP 508) of the machine that it is about, where that is another one.
    """
    if not path.is_file():
        raise UsageError(
            f"{path}: there is no such lock; correct CONFORMANCE_ENV, or locked_environment in the hardware's TOML."
        )
    requirements = (Requirement(text) for text in _requirements(path.read_text(encoding="utf-8")))
    return {
        normalised(each.name): next(iter(each.specifier)).version
        for each in requirements
        if each.marker is None or each.marker.evaluate(dict(platform or {}))
    }


def _requirements(text: str) -> Iterator[str]:
    """The requirement of each logical line, without its hashes and comments."""
    for line in text.replace("\\\n", " ").splitlines():
        requirement = line.partition("#")[0].partition("--hash")[0].strip()
        if requirement and not requirement.startswith("-"):
            yield requirement
