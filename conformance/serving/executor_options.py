"""The executor that options or a header name: this machine, a container image, or a host by SSH."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from conformance.checkpoints.headers import draft_folder, target_folder
from conformance.errors import UsageError
from conformance.evidence.folder import Header
from conformance.profile.profile import UNLOCKED, Profile
from conformance.serving.containers import Image, image
from conformance.serving.executors import HERE, Executor
from conformance.serving.ssh import Host, host


class ExecutorOptions(Protocol):
    """The fields that options and headers have in common."""

    @property
    def image(self) -> str | None: ...
    @property
    def container(self) -> str | None: ...
    @property
    def ssh(self) -> str | None: ...
    @property
    def ssh_python(self) -> str | None: ...


def describe_executor(where: ExecutorOptions) -> str:
    """The option that names the executor, for use in sentences."""
    if where.image:
        return f"--image {where.image}"
    return f"--ssh {where.ssh}" if where.ssh else "servers that the suite started on its own machine"


def check_options(where: ExecutorOptions, attach: str | None) -> None:
    """Require that the options fit together.

    Raises:
        UsageError: two options contradict each other, or one needs another that is missing.
    """
    given = {"--attach": attach, "--image": where.image, "--ssh": where.ssh}
    several = [option for option, value in given.items() if value]
    if len(several) > 1:
        raise UsageError(f"{' and '.join(several)} both say where the servers run; leave out all but one.")
    for option, value, owner, owned in (
        ("--container", where.container, "--image IMAGE", where.image),
        ("--ssh-python", where.ssh_python, "--ssh HOST", where.ssh),
    ):
        if value and not owned:
            raise UsageError(f"{option} {value} needs {owner}, which is missing; add it.")


def choose_executor(where: ExecutorOptions) -> Executor:
    """The executor that the options name.

    Raises:
        UsageError: the image or the ssh program is not on this machine.
    """
    if where.image:
        return image(where.image, where.container)
    return host(where.ssh, where.ssh_python) if where.ssh else HERE


def record_executor(header: Header, executor: Executor, environment: str | None) -> Header:
    """The header with the executor and its vLLM. The contents of an image are compared with no lock."""
    if isinstance(executor, Image):
        return replace(
            header,
            vllm=executor.installed().vllm,
            image=executor.name,
            image_digest=executor.digest,
            container=executor.program,
            environment=UNLOCKED,
        )
    if isinstance(executor, Host):  # the environment of this machine says nothing about the host's
        own = UNLOCKED if environment == UNLOCKED else None
        vllm = executor.installed().vllm
        return replace(header, vllm=vllm, ssh=executor.name, ssh_python=executor.python, environment=own)
    return header


def require_same_image(header: Header, executor: Executor) -> None:
    """Require that the image is the one of the header.

    Raises:
        UsageError: the name of the image means another image now.
    """
    if isinstance(executor, Image) and executor.digest != header.image_digest:
        raise UsageError(
            f"--image {executor.name} was {header.image_digest} when the run began and is {executor.digest} now; "
            "start a new run."
        )


def prepare_executor(executor: Executor, profile: Profile) -> Executor:
    """The executor with the profile's checkpoints, GPUs and bounds.

    Raises:
        UsageError: a checkpoint is missing, or the host lacks vLLM or this version of the suite.
    """
    folders = target_folder(profile.pair), draft_folder(profile.pair)
    if isinstance(executor, Image):
        return replace(executor, checkpoints=folders, gpu=profile.hardware.memory != "host")
    if isinstance(executor, Host):
        executor = replace(executor, checkpoints=folders, grace=profile.hardware.bounds.stop_seconds)
        executor.installed()
    return executor
