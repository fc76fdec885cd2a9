"""How the draft is connected to its target in the running server, and how the checkpoints require it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.checkpoints.pairing import Keys, Missing, kv_donors, text_keys
from conformance.errors import ObservationError, Unsupported
from conformance.profile.profile import Profile
from conformance.reference.numeric_error import Deviation, deviation

_LAYER = re.compile(r"\.layers\.(\d+)\.")


@dataclass(frozen=True)
class Wiring:
    """The ``wiring`` observation."""

    k: int
    described: Mapping[str, Any]
    metrics_positions: tuple[str, ...]
    drafted: Mapping[str, int] | None  # drafts, and tokens in them; None if an older suite recorded
    source: str = "observations/wiring.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation."""
        return cls(facts["k"], facts["described"], tuple(facts["metrics_positions"]), facts.get("drafted"))

    def fact(self, name: str) -> Any:
        """One of the probe's facts.

        Raises:
            Unsupported: this vLLM does not report it.
            ObservationError: the server has no draft.
        """
        value = self.described.get(name)
        if value is None:
            raise ObservationError(f"the probe does not report {name}: this server has no draft")
        if isinstance(value, Mapping) and "unsupported" in value:
            raise Unsupported(str(value["unsupported"]))
        return value

    def kv_layers(self) -> dict[str, str]:
        """For each draft layer, the target layer whose keys and values it reads, both by number."""
        return {_layer_number(draft): _layer_number(target) for draft, target in self.fact("draft_kv_sharing").items()}

    def kv_scales(self, whose: str) -> dict[str, float]:
        """The k and v scales of each draft layer ("draft"), or of the target layer that it reads ("target")."""
        return {
            f"{_layer_number(layer)} {kind}": scales[f"{whose}_{kind}"]
            for layer, scales in self.fact("draft_kv_scales").items()
            for kind in ("k", "v")
        }

    def head(self) -> dict[str, Any]:
        """The shape of the draft's head, and whether it is the target's embedding."""
        head = self.fact("draft_lm_head")
        return {name: head[name] for name in ("vocabulary", "hidden", "is_targets")}

    def embedding_scale(self, expected: float) -> dict[str, Deviation]:
        """The deviation of the factor on the draft's embedding from the expected one."""
        found = self.fact("draft_normalizer")
        return {f"embedding scale {found:g} (expected {expected:g})": deviation([[found]], [[expected]])}

    def tokens_per_draft(self) -> float:
        """The mean number of tokens in a draft; 0 without a draft."""
        drafted = self.drafted or {"drafts": 0, "draft_tokens": 0}
        return drafted["draft_tokens"] / max(1, drafted["drafts"])

    def attention(self) -> str:
        """The attention backends of draft and target, as a note."""
        backends = self.fact("attention_backends")
        found = {
            whose: ", ".join(sorted({b for name, b in backends.items() if name.startswith("draft_model.") is drafts}))
            for whose, drafts in {"draft": True, "target": False}.items()
        }
        return f"attention backend of the draft: {found['draft']}; of the target: {found['target']}"


@dataclass(frozen=True)
class Attention:
    """The backend of every attention layer of target and draft, in the ``wiring`` observation."""

    wiring: Wiring
    profile: Profile

    @classmethod
    def of(cls, facts: Mapping[str, Any], profile: Profile) -> Self:
        """Read the observation; the profile says what is expected."""
        return cls(Wiring.of(facts), profile)

    @property
    def source(self) -> str:
        """The file of the observation."""
        return self.wiring.source

    def backends(self) -> dict[str, str]:
        """The backend of each layer; names of draft layers begin with "draft_model."."""
        return dict(self.wiring.fact("attention_backends"))

    def expected(self) -> str:
        """The expected backend for this hardware and vLLM version.

        Raises:
            Unsupported: the profile names none.
        """
        return self.profile.hardware.expected_attention_backend(str(self.wiring.fact("vllm_version")))


@dataclass(frozen=True)
class PairConfig:
    """Both configs in the ``checkpoint`` observation."""

    target: Mapping[str, Any]
    draft: Mapping[str, Any]

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation."""
        return cls(facts["target"]["config"], facts["draft"]["config"])

    def embedding_scale(self) -> float:
        """The square root of the target's width, because the draft uses the target's embedding."""
        return math.sqrt(self._number(Keys(self.draft), "backbone_hidden_size"))

    def head(self) -> dict[str, Any]:
        """The head that the draft's config implies: its own head, tied to its own embedding."""
        text = text_keys(self.draft)
        return {
            "vocabulary": self._number(text, "vocab_size"),
            "hidden": self._number(text, "hidden_size"),
            "is_targets": False,
        }

    def kv_layers(self) -> dict[str, str]:
        """For each draft layer, the last target layer of its kind that owns keys and values.

        Raises:
            ObservationError: a config lacks a key that this depends on.
        """
        try:
            return {f"layer {draft}": f"layer {target}" for draft, target in kv_donors(self.draft, self.target).items()}
        except Missing as missing:
            raise ObservationError(f"config.json: {missing}") from None

    @staticmethod
    def _number(keys: Keys, name: str) -> int:
        try:
            return keys.integer(name)
        except Missing as missing:
            raise ObservationError(f"the draft's config.json: {missing}") from None


def _layer_number(layer: str) -> str:
    found = _LAYER.search(str(layer))
    return f"layer {found[1]}" if found else str(layer)
