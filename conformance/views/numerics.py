"""The deviation of single modules of the running server from their float32 reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError, Unsupported
from conformance.reference.numeric_error import Deviation, deviation


@dataclass(frozen=True)
class Numerics:
    """The ``numerics`` observation."""

    facts: Mapping[str, Any]
    source: str = "observations/numerics.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation."""
        return cls(facts)

    def draft_linears(self) -> dict[str, Deviation]:
        """The deviation of each linear layer of the draft.

        Raises:
            Unsupported: this vLLM does not allow the observation.
        """
        return self._deviations("draft_linears")

    def draft_mlps(self) -> dict[str, Deviation]:
        """The deviation of each MLP of the draft.

        Raises:
            Unsupported: this vLLM does not allow the observation.
        """
        return self._deviations("draft_mlps")

    def routers(self) -> dict[str, Deviation]:
        """The deviation of the router logits of each decoder layer.

        Raises:
            Unsupported: this vLLM does not allow the observation.
        """
        return {f"{name}.router": found for name, found in self._deviations("routers").items()}

    def experts(self) -> dict[str, Deviation]:
        """The deviation of the routed experts' output of each decoder layer.

        Raises:
            Unsupported: this vLLM does not allow the observation.
        """
        return {f"{name}.experts": found for name, found in self._deviations("experts").items()}

    def backend(self) -> str:
        """The MoE backend of the experts, according to their layers.

        Raises:
            ObservationError: the layers name different backends, or none.
        """
        names = sorted(set(self.facts.get("backends", {}).values()))
        if len(names) != 1:
            raise ObservationError(f"the experts are served by {', '.join(names) or 'nothing'}, not by one backend")
        return str(names[0])

    def _deviations(self, part: str) -> dict[str, Deviation]:
        rows = self.facts[part]
        if isinstance(rows.get("unsupported"), str):
            raise Unsupported(rows["unsupported"])
        return {name: deviation(row["found"], row["expected"]) for name, row in rows.items()}
