"""The MoE kernel that vLLM selects on every device, and the kernel that is expected there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError, Unsupported
from conformance.profile.moe_facts import CPU, NONE, Expectation

ACCEPTED, REFUSED, NOT_EVALUATED = "accepted", "refused", "not evaluated"
EMULATION = "EMULATION"
NO_KERNEL = "NotImplementedError: "  # raised by the selection when it has tried every backend
REFUSAL = r"^ValueError: .*does not support.* since \S"


@dataclass(frozen=True)
class Backend:
    """One backend on one device; ``reasons`` come from its kernels, ``objections`` are common to all of them."""

    state: str
    reasons: tuple[str, ...]
    objections: tuple[str, ...]
    libraries: frozenset[str]

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read one row of the observation."""
        rows = [row for row in facts["kernels"] if row["state"] == facts["state"]]
        common = [word for word in rows[0]["objections"] if all(word in row["objections"] for row in rows)]
        every = [word for row in rows for word in row["objections"]]
        libraries = frozenset(name for row in facts["kernels"] for name in row["libraries"])
        reasons = dict.fromkeys(row["reason"] for row in rows)
        return cls(facts["state"], tuple(reasons), tuple(dict.fromkeys(common or every)), libraries)


@dataclass(frozen=True)
class Request:
    """``--moe-backend word``: the backend that the word means, and the result of the request."""

    backend: str
    chosen: str | None
    error: str | None


@dataclass(frozen=True)
class Device:
    """The selection on one device; ``chosen`` is "none" if vLLM has no kernel, None if the selection failed."""

    order: tuple[str, ...]
    chosen: str | None
    error: str
    backends: Mapping[str, Backend]
    explicit: Mapping[str, Request]

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read one device of the observation."""
        error = facts["error"] or ""
        return cls(
            tuple(facts["order"]),
            NONE if error.startswith(NO_KERNEL) else facts["chosen"],
            error,
            {name: Backend.of(row) for name, row in facts["backends"].items()},
            {word: Request(row["backend"], row["chosen"], row["error"]) for word, row in facts["explicit"].items()},
        )

    def in_state(self, state: str) -> dict[str, Backend]:
        """The backends in this state, in the order of the selection."""
        return {name: self.backends[name] for name in self.order if self.backends[name].state == state}

    def comes_before_choice(self, backend: str) -> bool:
        """Whether the selection tries this backend before the chosen one."""
        return self.chosen not in self.order or self.order.index(backend) < self.order.index(str(self.chosen))


@dataclass(frozen=True)
class MoeOracle:
    """The ``moe_oracle`` observation, and the rows of fixtures/facts/moe_backends.toml."""

    vllm_version: str
    devices: Mapping[str, Device]
    rows: tuple[Expectation, ...]
    source: str = "observations/moe_oracle.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any], rows: Sequence[Expectation]) -> Self:
        """Read the observation; the rows say what is expected."""
        devices = {name: Device.of(row) for name, row in facts["devices"].items()}
        return cls(facts["vllm_version"], devices, tuple(rows))

    def expected(self) -> dict[str, str]:
        """The expected backend of each device where it can be evaluated on this machine.

        Raises:
            ObservationError: no device was examined.
            Unsupported: no expected backend can be evaluated on this machine.
        """
        if not self.devices:
            raise ObservationError(f"{self.source}: no device was examined")
        expected: dict[str, str] = {}
        for name in self.devices:
            for row, why_not in self.expectations(name):
                if why_not is None:
                    expected.setdefault(name, row.backend)
        if not expected:
            raise Unsupported(f"No choice of vLLM {self.vllm_version} can be compared: {self.left_out()}.")
        return expected

    def chosen(self) -> dict[str, str]:
        """The selected backend of the same devices."""
        return {name: str(self.devices[name].chosen) for name in self.expected()}

    def left_out(self) -> str:
        """Which expectations are not judged here, and why; empty if all are judged."""
        reasons: dict[str, list[str]] = {}
        for name in self.devices:
            found = self.expectations(name)
            for row, why_not in found:
                if why_not is not None:
                    reasons.setdefault(f"{row.backend} ({why_not})", []).append(name)
            if not found:
                reasons.setdefault(f"vLLM {self.vllm_version} (no row in the facts)", []).append(name)
        texts = [f"{what} on {', '.join(devices)}" for what, devices in reasons.items()]
        return f"not judged here: {'; '.join(texts)}" if texts else ""

    def expectations(self, name: str) -> list[tuple[Expectation, str | None]]:
        """The rows about this device, each with the reason why it is not judged here, or None.

        A row that holds only without a library is included if another row's backend lacks that library.
        """
        about = [row for row in self.rows if row.is_about(name, self.vllm_version)]
        named = [backend for row in about if (backend := self.devices[name].backends.get(row.backend))]
        lacking = {library for backend in named if backend.state == NOT_EVALUATED for library in backend.libraries}
        return [(row, self._why_not(name, row)) for row in about if not row.without or row.without in lacking]

    def _why_not(self, name: str, row: Expectation) -> str | None:
        device = self.devices[name]
        backend = device.backends.get(row.backend)
        if device.chosen is None:
            return device.error
        return backend.reasons[0] if backend and backend.state == NOT_EVALUATED else None

    def refused_requests(self) -> dict[str, Request]:
        """The requests for a backend that cannot serve on its device, by device and word."""
        return {
            f"{name}: --moe-backend {word}": request
            for name, device in self.devices.items()
            for word, request in device.explicit.items()
            if (backend := device.backends.get(request.backend)) and backend.state == REFUSED
        }

    def wrong_refusals(self) -> list[str]:
        """A sentence for each of these requests that did not end in a ValueError with a reason."""
        return [
            f"{what} was replaced by {request.chosen}" if request.chosen else f"{what} ended in {request.error}"
            for what, request in self.refused_requests().items()
            if request.chosen or not re.search(REFUSAL, request.error or "")
        ]

    def gpus(self) -> dict[str, Device]:
        """Every GPU.

        Raises:
            Unsupported: the selection failed on a GPU, which would be left out otherwise.
        """
        gpus = {name: device for name, device in self.devices.items() if name != CPU}
        if broken := [f"{name} ({gpu.error})" for name, gpu in gpus.items() if gpu.chosen is None]:
            raise Unsupported(f"vLLM's selection fails in this build on {', '.join(broken)}.")
        return gpus

    def fallbacks(self) -> list[str]:
        """A sentence for each GPU that has no kernel of its own."""
        words = {EMULATION: "falls back to EMULATION", NONE: "has no kernel at all"}
        return [f"{name} {words[str(gpu.chosen)]}" for name, gpu in self.gpus().items() if gpu.chosen in words]
