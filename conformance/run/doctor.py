"""Whether this machine can do a run: lines of OK, WARN and FAIL, each with the mend; facts come from ``Machine``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any

from conformance import FIXTURES, LOCKS
from conformance.checkpoints.headers import Damaged, draft_folder, read_headers, target_folder
from conformance.errors import ObservationError, UsageError
from conformance.judging.verdict import ExitCode
from conformance.observers.environment import COMMAND, ask_interpreter, read_lock
from conformance.profile.profile import UNLOCKED, Profile
from conformance.profile.tolerances import Tolerances, load_tolerances
from conformance.serving.command import LONGEST_SOCKET_FOLDER, SOCKETS, captures
from conformance.serving.executors import Executor
from conformance.serving.machine import Machine

NEEDS = FIXTURES / "facts" / "machine.toml"
PYTHONS = ((3, 11), (3, 12), (3, 13))
NAMED = 5  # distributions that a line names


class State(StrEnum):
    """What a line says: a run can begin, may have trouble, or cannot succeed."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Line:
    """One thing that was looked at; ``mend`` is empty where there is nothing to do."""

    name: str
    state: State
    said: str
    mend: str = ""


@dataclass(frozen=True)
class Patient:
    """A machine and the run that it shall do."""

    machine: Machine
    profile: Profile
    needs: Tolerances

    @property
    def servers(self) -> int:
        """How many servers are up at the same time, at most."""
        if not self.profile.has_servers:
            return 0
        if self.profile.level != "qualify" or not self.profile.hardware.two_servers:
            return 1
        return 3 if self.profile.hardware.roomy else 2


def ask_executor(name: str, choose: Callable[[], Executor]) -> Line:
    """Whether an image or a host that servers shall run on answers."""
    try:
        vllm = choose().installed().vllm
    except (UsageError, ObservationError) as error:
        return Line(name, State.FAIL, str(error).rstrip("."), "mend that, or leave out the option")
    return Line(name, State.OK, f"answers, with vLLM {vllm}")


def exit_code(lines: list[Line]) -> ExitCode:
    """1 where the run cannot succeed."""
    failed = any(line.state is State.FAIL for line in lines)
    return ExitCode.NOT_QUALIFIED if failed else ExitCode.QUALIFIED


def examine(machine: Machine, profile: Profile) -> list[Line]:
    """Everything that can be said without a server; the import of vLLM takes seconds."""
    patient = Patient(machine, profile, load_tolerances(NEEDS))
    imported = _imported()
    lines = [look(patient) for look in (*DECISIVE, *ADVISORY)]
    return [*lines[:2], *_environment_lines(patient, imported), *lines[2:]]


def require_fit_machine(machine: Machine, profile: Profile) -> None:
    """Refuse a run that cannot succeed on this machine, before anything starts.

    Raises:
        UsageError: the sentence names what is missing and the mend.
    """
    patient = Patient(machine, profile, load_tolerances(NEEDS))
    for look in DECISIVE:
        line = look(patient)
        if line.state is State.FAIL:
            raise UsageError(f"{line.name}: {line.said}; {line.mend} (qualify doctor shows more).")


def _python(patient: Patient) -> Line:
    version = ".".join(map(str, patient.machine.python))
    if patient.machine.python in PYTHONS:
        return Line("Python", State.OK, version)
    return Line("Python", State.FAIL, f"{version} is not 3.11, 3.12 or 3.13", "run scripts/bootstrap with PYTHON set")


def _installed(patient: Patient) -> Line:
    if patient.machine.vllm:
        return Line("vLLM", State.OK, f"{patient.machine.vllm} is installed")
    return Line("vLLM", State.FAIL, "no vLLM is installed beside this suite", "run scripts/bootstrap")


def _gpu(patient: Patient) -> Line:
    hardware, seen = patient.profile.hardware, patient.machine.seen
    if hardware.sm is None:
        return Line("GPU", State.OK, f"hardware {hardware.name} needs none ({seen})")
    mend = "install the driver, make the GPU visible, or name other hardware by --hardware"
    if not patient.profile.has_servers:
        return Line("GPU", State.OK, f"{seen}; level {patient.profile.level} needs none")
    if not seen.gpus:
        return Line("GPU", State.FAIL, str(seen), mend)
    others = [gpu for gpu in seen.gpus if gpu.sm != hardware.sm]
    if others:
        return Line("GPU", State.FAIL, f"{others[0]} is not SM {hardware.sm} of hardware {hardware.name}", mend)
    first = seen.gpus[0]
    return Line("GPU", State.OK, f"{seen}, driver {first.driver}, CUDA {first.cuda}")


