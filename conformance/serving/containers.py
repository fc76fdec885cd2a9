"""Servers in containers of an image, by docker or podman.

The suite goes into the image and not the other way round: package, fixtures and the metadata that names vLLM's plugin
are mounted, read-only, and found by PYTHONPATH. Checkpoints and snapshots have the same paths inside as outside.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from conformance import FIXTURES, PACKAGE
from conformance.errors import ObservationError, UsageError
from conformance.inside_vllm.plugin import SNAPSHOT_DIRECTORY
from conformance.serving import logs
from conformance.serving.command import Launch, neutral
from conformance.serving.executors import Executor, Ports
from conformance.serving.installed import SUITE, Installed
from conformance.serving.json_subprocess import ask_subprocess

PROGRAMS = ("docker", "podman")
_INSIDE = Path("/conformance-suite")
_LOOK_SECONDS = 60.0
_GPUS = {"docker": ("--gpus", "all"), "podman": ("--device", "nvidia.com/gpu=all")}
# Settings that name a folder to write into, and what below it.
_WRITABLE = {SNAPSHOT_DIRECTORY: "", "VLLM_CACHE_ROOT": "", "FLASHINFER_WORKSPACE_BASE": ".cache/flashinfer"}
_ABSENT = ("no such image", "image not known", "no such object")  # docker's and podman's words


@dataclass(frozen=True)
class Image(Executor):
    """An image on this machine; with GPUs, or with none."""

    program: str
    name: str
    id: str  # by which it is run, whatever becomes of the name
    digest: str  # by which others know it, where it came from a registry
    gpu: bool = False
    checkpoints: tuple[Path, ...] = ()

    same_python = False

    @property
    def inherited(self) -> Mapping[str, str]:
        """Nothing of this shell: an image brings its own environment."""
        return {}

    def installed(self) -> Installed:
        return _installed(replace(self, gpu=False, checkpoints=()))

    def placed(self, launch: Launch, name: str, ports: Ports | None = None) -> Launch:
        """The same in a container, which lives as long as the client that is run here.

        With ``--rm`` in the foreground the client ends when the container does, so it tells whether the server lives.
        The other way round that does not hold: a client may be killed, so the container is removed by its name.
        Variables are named and not told: the client takes their values from its own environment.
        """
        caches = _caches() if self.gpu else {}
        settings = {**caches, **launch.environment}
        command = (
            *(self.program, "run", "--rm", "--name", name, "--pull=never"),
            *(() if ports else ("--interactive",)),
            *("--network=host", "--ipc=host", "--security-opt=label=disable"),  # SELinux would hide what is mounted
            *(_GPUS[self.program] if self.gpu else ()),
            *(word for folder in self._folders(settings) for word in ("--volume", folder)),
            *(word for setting in settings for word in ("--env", setting)),
            *("--env", f"PYTHONPATH={_INSIDE}", "--entrypoint", "python3", self.id),
            *launch.command[1:],
        )
        at_once = ("--time", "0") if self.program == "podman" else ()  # it was asked politely before
        return Launch(command, {**neutral(os.environ), **settings}, (self.program, "rm", "--force", *at_once, name))

    def _folders(self, settings: Mapping[str, str]) -> Iterator[str]:
        """What is mounted: the suite and the checkpoints to be read, caches and snapshots to be written too."""
        for folder in (PACKAGE, FIXTURES, _metadata()):
            yield f"{folder}:{_INSIDE / folder.name}:ro"
        for folder in sorted({each for checkpoint in self.checkpoints for each in _with_targets(checkpoint)}):
            yield f"{folder}:{folder}:ro"
        for folder in (Path(settings[name]) / below for name, below in _WRITABLE.items() if name in settings):
            folder.mkdir(parents=True, exist_ok=True)  # before a daemon makes it as somebody else
            yield f"{folder}:{folder}"


def image(name: str, program: str | None) -> Image:
    """The image of that name; UsageError where it is not here, or nobody is who could run it."""
    if name.startswith("-") or not name.isprintable() or " " in name:
        raise UsageError(f"--image {name!r} is no image; write one such as vllm/vllm-openai:TAG.")
    found = program or next(filter(shutil.which, PROGRAMS), None)
    if found is None or not shutil.which(found):
        raise UsageError(f"--image {name} needs {program or 'docker or podman'}, which is not on PATH; install it.")
    try:
        done = _run((found, "image", "inspect", name))
    except subprocess.TimeoutExpired:
        raise UsageError(f"{found} did not answer within {_LOOK_SECONDS:.0f} s; is its daemon well?") from None
    if done.returncode:
        said = logs.last_line(done.stderr)
        if any(words in done.stderr.lower() for words in _ABSENT):
            raise UsageError(f"--image {name} is not on this machine; run: {found} pull {name}")
        raise UsageError(f"{found} cannot look at --image {name}: {said or f'exit code {done.returncode}'}")
    try:
        told = json.loads(done.stdout)[0]
        digests = [str(digest).rpartition("@")[2] for digest in told.get("RepoDigests") or ()]
        return Image(found, name, str(told["Id"]), next(iter(digests), str(told["Id"])))
    except (ValueError, LookupError, TypeError):
        raise UsageError(f"{found} image inspect {name} answers what is no image; is {found} the real one?") from None


@functools.cache
def _installed(place: Image) -> Installed:
    command = ("python3", "-m", "conformance.serving.installed")
    doing, failed = f"looking into {place.name}", f"--image {place.name} cannot be looked into"
    try:
        found = ask_subprocess(command, doing=doing, failed=failed, seconds=_LOOK_SECONDS, place=place)
    except ObservationError as error:
        raise UsageError(f"{error.sentence}; {logs.last_line(error.log_tail) or 'nothing was said'}") from None
    if found["vllm"] is None:
        raise UsageError(f"--image {place.name} has no vLLM that its python3 finds; choose another image.")
    return Installed(found["vllm"], found["suite"], tuple(found["settings"]))


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LOOK_SECONDS, check=False
    )


def _metadata() -> Path:
    """The folder by which Python knows the suite as installed, and vLLM its plugin."""
    files = metadata.distribution(SUITE).files or ()
    return Path(str(next(file for file in files if file.name == "METADATA").locate())).parent


def _with_targets(folder: Path) -> Iterator[Path]:
    """A folder, and where the links in it lead: the Hub's cache keeps a snapshot's files elsewhere."""
    yield folder
    yield from {link.resolve().parent for link in folder.rglob("*") if link.is_symlink()}


def _caches() -> dict[str, str]:
    """Where vLLM and FlashInfer keep what they have compiled, which takes an hour on a new GPU."""
    home = Path.home()
    usual = {"VLLM_CACHE_ROOT": str(home / ".cache/vllm"), "FLASHINFER_WORKSPACE_BASE": str(home)}
    return {name: os.environ.get(name, folder) for name, folder in usual.items()}
