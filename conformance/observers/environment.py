"""Versions, and whether transformers and vLLM know Gemma 4's MTP draft."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from conformance import LOCKS
from conformance.errors import UsageError
from conformance.evidence.folder import Evidence
from conformance.formats import toml_tables
from conformance.profile import gpus
from conformance.profile.profile import UNLOCKED, Profile
from conformance.serving.executors import HERE, Executor
from conformance.serving.interpreter import normalise
from conformance.serving.json_subprocess import Together, ask_subprocess
from conformance.serving.pool import NOT_INSTALLED, ServerPool

COMMAND = (sys.executable, "-m", "conformance.serving.interpreter")
FROM_SOURCE = "from-source.toml"
BUILD = "build.json"
MACHINE_LIBRARIES = "machine-libraries.txt"


def observe(profile: Profile, servers: ServerPool, _evidence: Evidence) -> Mapping[str, Any]:
    """Imported, installed and locked versions, the machine with its GPUs, and both registries."""
    servers.require_own_servers(NOT_INSTALLED)
    name = profile.hardware.locked_environment
    executor = servers.executor
    with servers.shared():  # importing vLLM uses a core for ten seconds
        found = ask_interpreter(COMMAND, executor, servers.together)
    there = {"platform_machine": str(found["machine"]), "python_full_version": str(found["python"])}
    wanted = None if name == UNLOCKED else read_lock(LOCKS / name / "lock.txt", there) | commits_wanted(LOCKS / name)
    own = left_to_the_machine(found.pop("machine_libraries", {}), wanted or {})
    installed = found.pop("installed") | (commits_built(Path(sys.prefix)) if executor.same_python else {})
    seen = gpus.look() if executor.same_machine else gpus.ELSEWHERE
    machine = {"hardware": profile.hardware.name, "gpus": [asdict(gpu) for gpu in seen.gpus], "detected": str(seen)}
    versions = {"locked": wanted, "installed": {name: installed.get(name) for name in wanted or installed}}
    later = {
        "machine_libraries": own,
        "beside_the_lock": {name: installed[name] for name in sorted(installed.keys() - (wanted or installed).keys())},
        "build": read_build(Path(sys.prefix)) if executor.same_python else {},
    }
    return found | machine | versions | {name: value for name, value in later.items() if value}


def left_to_the_machine(noted: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """The locked libraries that a bundle left to the machine and that may be its own: NVIDIA's, no others."""
    allowed = set(_requirements((LOCKS / MACHINE_LIBRARIES).read_text(encoding="utf-8")))
    return {name: version for name, version in sorted(noted.items()) if name in allowed & wanted.keys()}


def commits_wanted(environment: Path) -> dict[str, str]:
    """The packages that an environment builds from source, each as ``commit SHA``."""
    path = environment / FROM_SOURCE
    sources = toml_tables.parse(path) if path.is_file() else {}
    return {name: f"commit {source['commit']}" for name, source in sources.items()}


def commits_built(prefix: Path) -> dict[str, str]:
    """The commits of packages built from source, as scripts/build_vllm_pr recorded them."""
    path = (prefix / FROM_SOURCE).with_suffix(".json")
    noted = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {name: f"commit {commit}" for name, commit in noted.items()}


def read_build(prefix: Path) -> dict[str, Any]:
    """What scripts/build_vllm_pr built here and from what; empty if it built nothing."""
    path = prefix / BUILD
    noted: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return noted


def ask_interpreter(
    command: Sequence[str], executor: Executor = HERE, together: Together | None = None
) -> dict[str, Any]:
    """The JSON that a command of the serving interpreter prints.

    Raises:
        ObservationError: vLLM or transformers cannot be imported.
    """
    return ask_subprocess(
        command,
        doing="importing vLLM",
        failed="vLLM or transformers cannot be imported",
        executor=executor,
        together=together,
    )


def read_lock(path: Path, platform: Mapping[str, str] | None = None) -> dict[str, str]:
    """The name and version of every package in a lock.

    ``platform`` has the markers (PEP 508) of the machine, if that is another machine.

    Raises:
        UsageError: there is no such lock.
    """
    if not path.is_file():
        raise UsageError(
            f"{path}: there is no such lock; correct CONFORMANCE_ENV, or locked_environment in the hardware's TOML."
        )
    requirements = (Requirement(text) for text in _requirements(path.read_text(encoding="utf-8")))
    return {
        normalise(each.name): next(iter(each.specifier)).version
        for each in requirements
        if each.marker is None or each.marker.evaluate(dict(platform or {}))
    }


def _requirements(text: str) -> Iterator[str]:
    """The requirement of each logical line, without its hashes and comments."""
    for line in text.replace("\\\n", " ").splitlines():
        requirement = line.partition("#")[0].partition("--hash")[0].strip()
        if requirement and not requirement.startswith("-"):
            yield requirement
