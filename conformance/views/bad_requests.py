"""What the server made of wrong requests, and of clients that left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError


@dataclass(frozen=True)
class Misuse:
    """The ``misuse`` observation."""

    facts: Mapping[str, Any]
    source: str = "observations/bad_requests.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation."""
        return cls(facts)

    def answers(self) -> tuple[str, str]:
        """Afterwards and before; ObservationError where there was none before."""
        if not self.facts["before"]:
            raise ObservationError("there was no answer to compare with")
        return self.facts["after"], self.facts["before"]

    def requests(self, about: str) -> int:
        """How many wrong requests were made, where this was wrong with them."""
        return sum(row["about"] == about for row in self.facts["requests"])

    @property
    def departures(self) -> int:
        """How often clients left."""
        return len(self.facts["departures"])

    def not_refused(self, about: str) -> list[str]:
        """Wrong requests that were not answered with a status that is right."""
        made = [row for row in self.facts["requests"] if row["about"] == about]
        wrong = [row for row in made if row["status"] not in row["statuses"]]
        return [
            f"{row['id']} got {_status(row)} where {_either(row)} is right: {row['message'][:120]}" for row in wrong
        ]

    def still_there(self) -> list[str]:
        """One sentence for each departure: what it has left behind, or that there was nothing to leave."""
        found = {row["id"]: " and ".join(_left_behind(row)) for row in self.facts["departures"]}
        return [f"{id}: {problems}" for id, problems in found.items() if problems]


def _left_behind(row: Mapping[str, Any]) -> Iterator[str]:
    if row["delivered"] < row["clients"]:
        yield f"only {row['delivered']} of {row['clients']} had an answer to leave"
    if row["running"]:
        yield f"{row['running']} requests still run"
    if row["kv_usage"]:
        yield f"{row['kv_usage']:.1%} of the KV cache are still in use"


def _either(row: Mapping[str, Any]) -> str:
    return " or ".join(str(status) for status in row["statuses"])


def _status(row: Mapping[str, Any]) -> str:
    return "no answer" if row["status"] is None else f"HTTP {row['status']}"
