"""What was seen inside the running server: the loaded draft, and the kernels that serve the experts."""

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
    """A parameter or buffer as loaded; ``sums`` are SHA-256 of the checkpoint tensors that it holds.

    Where workers have a part each of it, along the dimension ``shared_out``, a sum is those of all parts.
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
    """The draft's half of the ``draft_load`` observation, taken between loading and repacking."""

    parameters: Mapping[str, Parameter]
    quant_methods: Mapping[str, str] | str
    source: str = "observations/draft_load.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation; where this vLLM does not tell the quantisation methods, they are its reason."""
        draft = facts["draft"]
        parameters = {name: Parameter.of(row) for name, row in draft["parameters"].items()}
        linears = draft["linears"]
        if isinstance(linears.get("unsupported"), str):
            return cls(parameters, linears["unsupported"])
        return cls(parameters, {name: row["quant_method"] for name, row in linears.items()})

    def shapes(self, part: str) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors of a part ("mlp", "self_attn") by their names in vLLM."""
        return {name: held.shape for name, held in self.parameters.items() if f".{part}." in name}

    def dtypes(self) -> dict[str, str]:
        """torch's dtype of every parameter; buffers may be integers."""
        return {name: held.dtype for name, held in self.parameters.items() if held.kind == "parameter"}

    def methods(self) -> Mapping[str, str]:
        """Class of the quantisation method of every linear layer and of the output head."""
        if isinstance(self.quant_methods, str):
            raise Unsupported(self.quant_methods)
        return self.quant_methods

    def digests(self, checkpoint: Collection[str]) -> dict[str, str]:
        """SHA-256 of every parameter under the name that a checkpoint has for it, and of its buffers.

        vLLM keeps buffers of its own (scales of the attention), which no checkpoint holds.
        """
        found: dict[str, str] = {}
        for name, held in self.parameters.items():
            if held.kind == "buffer" and name not in checkpoint:
                continue
            found |= zip(_tensors(name, held), held.sums, strict=True)
        return found

    def shared_out(self) -> dict[str, SharedOut]:
        """What workers have parts of, by its name in a checkpoint."""
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
    """The ``moe`` observation: the experts' backend as each layer has it, and as the log names it."""

    layers: Mapping[str, str | Mapping[str, str]]
    classes: Mapping[str, str | Mapping[str, str]]
    log_lines: tuple[str, ...] | None  # None where somebody else keeps the log
    vllm_version: str
    profile: Profile
    source: str = "observations/moe.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any], profile: Profile) -> Self:
        """Read the observation; the profile says what to expect."""
        layers = {name: row["backend"] for name, row in facts["layers"].items()}
        classes = {name: row["experts"] for name, row in facts["layers"].items()}
        lines = None if facts["log_lines"] is None else tuple(facts["log_lines"])
        return cls(layers, classes, lines, facts["vllm_version"], profile)

    def expected(self) -> str:
        """The backend of this hardware, quantisation and vLLM version; Unsupported where the profile names none."""
        return self.profile.hardware.expected_moe_backend(self.profile.pair.quantisation, self.vllm_version)

    def backends(self) -> dict[str, str]:
        """By layer; Unsupported where this vLLM does not tell."""
        return _told(self.layers)

    def experts(self) -> dict[str, str]:
        """The class of the experts' kernel by layer; Unsupported where this vLLM does not tell."""
        return _told(self.classes)

    def experts_of_the_first_layer(self) -> str:
        """What all others have to be; an ObservationError without a layer."""
        if not self.classes:
            raise ObservationError(f"{self.source}: nothing to compare")
        return next(iter(self.experts().values()))

    def logged(self) -> dict[str, str]:
        """By log line; an ObservationError where no line names a backend."""
        if self.log_lines is None:
            raise Unsupported(
                "Somebody else keeps the log of an attached server, so what it says of kernels is not seen."
            )
        named = {line: found[1] for line in self.log_lines if (found := LOGGED_BACKEND.search(line))}
        if not named:
            raise ObservationError("the server's log names no MoE backend")
        return {f"the log's line {number}": backend for number, backend in enumerate(named.values(), 1)}


@dataclass(frozen=True)
class Kernels:
    """The ``kernels`` observation beside what is known of the backends' kernels."""

    executed: Mapping[str, int]
    activity: str
    moe: Moe
    known: Mapping[str, Kernel]
    source: str = "observations/kernels.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any], moe: Moe, known: Mapping[str, Kernel]) -> Self:
        """Read the observation; an ObservationError where the profiler saw nothing."""
        if not facts["executed"]:
            raise ObservationError(f"torch's profiler saw no {facts['activity']} activity")
        return cls(facts["executed"], facts["activity"], moe, known)

    def of_experts(self) -> dict[str, int]:
        """How often the expected backend's kernels ran; Unsupported where nobody has written down their name."""
        backend = self.moe.expected()
        if backend not in self.known:
            raise Unsupported(f"fixtures/facts/moe_backends.toml names no kernel of {backend}.")
        return {name: times for name, times in self.executed.items() if re.search(self.known[backend].name, name)}

    def strangers(self) -> list[str]:
        """Kernels of other MoE backends that ran, or that none of the expected one's did."""
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
        """Which ran how often."""
        return "; ".join(f"{name[:80]}: {times} times" for name, times in self.of_experts().items())


def _told(facts: Mapping[str, str | Mapping[str, str]]) -> dict[str, str]:
    named: dict[str, str] = {}
    for name, fact in facts.items():
        if not isinstance(fact, str):
            raise Unsupported(fact["unsupported"])
        named[name] = fact
    return named


@dataclass(frozen=True)
class MoeRefusal:
    """The ``moe_refusal`` observation: what a start with an impossible backend came to."""

    backend: str
    came_up: bool
    reason: str | None
    seconds: float
    source: str = "observations/moe_refusal.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation."""
        return cls(facts["backend"], facts["came_up"], facts["reason"], facts["seconds"])

    def ending(self) -> str:
        """vLLM's reason, or what happened instead."""
        if self.came_up:
            return f"the server came up with --moe-backend {self.backend}"
        return self.reason or f"it gave no reason and was stopped after {self.seconds:.0f} s"
