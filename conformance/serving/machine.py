"""What this machine has for a run: memory, disk, sockets, limits and settings, as facts without a verdict."""

from __future__ import annotations

import locale
import math
import os
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import psutil

from conformance.profile import gpus
from conformance.serving.command import SOCKETS, temporary_folder
from conformance.serving.containers import PROGRAMS
from conformance.serving.executors import free_port
from conformance.serving.installed import installed_here
from conformance.serving.remains import existing_folder

SHARED_MEMORY = Path("/dev/shm")
CGROUP, GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# Limit, use, statistics, and in these the page cache that the kernel gives back; of both versions of control groups.
FILES = ("max", "current", "stat", "inactive_file")
OLDER_FILES = ("limit_in_bytes", "usage_in_bytes", "stat", "total_inactive_file")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
GB = 1e9


@dataclass(frozen=True)
class Machine:
    """This machine as a run would find it. Sizes are in GB; what the system does not tell is None."""

    python: tuple[int, int]
    vllm: str | None
    suite: str | None
    seen: gpus.Seen
    gpu_used_gb: tuple[float | None, ...]  # of each GPU, by all processes
    memory_gb: float  # available, within the limit of a container
    address_space_gb: float | None  # ulimit -v
    open_files: int
    folder: Path  # where evidence goes; its nearest parent that exists
    folder_writable: bool
    disk_gb: float
    shared_memory_gb: float | None
    temporary: Path
    temporary_writable: bool
    sockets: str | None  # the user's own folder for vLLM's sockets
    no_port: str  # why no loopback port is free; empty if one is
    encoding: str
    proxies: tuple[str, ...]  # variables that are set
    engines: tuple[str, ...]  # programs that run containers
    caches: Mapping[str, bool]  # folder of compiled kernels -> whether it holds something
    now: datetime
    temporary_missing: str = ""  # what the environment names instead, which does not exist


def look_at_machine(evidence: Path) -> Machine:
    """The facts about this machine; ``evidence`` is the folder that the run would write. This starts nothing."""
    installed, folder = installed_here(), _nearest(evidence)
    named = temporary_folder(os.environ)
    temporary = existing_folder(named)
    return Machine(
        python=(sys.version_info.major, sys.version_info.minor),
        vllm=installed.vllm,
        suite=installed.suite,
        seen=gpus.look(),
        gpu_used_gb=_gpu_memory_used(),
        memory_gb=available_memory() / GB,
        address_space_gb=_limit(resource.RLIMIT_AS),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        folder=folder,
        folder_writable=folder.is_dir() and os.access(folder, os.W_OK | os.X_OK),
        disk_gb=shutil.disk_usage(folder).free / GB,
        shared_memory_gb=shutil.disk_usage(SHARED_MEMORY).free / GB if SHARED_MEMORY.is_dir() else None,
        temporary=temporary,
        temporary_writable=_can_write(temporary),
        temporary_missing="" if not named or Path(named).is_dir() else named,
        sockets=os.environ.get(SOCKETS),
        no_port=_why_no_port(),
        encoding=locale.getpreferredencoding(False),
        proxies=tuple(name for name in os.environ if name.lower() in PROXIES and os.environ[name]),
        engines=tuple(filter(shutil.which, PROGRAMS)),
        caches={str(path): path.is_dir() and any(path.iterdir()) for path in _caches()},
        now=datetime.now(UTC),
    )


def available_memory(cgroup: Path = CGROUP, groups: Path = GROUPS) -> float:
    """The memory in bytes that processes can still get: the machine's, or what the limit of a control group leaves."""
    free = float(psutil.virtual_memory().available)
    return min([free, *(_left(folder, names) for folder, names in _memory_groups(cgroup, groups))])


def _memory_groups(cgroup: Path, groups: Path) -> Iterator[tuple[Path, Sequence[str]]]:
    """The control groups that hold this process, of both versions, with the names of their files."""
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = ["0::/"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            own = PurePosixPath(path)
            for each in (own, *own.parents):
                yield cgroup / controllers / each.relative_to("/"), OLDER_FILES if controllers else FILES


def _left(folder: Path, names: Sequence[str]) -> float:
    """The memory that the limit of a control group leaves; infinite without a limit."""
    try:
        most, used, about = ((folder / f"memory.{name}").read_text(encoding="ascii").strip() for name in names[:3])
        page_cache = next((line.split()[1] for line in about.splitlines() if line.split()[:1] == [names[3]]), 0)
        return float("inf" if most == "max" else most) - float(used) + float(page_cache)
    except (OSError, ValueError, IndexError):
        return math.inf


def _gpu_memory_used() -> tuple[float | None, ...]:
    with gpus.sensors() as read:
        return tuple(None if each.memory_mib is None else each.memory_mib * (1 << 20) / GB for each in read())


def _limit(which: int) -> float | None:
    soft = resource.getrlimit(which)[0]
    return None if soft == resource.RLIM_INFINITY else soft / GB


def _nearest(path: Path) -> Path:
    """The path itself, or the first of its parents that exists; a file is one that cannot be written into."""
    return next(each for each in (path, *path.absolute().parents) if each.exists())


def _can_write(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _why_no_port() -> str:
    try:
        with socket.socket() as client, socket.socket() as server:
            server.bind(("127.0.0.1", free_port()))
            server.listen()
            client.connect(server.getsockname())
    except OSError as error:
        return str(error)
    return ""


def _caches() -> tuple[Path, ...]:
    """Where vLLM, Triton and FlashInfer keep what they have compiled."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 (the method raises for a user who has no home)
    vllm = Path(os.environ.get("VLLM_CACHE_ROOT") or home / ".cache" / "vllm") / "torch_compile_cache"
    triton = Path(os.environ.get("TRITON_CACHE_DIR") or home / ".triton" / "cache")
    flashinfer = Path(os.environ.get("FLASHINFER_WORKSPACE_BASE") or home) / ".cache" / "flashinfer"
    return vllm, triton, flashinfer