def _memory(patient: Patient) -> Line:
    needed, free = _needed_memory(patient), patient.machine.memory_gb
    limit = patient.machine.address_space_gb
    if limit is not None and limit < needed:
        return Line("memory", State.FAIL, f"ulimit -v allows {limit:.1f} of {needed:.1f} GB", "run ulimit -v unlimited")
    said = f"{free:.1f} GB available, {needed:.1f} GB needed at level {patient.profile.level}"
    if free >= needed:
        return Line("memory", State.OK, said)
    mend = "end other processes, raise the container's limit, or choose a lower --level"
    return Line("memory", State.FAIL, said, mend)


def _needed_memory(patient: Patient) -> float:
    """Of the host, in GB; on a GPU with memory of its own, the host only starts the servers."""
    server, weights = patient.needs["server_memory_gb"], patient.profile.pair.weights_gb or 0.0
    if patient.profile.hardware.memory == "discrete":
        weights = 0.0
    return patient.needs["suite_memory_gb"] + patient.servers * max(server, weights)


def _gpu_memory(patient: Patient) -> Line:
    hardware, weights = patient.profile.hardware, patient.profile.pair.weights_gb
    if hardware.memory_gb is None or not patient.profile.has_servers:
        return Line("GPU memory", State.OK, "none needed")
    usable = hardware.memory_gb * hardware.memory_share
    if weights is not None and weights >= usable:
        said = f"{weights:g} GB of weights do not fit into the {usable:.1f} GB that vLLM may use"
        return Line("GPU memory", State.FAIL, said, "choose a smaller pair or other hardware")
    used = max((each or 0.0 for each in patient.machine.gpu_used_gb), default=0.0)
    if used > hardware.memory_gb - usable:
        said = f"other processes hold {used:.1f} of {hardware.memory_gb:g} GB, and vLLM takes {usable:.1f} GB"
        return Line("GPU memory", State.FAIL, said, "end them; nvidia-smi lists them")
    return Line("GPU memory", State.OK, f"{usable:.1f} GB usable, {used:.1f} GB held by other processes")


def _disk(patient: Patient) -> Line:
    machine, fewest = patient.machine, patient.needs["evidence_disk_gb"]
    said, mend = f"{machine.disk_gb:.1f} GB free in {machine.folder}", "free some, or name another folder by --evidence"
    if not machine.folder_writable:
        return Line("disk", State.FAIL, f"{machine.folder} cannot be written", "name another folder by --evidence")
    if machine.disk_gb < fewest:
        return Line("disk", State.FAIL, f"{said}, {fewest:g} GB needed", mend)
    enough = machine.disk_gb >= patient.needs["comfortable_disk_gb"]
    return Line("disk", State.OK, said) if enough else Line("disk", State.WARN, said, mend)


def _ports(patient: Patient) -> Line:
    if patient.machine.no_port:
        said = f"no loopback port can be used: {patient.machine.no_port}"
        return Line("ports", State.FAIL, said, "bring the loopback interface up (ip link set lo up)")
    return Line("ports", State.OK, "a loopback port is free")


def _temporary(patient: Patient) -> Line:
    machine, longest = patient.machine, LONGEST_SOCKET_FOLDER
    if not machine.temporary_writable:
        return Line("TMPDIR", State.FAIL, f"{machine.temporary} cannot be written", "set TMPDIR to a folder that can")
    if machine.temporary_missing:
        said = f"{machine.temporary_missing} does not exist: {machine.temporary} is used"
        return Line("TMPDIR", State.WARN, said, "set TMPDIR to a folder that exists")
    if machine.sockets and len(machine.sockets.encode()) > longest:
        said = f"{SOCKETS} has {len(machine.sockets.encode())} characters, and sockets allow {longest}"
        return Line("TMPDIR", State.FAIL, said, f"unset {SOCKETS}, or name a shorter folder")
    size = len(str(machine.temporary).encode())
    if size > longest and not machine.sockets:
        said = f"{size} characters are too long for sockets, which allow {longest}: vLLM's sockets go to /tmp"
        return Line("TMPDIR", State.WARN, said, "set TMPDIR to a shorter folder")
    return Line("TMPDIR", State.OK, f"{machine.temporary}")


def _checkpoints(patient: Patient) -> Line:
    pair, said = patient.profile.pair, []
    for find in (target_folder, draft_folder):
        try:
            folder = find(pair)
            tensors = read_headers(folder)
        except UsageError as error:
            return Line("checkpoints", State.FAIL, str(error).rstrip("."), "fetch it, or name another pair by --pair")
        except Damaged as damage:
            return Line("checkpoints", State.FAIL, str(damage), "fetch the checkpoint again")
        said.append(f"{folder.name}: {len(tensors)} tensors, {_size(tensors)}")
    return Line("checkpoints", State.OK, f"complete by size; {'; '.join(said)}")


def _size(tensors: Mapping[str, Any]) -> str:
    size = sum(each.end - each.start for each in tensors.values())
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _shared_memory(patient: Patient) -> Line:
    size, wanted = patient.machine.shared_memory_gb, patient.needs["shared_memory_gb"]
    if size is None:
        return Line("/dev/shm", State.WARN, "there is none", "mount a tmpfs there")
    said = f"{size:.2f} GB free"
    if size >= wanted or patient.profile.workers == 1:
        return Line("/dev/shm", State.OK, said)
    said += f", {wanted:g} GB wanted for several workers"
    return Line("/dev/shm", State.WARN, said, "give the container --shm-size or --ipc=host")


