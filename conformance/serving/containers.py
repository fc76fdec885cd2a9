"""Servers in containers of an image, by docker or podman.

The image does not need to contain the suite: the package, the fixtures and the metadata that names vLLM's plugin are
mounted read-only and found by PYTHONPATH. Checkpoints and snapshots have the same paths inside as outside.
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
from conformance.serving.command import Launch, neutral, shell
from conformance.serving.executors import Executor, Ports
from conformance.serving.installed import SUITE, Installed
from conformance.serving.json_subprocess import ask_subprocess

PROGRAMS = ("docker", "podman")
_INSIDE = Path("/conformance-suite")
_LOOK_SECONDS = 60.0
_GPUS = {"docker": ("--gpus", "all"), "podman": ("--device", "nvidia.com/gpu=all")}
# Settings that name a writable folder, and the part of it that is mounted.
_WRITABLE = {SNAPSHOT_DIRECTORY: "", "VLLM_CACHE_ROOT": "", "FLASHINFER_WORKSPACE_BASE": ".cache/flashinfer"}
_ABSENT = ("no such image", "image not known", "no such object")  # in messages of docker and podman


@dataclass(frozen=True)
class Image(Executor):
    """A container image on this machine; its containers run with or without GPUs."""

    program: str
    name: str
    id: str  # containers run by this id, even if the name changes its meaning
    digest: str  # the digest in the registry that it came from, or else the id
    gpu: bool = False
    checkpoints: tuple[Path, ...] = ()

    same_python = False

    @property
    def inherited(self) -> Mapping[str, str]:
        """Nothing from this shell: an image brings its own environment."""
        return {}

    def private_folder(self, environment: Mapping[str, str]) -> None:
        """The server has the temporary folder of where it runs."""
        del environment

    def installed(self) -> Installed:
        return _installed(replace(self, gpu=False, checkpoints=()))

    def adapt_launch(self, launch: Launch, name: str, ports: Ports | None = None) -> Launch:
        """The launch of a client here that runs the command in a container.

        The client runs in the foreground with ``--rm`` and ends when the container ends, so it shows whether the server
        lives. If the client is killed, the container lives on, so the end command removes the container by its name.
        The command names variables without their values; the client takes the values from its own environment.
        """
        caches = _caches() if self.gpu else {}
        settings = {**caches, **launch.environment}
        command = (
            *(self.program, "run", "--rm", "--name", name, "--pull=never"),
            *(() if ports else ("--interactive",)),
            *("--network=host", "--ipc=host", "--security-opt=label=disable"),  # else SELinux hides the mounted folders
            *(_GPUS[self.program] if self.gpu else ()),
            *(word for folder in self._folders(settings) for word in ("--volume", folder)),
            *(word for setting in settings for word in ("--env", setting)),
            *("--env", f"PYTHONPATH={_INSIDE}", "--entrypoint", "python3", self.id),
            *launch.command[1:],
        )
        at_once = ("--time", "0") if self.program == "podman" else ()  # it had its time to stop before
        return Launch(command, {**neutral(shell()), **settings}, (self.program, "rm", "--force", *at_once, name))

    def _folders(self, settings: Mapping[str, str]) -> Iterator[str]:
        """The mounted folders: suite and checkpoints read-only, caches and snapshots writable."""
        for folder in (PACKAGE, FIXTURES, suite_metadata()):
            yield f"{folder}:{_INSIDE / folder.name}:ro"
        for folder in sorted({each for checkpoint in self.checkpoints for each in _with_targets(checkpoint)}):
            yield f"{folder}:{folder}:ro"
        for folder in (Path(settings[name]) / below for name, below in _WRITABLE.items() if name in settings):
            folder.mkdir(parents=True, exist_ok=True)  # else the daemon creates it as another user
            yield f"{folder}:{folder}"


def image(name: str, program: str | None) -> Image:
    """The image with this name.

    Raises:
        UsageError: the name is none, the image is not on this machine, or docker and podman are missing or do not work.
    """
    if name.startswith("-") or not name.isprintable() or " " in name:
        raise UsageError(f"--image {name!r} is not the name of an image; write one such as vllm/vllm-openai:TAG.")
    found = program or next(filter(shutil.which, PROGRAMS), None)
    if found is None or not shutil.which(found):
        raise UsageError(f"--image {name} needs {program or 'docker or podman'}, which is not on PATH; install it.")
    try:
        done = _run((found, "image", "inspect", name))
    except subprocess.TimeoutExpired:
        raise UsageError(f"{found} did not answer within {_LOOK_SECONDS:.0f} s; check that its daemon runs.") from None
    if done.returncode:
        said = logs.last_line(done.stderr)
        if any(words in done.stderr.lower() for words in _ABSENT):
            raise UsageError(f"--image {name} is not on this machine; run: {found} pull {name}")
        raise UsageError(f"{found} cannot inspect --image {name}: {said or f'exit code {done.returncode}'}")
    try:
        told = json.loads(done.stdout)[0]
        digests = [str(digest).rpartition("@")[2] for digest in told.get("RepoDigests") or ()]
        return Image(found, name, str(told["Id"]), next(iter(digests), str(told["Id"])))
    except (ValueError, LookupError, TypeError):
        raise UsageError(
            f"{found} image inspect {name} does not describe an image; check the {found} on PATH."
        ) from None


@functools.cache
def _installed(executor: Image) -> Installed:
    command = ("python3", "-m", "conformance.serving.installed")
    doing, failed = f"inspecting --image {executor.name}", f"--image {executor.name} cannot be inspected"
    try:
        found = ask_subprocess(command, doing=doing, failed=failed, seconds=_LOOK_SECONDS, executor=executor)
    except ObservationError as error:
        raise UsageError(f"{error.sentence}; {logs.last_line(error.log_tail) or 'it printed no error'}") from None
    if found["vllm"] is None:
        raise UsageError(f"--image {executor.name} has no vLLM for its python3; choose another image.")
    return Installed(found["vllm"], found["suite"], tuple(found["settings"]))


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LOOK_SECONDS, check=False
    )


def suite_metadata() -> Path:
    """The folder of metadata by which Python finds the installed suite, and vLLM its plugin."""
    files = metadata.distribution(SUITE).files or ()
    return Path(str(next(file for file in files if file.name == "METADATA").locate())).parent


def _with_targets(folder: Path) -> Iterator[Path]:
    """A folder and the targets of the links in it: the Hub's cache keeps the files of a snapshot elsewhere."""
    yield folder
    yield from {link.resolve().parent for link in folder.rglob("*") if link.is_symlink()}


def _caches() -> dict[str, str]:
    """The folders where vLLM and FlashInfer keep compiled code; compiling takes an hour on a new GPU."""
    home = Path.home()
    usual = {"VLLM_CACHE_ROOT": str(home / ".cache/vllm"), "FLASHINFER_WORKSPACE_BASE": str(home)}
    return {name: os.environ.get(name, folder) for name, folder in usual.items()}
