"""The GPUs of this machine according to NVML, and the hardware profile that they match."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.errors import UsageError
from conformance.profile.profile import Hardware

CPU = "cpu"
IDLE = "gpu_idle"
# Reasons for lower clocks: nvmlClocksEventReasons of nvml.h, which older versions call "throttle reasons".
REASONS = {
    IDLE: 0x1,
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
}
VISIBLE = "CUDA_VISIBLE_DEVICES"
_NAME = re.compile(r"\d+|(GPU|MIG)-.+")
_MEMINFO = Path("/proc/meminfo")
_KEPT_BACK = 0.1  # allowed deviation from the nominal memory, by drivers, ECC, and GB or GiB
_NO_DRIVER = ("NVMLError_LibraryNotFound", "NVMLError_DriverNotLoaded")


@dataclass(frozen=True)
class Gpu:
    """One GPU; a value that NVML does not report is None."""

    name: str
    sm: int  # compute capability times ten
    memory_gib: float  # if it has no memory of its own, the memory that it shares with the CPU
    unified: bool
    driver: str
    cuda: str  # the newest version that the driver supports
    sm_clock_mhz: int | None  # the highest clock
    memory_clock_mhz: int | None
    power_limit_w: float | None

    def __str__(self) -> str:
        """The GPU as the header describes it."""
        kind = "shared with the CPU" if self.unified else "of its own"
        return f"{self.name} (SM {self.sm}, {self.memory_gib:.0f} GiB {kind})"


@dataclass(frozen=True)
class Sensors:
    """The current values of one GPU's sensors; a value that NVML does not report is None."""

    memory_mib: float | None  # used by all processes; NVML has no such figure for unified memory
    temperature_c: int | None
    sm_clock_mhz: int | None
    power_w: float | None
    reasons: tuple[str, ...] | None  # of ``REASONS``
    energy_j: float | None = None  # since the driver was loaded


@dataclass(frozen=True)
class Seen:
    """The detected GPUs, or why there are none; ``broken`` is the error of an NVML that does not work."""

    gpus: tuple[Gpu, ...] = ()
    why_none: str = ""
    broken: str = ""

    def __str__(self) -> str:
        """The GPUs as the header describes them."""
        return "; ".join(map(str, self.gpus)) or self.why_none or self.broken


ELSEWHERE = Seen(why_none="none looked for: the servers run on another machine")


def look() -> Seen:
    """The GPUs that a server on this machine sees. This function does not raise."""
    try:
        nvml: Any = importlib.import_module("pynvml")  # the environment for CPUs does not contain it
    except ImportError:
        return Seen(why_none="none looked for: nvidia-ml-py is not installed")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        if type(error).__name__ in _NO_DRIVER:
            return Seen(why_none="none: there is no NVIDIA driver")
        return Seen(broken=f"NVML does not answer: {error}")
    try:
        found = tuple(_gpus(nvml))
    except (nvml.NVMLError, OSError, ValueError) as error:
        return Seen(broken=f"NVML does not answer: {error}")
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()
    named = os.environ.get(VISIBLE)
    none = "the NVIDIA driver has no GPU" if named is None else f"{VISIBLE} is {named!r}"
    return Seen(found, "" if found else f"none: {none}")


@contextlib.contextmanager
def sensors() -> Iterator[Callable[[], list[Sensors]]]:
    """A function that reads the sensors of every GPU that ``look`` finds; it returns an empty list without GPUs."""
    if not look().gpus:
        yield list
        return
    nvml: Any = importlib.import_module("pynvml")
    nvml.nvmlInit()
    try:
        handles = _handles(nvml)
        yield lambda: [_sensors(nvml, handle) for handle in handles]
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _sensors(nvml: Any, handle: Any) -> Sensors:
    def read(ask: Callable[[Any], Any]) -> Any:
        return _ask_nvml(ask, handle, nvml.NVMLError)

    memory = read(lambda h: nvml.nvmlDeviceGetMemoryInfo(h).used)
    power = read(nvml.nvmlDeviceGetPowerUsage)
    bits = read(nvml.nvmlDeviceGetCurrentClocksThrottleReasons)
    energy = read(nvml.nvmlDeviceGetTotalEnergyConsumption)
    return Sensors(
        memory_mib=None if memory is None else memory / (1 << 20),
        temperature_c=read(lambda h: nvml.nvmlDeviceGetTemperature(h, nvml.NVML_TEMPERATURE_GPU)),
        sm_clock_mhz=read(lambda h: nvml.nvmlDeviceGetClockInfo(h, nvml.NVML_CLOCK_SM)),
        power_w=None if power is None else power / 1000,
        reasons=None if bits is None else tuple(name for name, bit in REASONS.items() if bits & bit),
        energy_j=None if energy is None else energy / 1000,
    )