def _open_files(patient: Patient) -> Line:
    found, wanted = patient.machine.open_files, round(patient.needs["open_files"])
    if found >= wanted or found < 0:  # -1 is no limit
        return Line("ulimits", State.OK, f"{found} open files")
    return Line("ulimits", State.WARN, f"{found} open files, {wanted} wanted", f"run ulimit -n {wanted}")


def _locale(patient: Patient) -> Line:
    if patient.machine.encoding.lower().replace("-", "") == "utf8":
        return Line("locale", State.OK, patient.machine.encoding)
    return Line("locale", State.WARN, f"{patient.machine.encoding} is not UTF-8", "set LC_ALL=C.UTF-8")


def _proxies(patient: Patient) -> Line:
    if not patient.machine.proxies:
        return Line("proxies", State.OK, "none")
    return Line("proxies", State.OK, f"{', '.join(patient.machine.proxies)} set; servers are asked without a proxy")


def _compile_cache(patient: Patient) -> Line:
    if not captures(patient.profile):
        return Line("compile cache", State.OK, f"hardware {patient.profile.hardware.name} compiles nothing")
    cold = [folder for folder, warm in patient.machine.caches.items() if not warm]
    if not cold:
        return Line("compile cache", State.OK, "warm")
    said = f"cold, so the first start takes minutes longer: {', '.join(cold)}"
    return Line("compile cache", State.WARN, said, "keep these folders from run to run")


def _containers(patient: Patient) -> Line:
    engines = ", ".join(patient.machine.engines)
    return Line("containers", State.OK, engines or "neither docker nor podman, which only --image needs")


def _clock(patient: Patient) -> Line:
    now, released = patient.machine.now.date(), _released(patient.machine.suite)
    if released and now < released:
        said = f"{now} is before {released}, when this suite was made, and waivers expire by date"
        return Line("clock", State.WARN, said, "set the clock")
    return Line("clock", State.OK, f"{patient.machine.now:%Y-%m-%d %H:%M} UTC")


def _released(version: str | None) -> date | None:
    """The first day of the month in a version such as 2026.11.1."""
    words = (version or "").split(".")
    return date(int(words[0]), int(words[1]), 1) if len(words) == 3 and "".join(words).isdigit() else None


Look = Callable[[Patient], Line]
# What makes a run impossible, looked at in milliseconds before every run.
DECISIVE: tuple[Look, ...] = (_python, _installed, _gpu, _memory, _gpu_memory, _disk, _ports, _temporary)
# Checks judge checkpoints and versions too, so a run does not refuse them.
ADVISORY: tuple[Look, ...] = (
    *(_checkpoints, _shared_memory, _open_files, _locale, _proxies, _compile_cache, _containers, _clock),
)


def _imported() -> dict[str, Any] | str:
    """What the interpreter says about itself after importing vLLM, or why it cannot."""
    try:
        return ask_interpreter(COMMAND)
    except ObservationError as error:
        return error.sentence


def _environment_lines(patient: Patient, imported: dict[str, Any] | str) -> Iterator[Line]:
    """The import of vLLM and torch, and the lock against what is installed."""
    if isinstance(imported, str):
        yield Line("import", State.FAIL, imported, "run scripts/bootstrap; .venv/bootstrap.log has its log")
        return
    yield Line("import", State.OK, ", ".join(f"{name} {version}" for name, version in imported["imported"].items()))
    name = patient.profile.hardware.locked_environment
    if name == UNLOCKED:
        yield Line("lock", State.WARN, "the environment is unlocked", "leave out --unlocked to compare with a lock")
        return
    try:
        wanted = read_lock(LOCKS / name / "lock.txt")
    except UsageError as error:
        yield Line("lock", State.FAIL, str(error).rstrip("."), "set CONFORMANCE_ENV to a folder of envs/")
        return
    yield compare_with_lock(name, wanted, imported["installed"])


def compare_with_lock(name: str, wanted: Mapping[str, str], installed: Mapping[str, str]) -> Line:
    """Whether every distribution of the lock is installed in its version."""
    other = [
        f"{each} {installed.get(each) or 'not installed'} (locked: {version})"
        for each, version in sorted(wanted.items())
        if installed.get(each) != version
    ]
    if not other:
        return Line("lock", State.OK, f"all {len(wanted)} distributions of envs/{name}")
    more = f" and {len(other) - NAMED} more" if len(other) > NAMED else ""
    mend = f"run scripts/bootstrap {name}, or judge with --unlocked"
    return Line("lock", State.FAIL, f"{', '.join(other[:NAMED])}{more}", mend)
