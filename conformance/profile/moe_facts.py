"""Facts about the kernels for Gemma 4's experts: fixtures/facts/moe_backends.toml."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import AfterValidator
from pydantic.dataclasses import dataclass

from conformance import FIXTURES
from conformance.errors import UsageError
from conformance.formats import toml_tables
from conformance.formats.toml_tables import STRICT

MOE_FACTS = FIXTURES / "facts" / "moe_backends.toml"
CPU = "CPU"
NONE = "none"  # the backend of a device for which vLLM has no kernel


def _versions(text: str) -> str:
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        raise ValueError('a version specifier such as ">=0.32"') from None
    return text


@dataclass(frozen=True, config=STRICT)
class Experts:
    """A MoE layer as vLLM's selection sees it: sizes before tensor parallelism, names from vLLM's enums."""

    experts: int
    top_k: int
    hidden: int
    intermediate: int
    activation: str  # in MoEActivation
    routing: str  # in RoutingMethodType
    dtype: str  # of torch
    source: str


@dataclass(frozen=True, config=STRICT)
class Walk:
    """The devices to simulate, and the backends to request by name (``--moe-backend``) on each."""

    sm: tuple[int, ...]
    explicit: tuple[str, ...]


@dataclass(frozen=True, config=STRICT)
class Expectation:
    """One row: the expected backend on some devices in some vLLM versions, with its provenance."""

    on: tuple[str, ...]
    versions: Annotated[str, AfterValidator(_versions)]
    backend: str
    seen: Literal["reported", "code"]
    source: str
    without: str = ""

    def is_about(self, device: str, vllm: str) -> bool:
        """Whether the row applies to this device and this vLLM version."""
        return device in self.on and SpecifierSet(self.versions).contains(vllm, prereleases=True)


@dataclass(frozen=True, config=STRICT)
class Kernel:
    """The name of the kernel that a backend executes, as a regular expression, with its provenance."""

    name: str
    seen: Literal["reported", "code"]
    source: str


@dataclass(frozen=True, config=STRICT)
class MoeFacts:
    """The whole file."""

    moe: Experts
    walk: Walk
    expected: tuple[Expectation, ...]  # of experts in NVFP4
    unquantised: tuple[Expectation, ...]  # of experts in BF16
    kernels: Mapping[str, Kernel]  # by backend

    @property
    def devices(self) -> dict[str, int | None]:
        """Every device of the walk with its SM; the CPU has none."""
        return {device_name(sm): sm for sm in (*self.walk.sm, None)}


def device_name(sm: int | None) -> str:
    """The name of a device in facts and evidence: "SM 121", "CPU"."""
    return CPU if sm is None else f"SM {sm}"


def load_moe_facts(path: Path = MOE_FACTS) -> MoeFacts:
    """The facts about MoE kernels.

    Raises:
        UsageError: the file is wrong; the sentence names the file, the key and the mend.
    """
    facts = toml_tables.read(path, MoeFacts)
    for name in ("expected", "unquantised"):
        for device in (device for row in getattr(facts, name) for device in row.on):
            if device not in facts.devices:
                hint = toml_tables.nearest(device, facts.devices)
                raise UsageError(f'{path}: key "{name}.on" has "{device}", which walk.sm does not list.{hint}')
    return facts
