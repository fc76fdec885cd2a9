"""How the server handles invalid requests, and clients that disconnect during an answer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError


@dataclass(frozen=True)
class Misuse:
    """The ``bad_requests`` observation."""

    facts: Mapping[str, Any]
    source: str = "observations/bad_requests.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation."""
        return cls(facts)

    def answers(self) -> tuple[str, str]:
        """The answers to one question after and before all misuse.

        Raises:
            ObservationError: there was no answer before.
        """
        if not self.facts["before"]:
            raise ObservationError("there was no answer to compare with")
        return self.facts["after"], self.facts["before"]

    def requests(self, about: str) -> int:
        """The number of invalid requests of one kind."""
        return sum(row["about"] == about for row in self.facts["requests"])

    @property
    def departures(self) -> int:
        """The number of times that clients disconnected."""
        return len(self.facts["departures"])

    def wrong_statuses(self, about: str) -> list[str]:
        """A sentence for each invalid request that got a wrong status."""
        made = [row for row in self.facts["requests"] if row["about"] == about]
        wrong = [row for row in made if row["status"] not in row["statuses"]]
        return [
            f"{row['id']} got {_status(row)} where {_either(row)} is right: {row['message'][:120]}" for row in wrong
        ]

    def leftovers(self) -> list[str]:
        """A sentence for each disconnect that left something behind, or that did not interrupt an answer."""
        found = {row["id"]: " and ".join(_leftovers(row)) for row in self.facts["departures"]}
        return [f"{id}: {problems}" for id, problems in found.items() if problems]


def _leftovers(row: Mapping[str, Any]) -> Iterator[str]:
    if row["delivered"] < row["clients"]:
        yield f"only {row['delivered']} of {row['clients']} clients had received a part of their answer"
    if row["running"]:
        yield f"{row['running']} requests are still running"
    if row["kv_usage"]:
        yield f"{row['kv_usage']:.1%} of the KV cache is still in use"
    if row.get("generated", 0) >= row.get("asked", math.inf):  # evidence of earlier versions has neither
        yield f"the server wrote all {row['asked']} tokens"


def _either(row: Mapping[str, Any]) -> str:
    return " or ".join(str(status) for status in row["statuses"])


def _status(row: Mapping[str, Any]) -> str:
    return "no answer" if row["status"] is None else f"HTTP {row['status']}"
