"""How far the draft's steps in the running server are from transformers' own draft."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Self

from conformance.harness.closeness import Deviation, deviation
from conformance.harness.errors import ObservationError

FEWEST = 10  # first steps, below which nothing was shown


@dataclass(frozen=True)
class Parity:
    """The ``parity`` observation."""

    rows: tuple[Mapping[str, Any], ...]
    source: str = "observations/parity.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation; an ObservationError where so few steps were recognised that nothing is shown."""
        rows = tuple(facts["rows"])
        for kind, together in {"alone": False, "in a batch": True}.items():
            if len([row for row in rows if row["step"] == 0 and (row["rows"] > 1) is together]) < FEWEST:
                raise ObservationError(f"fewer than {FEWEST} proposals of requests {kind} were recognised")
        if any(row["token"] is None for row in rows):
            raise ObservationError("of some draft steps no logits were captured")
        if {row["step"] for row in rows} != set(range(facts["k"])):
            raise ObservationError(f"not every one of the {facts['k']} draft steps was captured")
        return cls(rows)

    def positions(self) -> dict[str, int]:
        """The position of every captured step, by request, place and step."""
        return {self._name(row): row["position"] for row in self.rows}

    def places(self) -> dict[str, int]:
        """What those positions have to be: the last token that the target has seen, at every step."""
        return {self._name(row): row["place"] for row in self.rows}

    def inputs(self) -> dict[str, Deviation]:
        """The target's hidden state that the first step was given, in the middle of all proposals."""
        return self._medians("hidden", (0,))

    def outputs(self) -> dict[str, Deviation]:
        """The projected state of each step, in the middle of all proposals."""
        return self._medians("projected", range(max(row["step"] for row in self.rows) + 1))

    def logits(self) -> dict[str, Deviation]:
        """The largest logits of each step, in the middle of all proposals."""
        return self._medians("logits", range(max(row["step"] for row in self.rows) + 1))

    def other_tokens(self, near_tie: float) -> list[str]:
        """Steps whose token is not the reference's and no near-tie either, each as a sentence."""
        return [
            f"{self._name(row)} drafts {row['token']} where {row['expected_token']} is expected, by {row['gap']:.2f}"
            for row in self.rows
            if row["token"] != row["expected_token"] and row["gap"] > near_tie
        ]

    def worst(self) -> dict[str, Deviation]:
        """The single step whose projected state is furthest off, by request."""
        found: dict[str, Deviation] = {}
        for row in self.rows:
            name, this = f"the worst step of {row['request']}", self._deviation(row, "projected")
            found[name] = max(found.get(name, this), this, key=lambda each: each.error)
        return found

    def _medians(self, what: str, steps: Collection[int]) -> dict[str, Deviation]:
        groups: dict[str, list[Deviation]] = {}
        for row in (row for row in self.rows if row["step"] in steps):
            name = f"step {row['step']} of a request {'in a batch' if row['rows'] > 1 else 'alone'}"
            groups.setdefault(name, []).append(self._deviation(row, what))
        return {
            name: Deviation(median(each.error for each in group), median(each.cosine for each in group))
            for name, group in groups.items()
        }

    @staticmethod
    def _deviation(row: Mapping[str, Any], what: str) -> Deviation:
        return deviation([row[what]["found"]], [row[what]["expected"]])

    @staticmethod
    def _name(row: Mapping[str, Any]) -> str:
        return f"{row['request']}, place {row['place']}, step {row['step']}"