def hardware_of(seen: Seen, known: Sequence[Hardware]) -> str:
    """The name of the profile that every GPU of this machine matches, or "cpu" without GPUs.

    Raises:
        UsageError: no profile matches, or several do; the sentence names the candidates.
    """
    if seen.broken:
        raise UsageError(_unclear(seen.broken, known))
    if not seen.gpus:
        return CPU
    names = [[each.name for each in known if _matches(gpu, each)] for gpu in seen.gpus]
    first = names[0]
    if len(first) == 1 and all(each == first for each in names):
        return first[0]
    if any(each != first for each in names):
        raise UsageError(_unclear(f"this machine has GPUs of several kinds, {seen}", known))
    of_sm = [each for each in known if each.sm == seen.gpus[0].sm]
    how = "matches more than one profile" if first else "matches no profile"
    raise UsageError(_unclear(f"the GPU of this machine, {seen.gpus[0]}, {how}", of_sm or known))


def _matches(gpu: Gpu, hardware: Hardware) -> bool:
    nominal = hardware.memory_gb or 0.0
    sized = nominal * (1 - _KEPT_BACK) <= gpu.memory_gib <= nominal * (1 + _KEPT_BACK)
    kind = hardware.memory == "unified" or not gpu.unified
    return hardware.sm == gpu.sm and sized and kind and not hardware.by_name_only


def _unclear(what: str, candidates: Sequence[Hardware]) -> str:
    """The sentence that names the candidates."""
    names = ", ".join(sorted(each.name for each in candidates))
    return f"{what}; choose by --hardware one of {names}, or write a TOML file as in fixtures/hardware."


def _handles(nvml: Any) -> list[Any]:
    """The GPUs that CUDA_VISIBLE_DEVICES names, or all: the server does not use the other GPUs of a shared host.

    Numbers are those of NVML, as in vLLM. The first entry that is neither a number nor a UUID ends the list, as in
    CUDA.
    """
    named = os.environ.get(VISIBLE)
    if named is None:
        return _all_handles(nvml)
    words = itertools.takewhile(_NAME.fullmatch, map(str.strip, named.split(",")))
    return [
        nvml.nvmlDeviceGetHandleByIndex(int(word)) if word.isdigit() else _handle_by_uuid(nvml, word) for word in words
    ]


def _all_handles(nvml: Any) -> list[Any]:
    return [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]


def _handle_by_uuid(nvml: Any, word: str) -> Any:
    """The GPU whose UUID begins so, as CUDA takes it; NVML itself knows whole UUIDs only, and those of MIG."""
    found = [handle for handle in _all_handles(nvml) if str(nvml.nvmlDeviceGetUUID(handle)).startswith(word)]
    return found[0] if len(found) == 1 else nvml.nvmlDeviceGetHandleByUUID(word)


def _gpus(nvml: Any) -> Iterator[Gpu]:
    driver, cuda = str(nvml.nvmlSystemGetDriverVersion()), int(nvml.nvmlSystemGetCudaDriverVersion_v2())
    for handle in _handles(nvml):
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        memory = _ask_nvml(lambda h: nvml.nvmlDeviceGetMemoryInfo(h).total, handle, nvml.NVMLError_NotSupported)
        limit = _ask_nvml(nvml.nvmlDeviceGetEnforcedPowerLimit, handle, nvml.NVMLError)
        yield Gpu(
            name=str(nvml.nvmlDeviceGetName(handle)),
            sm=10 * major + minor,
            memory_gib=(memory or shared_bytes(_MEMINFO)) / (1 << 30),
            unified=not memory,
            driver=driver,
            cuda=f"{cuda // 1000}.{cuda % 1000 // 10}",
            sm_clock_mhz=_ask_nvml(
                lambda h: nvml.nvmlDeviceGetMaxClockInfo(h, nvml.NVML_CLOCK_SM), handle, nvml.NVMLError
            ),
            memory_clock_mhz=_ask_nvml(
                lambda h: nvml.nvmlDeviceGetMaxClockInfo(h, nvml.NVML_CLOCK_MEM), handle, nvml.NVMLError
            ),
            power_limit_w=None if limit is None else limit / 1000,
        )


def _ask_nvml(ask: Callable[[Any], Any], handle: Any, untold: type[Exception]) -> Any:
    """The value that NVML reports for a GPU, or None if NVML raises ``untold``."""
    try:
        return ask(handle)
    except untold:
        return None


def shared_bytes(meminfo: Path) -> int:
    """The memory that CPU and GPU share, in bytes: NVML does not report it (GB10).

    Raises:
        ValueError: the file does not tell the size of the memory.
    """
    for line in meminfo.read_text(encoding="ascii").splitlines():
        if line.startswith("MemTotal:"):
            return 1024 * int(line.split()[1])
    raise ValueError(f"{meminfo} has no MemTotal")
