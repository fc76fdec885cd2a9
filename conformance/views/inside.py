"""What the probe sees inside the running server: the loaded draft, and the kernels that serve the experts."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.checkpoints.draft_names import in_checkpoint
from conformance.errors import ObservationError, Unsupported
from conformance.profile.moe_facts import Kernel
from conformance.profile.profile import Profile
from conformance.views.static import SHARES, SharedOut

LOGGED_BACKEND = re.compile(r"Using '?([\w ]+?)'? \w+ MoE backend")


@dataclass(frozen=True)
class Parameter:
    """A parameter or buffer as loaded; ``sums`` has the SHA-256 of each checkpoint tensor that it holds.

    If the workers hold shards along the dimension ``shared_out``, a sum joins the SHA-256 of all shards.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    sums: tuple[str, ...]
    shared_out: int | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Read a row of the observation."""
        shared = [SHARES.join(shares) for shares in row.get("shares", ())]
        sums = shared or row.get("parts") or [row["sha256"]]
        return cls(row["kind"], tuple(row["shape"]), row["dtype"], tuple(sums), row.get("shared_out"))


@dataclass(frozen=True)
class DraftLoad:
    """The draft in the ``draft_load`` observation, taken after loading and before repacking."""

    parameters: Mapping[str, Parameter]
    quant_methods: Mapping[str, str] | str
    source: str = "observations/draft_load.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation; if this vLLM does not report the quantisation methods, the field holds the reason."""
        draft = facts["draft"]
        parameters = {name: Parameter.of(row) for name, row in draft["parameters"].items()}
        linears = draft["linears"]
        if isinstance(linears.get("unsupported"), str):
            return cls(parameters, linears["unsupported"])
        return cls(parameters, {name: row["quant_method"] for name, row in linears.items()})

    def shapes(self, part: str) -> dict[str, tuple[int, ...]]:
        """The shapes of the tensors of a part ("mlp", "self_attn") by their names in vLLM."""
        return {name: held.shape for name, held in self.parameters.items() if f".{part}." in name}

    def dtypes(self) -> dict[str, str]:
        """The torch dtype of every parameter; buffers are left out, because they may be integers."""
        return {name: held.dtype for name, held in self.parameters.items() if held.kind == "parameter"}

    def methods(self) -> Mapping[str, str]:
        """The class of the quantisation method of every linear layer and of the output head.

        Raises:
            Unsupported: this vLLM does not report the methods.
        """
        if isinstance(self.quant_methods, str):
            raise Unsupported(self.quant_methods)
        return self.quant_methods

    def digests(self, checkpoint: Collection[str]) -> dict[str, str]:
        """The SHA-256 of every parameter and buffer, by its name in a checkpoint.

        vLLM's own buffers, such as the scales of the attention, are left out, because no checkpoint holds them.
        """
        found: dict[str, str] = {}
        for name, held in self.parameters.items():
            if held.kind == "buffer" and name not in checkpoint:
                continue
            found |= zip(_tensors(name, held), held.sums, strict=True)
        return found

    def shared_out(self) -> dict[str, SharedOut]:
        """The tensors that the workers hold in shards, by their names in a checkpoint."""
        return {
            own: (held.shared_out, held.shape[held.shared_out] // len(held.sums))
            for name, held in self.parameters.items()
            if held.shared_out is not None
            for own in _tensors(name, held)
        }


def _tensors(name: str, held: Parameter) -> list[str]:
    """The checkpoint tensors that a parameter holds."""
    own = in_checkpoint(name)
    if len(held.sums) == 2 and own.endswith(".gate_up_proj.weight"):
        return [own.replace(".gate_up_proj.", f".{part}_proj.") for part in ("gate", "up")]
    return [own, *(f"{own}, part {number}" for number in range(2, len(held.sums) + 1))]


@dataclass(frozen=True)
class Moe:
    """The ``moe`` observation: the experts' backend according to each layer, and according to the log."""

    layers: Mapping[str, str | Mapping[str, str]]
    classes: Mapping[str, str | Mapping[str, str]]
    log_lines: tuple[str, ...] | None  # None where the log is not available
    vllm_version: str
    profile: Profile
    source: str = "observations/moe.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any], profile: Profile) -> Self:
        """Read the observation; the profile says what is expected."""
        layers = {name: row["backend"] for name, row in facts["layers"].items()}
        classes = {name: row["experts"] for name, row in facts["layers"].items()}
        lines = None if facts["log_lines"] is None else tuple(facts["log_lines"])
        return cls(layers, classes, lines, facts["vllm_version"], profile)

    def expected(self) -> str:
        """The expected backend for this hardware, quantisation and vLLM version.

        Raises:
            Unsupported: the profile names none.
        """
        return self.profile.hardware.expected_moe_backend(self.profile.pair.quantisation, self.vllm_version)

    def backends(self) -> dict[str, str]:
        """The backend of each layer.

        Raises:
            Unsupported: this vLLM does not report it.
        """
        return _require_all(self.layers)

    def experts(self) -> dict[str, str]:
        """The class of the experts' kernel in each layer.

        Raises:
            Unsupported: this vLLM does not report it.
        """
        return _require_all(self.classes)

    def experts_of_the_first_layer(self) -> str:
        """The class that all other layers must have too.

        Raises:
            ObservationError: there is no layer.
            Unsupported: this vLLM does not report the classes.
        """
        if not self.classes:
            raise ObservationError(f"{self.source}: nothing to compare")
        return next(iter(self.experts().values()))

    def logged(self) -> dict[str, str]:
        """The backend that each line of the log names.

        Raises:
            Unsupported: the log of an attached server is not available.
            ObservationError: no line names a backend.
        """
        if self.log_lines is None:
            raise Unsupported(
                "The log of an attached server is not available, so the backend that it names is unknown."
            )
        named = {line: found[1] for line in self.log_lines if (found := LOGGED_BACKEND.search(line))}
        if not named:
            raise ObservationError("the server's log names no MoE backend")
        return {f"the log's line {number}": backend for number, backend in enumerate(named.values(), 1)}


@dataclass(frozen=True)
class Kernels:
    """The ``kernels`` observation, and the known kernel names of each backend."""

    executed: Mapping[str, int]
    activity: str
    moe: Moe
    known: Mapping[str, Kernel]
    source: str = "observations/kernels.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any], moe: Moe, known: Mapping[str, Kernel]) -> Self:
        """Read the observation.

        Raises:
            ObservationError: the profiler recorded no kernel.
        """
        if not facts["executed"]:
            raise ObservationError(f"torch's profiler recorded no {facts['activity']} activity")
        return cls(facts["executed"], facts["activity"], moe, known)

    def of_experts(self) -> dict[str, int]:
        """How often each kernel of the expected backend ran.

        Raises:
            Unsupported: the facts do not name the kernels of this backend.
        """
        backend = self.moe.expected()
        if backend not in self.known:
            raise Unsupported(f"fixtures/facts/moe_backends.toml names no kernel of {backend}.")
        return {name: times for name, times in self.executed.items() if re.search(self.known[backend].name, name)}

    def unexpected_kernels(self) -> list[str]:
        """A sentence for each kernel of another MoE backend that ran, and one if none of the expected backend ran."""
        backend, own = self.moe.expected(), self.of_experts()
        others = {name: each.name for name, each in self.known.items() if name != backend}
        found = [
            f"{name[:120]} of {other} ran, where {backend} is expected"
            for other, pattern in others.items()
            for name in self.executed
            if re.search(pattern, name) and name not in own
        ]
        if not own:
            found.append(f"no kernel of {backend} is among the {len(self.executed)} that ran")
        return found

    def note(self) -> str:
        """How often each kernel ran, as a note."""
        return "; ".join(f"{name[:80]}: {times} times" for name, times in self.of_experts().items())


def _require_all(facts: Mapping[str, str | Mapping[str, str]]) -> dict[str, str]:
    named: dict[str, str] = {}
    for name, fact in facts.items():
        if not isinstance(fact, str):
            raise Unsupported(fact["unsupported"])
        named[name] = fact
    return named


@dataclass(frozen=True)
class MoeRefusal:
    """The ``moe_refusal`` observation: how a start with an impossible backend ended."""

    backend: str
    came_up: bool
    reason: str | None
    seconds: float
    source: str = "observations/moe_refusal.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation.

        Raises:
            ObservationError: the server wrote nothing before it was stopped, so it may not have read the backend.
        """
        if not facts["came_up"] and facts["exit_code"] is None and not facts["log_tail"]:
            raise ObservationError(
                f"the server with --moe-backend {facts['backend']} wrote nothing for {facts['seconds']:.0f} s"
            )
        return cls(facts["backend"], facts["came_up"], facts["reason"], facts["seconds"])

    def ending(self) -> str:
        """vLLM's reason for the refusal, or what happened instead."""
        if self.came_up:
            return f"the server started with --moe-backend {self.backend}"
        return self.reason or f"the server gave no reason and was stopped after {self.seconds:.0f} s"
