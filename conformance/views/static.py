"""What is known without a server: installed versions, and what lies in the two checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
    wanted: Mapping[str, str] | None  # None in a run that is unlocked
    gemma4_assistant_known: bool
    mtp_model_registered: bool
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
        )

    @property
    def locked(self) -> Mapping[str, str]:
        """Version of each distribution that the lock demands, or the commit it is built from."""
        if self.wanted is None:
            raise Unsupported("This run is unlocked: what is installed is recorded, and held against no lock.")
        return self.wanted

    def imported_releases(self) -> dict[str, str]:
        """Versions of the modules that were imported, but for those that are built from source: they have a commit."""
        built = {name for name, version in self.locked.items() if version.startswith("commit ")}
        return {module: version for module, version in self.imported.items() if module not in built}

    def locked_modules(self) -> dict[str, str]:
        """What the lock demands of each of them; an ObservationError where it names none."""
        demanded, released = dict(self.locked), self.imported_releases()
        demanded["vllm"] = next((demanded[name] for name in ENGINES if name in demanded), "")
        if absent := [module for module in released if not demanded.get(module)]:
            raise ObservationError(f"the lock names no version of {', '.join(absent)}")
        return {module: demanded[module] for module in released}


@dataclass(frozen=True)
class Tensor:
    """A tensor of the draft's file: dtype as safetensors writes it, shape, SHA-256 of its bytes."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str
    shares: tuple[tuple[str, ...], ...] = ()  # the same of each worker's part, shared out by rows and by columns


@dataclass(frozen=True)
class Headers:
    """The draft's half of the ``checkpoint`` observation."""

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
        """Name of each tensor with its dtype and shape, as in ``BF16 [512, 64]``."""
        return {name: f"{tensor.dtype} {list(tensor.shape)}" for name, tensor in self.tensors.items()}

    def implied_layout(self) -> dict[str, str]:
        """The same, as the config implies it; Unsupported for a quantised draft, whose layout is its quantiser's."""
        if self.config.get("quantization_config"):
            raise Unsupported("The draft is quantised, so its config alone does not imply its tensors.")
        try:
            implied = implied_tensors(self.config)
        except Missing as missing:
            raise ObservationError(f"the draft's config.json implies no tensors: {missing}") from None
        return {name: f"{tensor.dtype} {list(tensor.shape)}" for name, tensor in implied.items()}

    def shapes(self, part: str) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors of a part ("mlp", "self_attn"), named and fused as vLLM holds them."""
        return in_vllm({name: tensor.shape for name, tensor in self.tensors.items() if f".{part}." in name})

    def digests(self, shared_out: Mapping[str, SharedOut]) -> dict[str, str]:
        """SHA-256 of every tensor by its name in the checkpoint, or of all parts of what a server has shared out."""
        return {name: self._digest(name, tensor, shared_out.get(name)) for name, tensor in self.tensors.items()}

    def _digest(self, name: str, tensor: Tensor, shared: SharedOut | None) -> str:
        if shared is None:
            return tensor.sha256
        dimension, size = shared
        if not tensor.shares:
            raise ObservationError(f"workers have parts of {name}: the profile names no --tensor-parallel-size for it")
        if not tensor.shares[dimension] or tensor.shape[dimension] != size:
            raise Unsupported(f"vLLM pads {name} to share it out, so its parts are none of the checkpoint's.")
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
