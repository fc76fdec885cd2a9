"""Facts that need no server: installed versions, and the contents of the two checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from conformance.checkpoints.draft_names import in_vllm
from conformance.checkpoints.pairing import Missing, implied_tensors
from conformance.errors import ObservationError, Unsupported
from conformance.profile.arms import ENGINES

SHARES = " + "
SharedOut = tuple[int, int]  # a dimension, and the size of the whole along it


@dataclass(frozen=True)
class Environment:
    """The ``environment`` observation; versions by distribution."""

    installed: Mapping[str, str]
    imported: Mapping[str, str]
    wanted: Mapping[str, str] | None  # None if the run is unlocked
    gemma4_assistant_known: bool
    mtp_model_registered: bool
    machine_libraries: Mapping[str, str] = field(default_factory=dict)  # the machine's own, with its versions
    source: str = "observations/environment.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation."""
        return cls(
            {name: version or "not installed" for name, version in facts["installed"].items()},
            facts["imported"],
            facts["locked"],
            facts["gemma4_assistant_known"],
            facts["mtp_model_registered"],
            facts.get("machine_libraries", {}),
        )

    @property
    def locked(self) -> Mapping[str, str]:
        """The version or the commit of each distribution in the lock; of the machine's own libraries, the machine's.

        Raises:
            Unsupported: the run is unlocked.
        """
        if self.wanted is None:
            raise Unsupported(
                "This run is unlocked: the installed versions are recorded, but not compared with a lock."
            )
        return {**self.wanted, **self.machine_libraries}

    @property
    def own_libraries(self) -> str:
        """A sentence that lists the machine's own libraries; empty if there are none."""
        own = [
            f"{name} {version}" + (f" (lock: {locked})" if (locked := (self.wanted or {}).get(name)) != version else "")
            for name, version in self.machine_libraries.items()
        ]
        return f"the machine's own NVIDIA libraries: {', '.join(own)}" if own else ""

    def imported_releases(self) -> dict[str, str]:
        """The versions of the imported modules, without those built from source, which have a commit.

        The module torch names its build (2.14.0+cu130) where its distribution, and so the lock, does not.

        Raises:
            Unsupported: the run is unlocked.
        """
        return {
            module: version if "+" in self.locked.get(module, "") else version.partition("+")[0]
            for module, version in self.imported.items()
            if not self.locked.get(module, "").startswith("commit ")
        }

    def locked_modules(self) -> dict[str, str]:
        """The versions that the lock requires of these modules.

        Raises:
            ObservationError: the lock does not name one of them.
            Unsupported: the run is unlocked.
        """
        demanded, released = dict(self.locked), self.imported_releases()
        demanded["vllm"] = next((demanded[name] for name in ENGINES if name in demanded), "")
        if absent := [module for module in released if not demanded.get(module)]:
            raise ObservationError(f"the lock names no version of {', '.join(absent)}")
        return {module: demanded[module] for module in released}


@dataclass(frozen=True)
class Tensor:
    """A tensor of the draft's file: dtype in safetensors' spelling, shape, and SHA-256 of its bytes."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str
    shares: tuple[tuple[str, ...], ...] = ()  # SHA-256 of each worker's shard, by rows and by columns


@dataclass(frozen=True)
class Headers:
    """The draft in the ``checkpoint`` observation."""

    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    source: str = "observations/checkpoint.json"

    @classmethod
    def of_draft(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation."""
        rows = facts["draft"]["tensors"].items()
        tensors = {
            name: Tensor(row["dtype"], tuple(row["shape"]), row["sha256"], tuple(map(tuple, row.get("shares", ()))))
            for name, row in rows
        }
        return cls(tensors, facts["draft"]["config"])

    def layout(self) -> dict[str, str]:
        """The dtype and shape of each tensor, as in ``BF16 [512, 64]``."""
        return {name: f"{tensor.dtype} {list(tensor.shape)}" for name, tensor in self.tensors.items()}

    def implied_layout(self) -> dict[str, str]:
        """The same as the config implies it.

        Raises:
            Unsupported: the draft is quantised.
            ObservationError: the config lacks a key that the tensors depend on.
        """
        if self.config.get("quantization_config"):
            raise Unsupported("The draft is quantised, so its config alone does not imply its tensors.")
        try:
            implied = implied_tensors(self.config)
        except Missing as missing:
            raise ObservationError(f"the draft's config.json implies no tensors: {missing}") from None
        return {name: f"{tensor.dtype} {list(tensor.shape)}" for name, tensor in implied.items()}

    def shapes(self, part: str) -> dict[str, tuple[int, ...]]:
        """The shapes of the tensors of a part ("mlp", "self_attn"), named and fused as in vLLM."""
        return in_vllm({name: tensor.shape for name, tensor in self.tensors.items() if f".{part}." in name})

    def digests(self, shared_out: Mapping[str, SharedOut]) -> dict[str, str]:
        """The SHA-256 of every tensor, or of all its shards if the server shards it, by its name in the checkpoint.

        Raises:
            ObservationError: the server shards a tensor, but the profile does not say so.
            Unsupported: vLLM pads a tensor before it shards it.
        """
        return {name: self._digest(name, tensor, shared_out.get(name)) for name, tensor in self.tensors.items()}

    def _digest(self, name: str, tensor: Tensor, shared: SharedOut | None) -> str:
        if shared is None:
            return tensor.sha256
        dimension, size = shared
        if not tensor.shares:
            raise ObservationError(
                f"the workers hold shards of {name}, but the profile names no --tensor-parallel-size"
            )
        if not tensor.shares[dimension] or tensor.shape[dimension] != size:
            raise Unsupported(
                f"vLLM pads {name} before it shards it, so the shards cannot be compared with the checkpoint."
            )
        return SHARES.join(tensor.shares[dimension])


@dataclass(frozen=True)
class Refusals:
    """The ``refusals`` observation: sentences that say why the pair must not be served."""

    sentences: tuple[str, ...]
    source: str = "observations/refusals.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation."""
        return cls(tuple(facts["refusals"]))
