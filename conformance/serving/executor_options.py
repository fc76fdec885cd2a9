"""Which place the options or a header mean: this machine, a container image, or a host by SSH."""

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
    """What options and headers have in common."""

    @property
    def image(self) -> str | None: ...
    @property
    def container(self) -> str | None: ...
    @property
    def ssh(self) -> str | None: ...
    @property
    def ssh_python(self) -> str | None: ...


def describe_executor(where: ExecutorOptions) -> str:
    """The option that says it, for sentences."""
    if where.image:
        return f"--image {where.image}"
    return f"--ssh {where.ssh}" if where.ssh else "servers of its own on the same machine"


def check_options(where: ExecutorOptions, attach: str | None) -> None:
    """UsageError for options that contradict each other or lack another."""
    given = {"--attach": attach, "--image": where.image, "--ssh": where.ssh}
    several = [option for option, value in given.items() if value]
    if len(several) > 1:
        raise UsageError(f"{' and '.join(several)} say twice where the servers are; leave one out.")
    for option, value, owner, owned in (
        ("--container", where.container, "--image IMAGE", where.image),
        ("--ssh-python", where.ssh_python, "--ssh HOST", where.ssh),
    ):
        if value and not owned:
            raise UsageError(f"{option} {value} goes with {owner}, which is missing; add it.")


def choose_executor(where: ExecutorOptions) -> Executor:
    """The place; UsageError where it is not there."""
    if where.image:
        return image(where.image, where.container)
    return host(where.ssh, where.ssh_python) if where.ssh else HERE


def record_executor(header: Header, place: Executor, environment: str | None) -> Header:
    """The header with the place and its own vLLM. What an image holds is held against no lock."""
    if isinstance(place, Image):
        return replace(
            header,
            vllm=place.installed().vllm,
            image=place.name,
            image_digest=place.digest,
            container=place.program,
            environment=UNLOCKED,
        )
    if isinstance(place, Host):  # which environment is installed here says nothing about it
        own = UNLOCKED if environment == UNLOCKED else None
        return replace(header, vllm=place.installed().vllm, ssh=place.name, ssh_python=place.python, environment=own)
    return header


def require_same_image(header: Header, place: Executor) -> None:
    """UsageError where the image's name means another one by now."""
    if isinstance(place, Image) and place.digest != header.image_digest:
        raise UsageError(
            f"--image {place.name} was {header.image_digest} when the run began and is {place.digest} now: record anew."
        )


def prepare_executor(place: Executor, profile: Profile) -> Executor:
    """The place with what the profile wants there; UsageError where a host lacks it."""
    folders = target_folder(profile.pair), draft_folder(profile.pair)
    if isinstance(place, Image):
        return replace(place, checkpoints=folders, gpu=profile.hardware.memory != "host")
    if isinstance(place, Host):
        place = replace(place, checkpoints=folders, grace=profile.hardware.bounds.stop_seconds)
        place.installed()
    return place
