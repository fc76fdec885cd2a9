"""A stand-in for NVML: a module ``pynvml`` with given cards."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

MIB = 1 << 20


@dataclass(frozen=True)
class Card:
    """What NVML says of one GPU; None is "not supported"."""

    name: str
    capability: tuple[int, int]
    memory: int | None
    clock: int | None = 1980
    limit: int | None = 700_000
    used: int = 0  # bytes
    joules: tuple[float, ...] = ()  # of its counter, one reading after another; the last one stays


H100 = Card("NVIDIA H100 80GB HBM3", (9, 0), 81559 * MIB)
H200 = Card("NVIDIA H200", (9, 0), 143771 * MIB)
B300 = Card("NVIDIA B300 SXM6 AC", (10, 3), 275040 * MIB)
PRO_6000 = Card("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", (12, 0), 97887 * MIB)
RTX_5090 = Card("NVIDIA GeForce RTX 5090", (12, 0), 32607 * MIB)
GB10 = Card("NVIDIA GB10", (12, 1), None, clock=3003, limit=None)
A100_40 = Card("NVIDIA A100-SXM4-40GB", (8, 0), 40960 * MIB)
VOLTA = Card("Tesla V100-SXM2-16GB", (7, 0), 16384 * MIB)


def nvml(*cards: Card, fails: str = "", late: str = "") -> ModuleType:
    """A module ``pynvml`` with these cards. ``fails`` names an error of nvmlInit, ``late`` one of the device count."""
    made: Any = ModuleType("pynvml")
    made.NVMLError = type("NVMLError", (Exception,), {})
    names = ("LibraryNotFound", "DriverNotLoaded", "NotSupported", "Unknown")
    errors = {name: type(f"NVMLError_{name}", (made.NVMLError,), {}) for name in names}
    made.NVMLError_NotSupported = errors["NotSupported"]

    def told(value: Any) -> Any:
        if value is None:
            raise errors["NotSupported"]("Not Supported")
        return value

    def begin() -> None:
        if fails:
            raise errors[fails](fails)

    def count() -> int:
        if late:
            raise errors[late](late)
        return len(cards)

    def by_uuid(uuid: str) -> Card:
        """The card with the whole UUID; an instance of MIG is taken for a card."""
        whole = {made.nvmlDeviceGetUUID(card): card for card in cards} | {"MIG-7": cards[0]}
        if uuid not in whole:
            raise errors["Unknown"]("Not Found")
        return whole[uuid]

    made.NVML_CLOCK_SM, made.NVML_CLOCK_MEM = 1, 2
    made.nvmlInit, made.nvmlShutdown, made.nvmlDeviceGetCount = begin, lambda: None, count
    made.nvmlSystemGetDriverVersion = lambda: "590.44.01"
    made.nvmlSystemGetCudaDriverVersion_v2 = lambda: 13010
    made.nvmlDeviceGetHandleByIndex = lambda number: cards[number]
    made.nvmlDeviceGetHandleByUUID = by_uuid
    made.nvmlDeviceGetUUID = lambda card: f"GPU-{cards.index(card)}a5b-4e67"
    made.nvmlDeviceGetName = lambda card: card.name
    made.nvmlDeviceGetCudaComputeCapability = lambda card: card.capability
    made.nvmlDeviceGetMemoryInfo = lambda card: type("Memory", (), {"total": told(card.memory), "used": card.used})
    made.nvmlDeviceGetMaxClockInfo = lambda card, _kind: told(card.clock)
    made.NVML_TEMPERATURE_GPU = 0
    made.nvmlDeviceGetPowerUsage = made.nvmlDeviceGetCurrentClocksThrottleReasons = lambda _card: told(None)
    spent = {id(card): list(card.joules) for card in cards}

    def energy(card: Card) -> float:
        """In millijoules."""
        left = spent[id(card)]
        joules = told((left.pop(0) if len(left) > 1 else left[0]) if left else None)
        return 1000 * float(joules)

    made.nvmlDeviceGetTotalEnergyConsumption = energy
    made.nvmlDeviceGetTemperature = made.nvmlDeviceGetClockInfo = lambda _card, _kind: told(None)
    made.nvmlDeviceGetEnforcedPowerLimit = lambda card: told(card.limit)
    return made
