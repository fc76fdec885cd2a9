"""Which k pays for how many requests at once, and the schedule in vLLM's form that follows."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError
from conformance.judging import stats
from conformance.judging.stats import Estimate
from conformance.profile import draft_schedule

WARNINGS = "vllm#48494, vllm#49548"  # what a schedule may break


@dataclass(frozen=True)
class Cell:
    """One k at one number of requests at once: seconds for each token, by round, without MTP and with it."""

    k: int
    at_once: int
    plain: tuple[float, ...]
    mtp: tuple[float, ...]
    drafts: int
    accepted: int

    @property
    def name(self) -> str:
        return f"{self.at_once} at once, k = {self.k}"

    def speedup(self) -> Estimate:
        """Seconds for a token without MTP over those with it, by round."""
        return stats.speedup(self.plain, self.mtp)

    @property
    def rate(self) -> float:
        """Tokens/s of all requests together, with MTP."""
        return 1 / statistics.geometric_mean(self.mtp)

    @property
    def rate_without(self) -> float:
        """Tokens/s of all requests together, without MTP."""
        return 1 / statistics.geometric_mean(self.plain)

    @property
    def length(self) -> float:
        """The acceptance length."""
        return 1 + self.accepted / self.drafts


@dataclass(frozen=True)
class KByBatch:
    """The ``k_by_batch`` observation: every k at every number of requests at once."""

    k: int  # of the pair
    joint: tuple[float, ...]  # the rates at which drafts were accepted
    published: int  # how many of them are published; the others repeat the last conditional one
    cells: Mapping[int, Mapping[int, Cell]]  # by number of requests at once, then by k
    source: str = "observations/k_by_batch.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation.

        Raises:
            ObservationError: nothing was asked, counts contradict the k, or the pair's own k is missing.
        """
        cells: dict[int, dict[int, Cell]] = {}
        for cell in _cells(facts["rows"]):
            cells.setdefault(cell.at_once, {})[cell.k] = cell
        if not cells:
            raise ObservationError(f"{cls.source}: no k was timed")
        for number, found in cells.items():
            if facts["k"] not in found:
                raise ObservationError(f"{cls.source}: the pair's k = {facts['k']} was not timed at {number} at once")
        return cls(facts["k"], tuple(facts["joint"]), facts["published"], dict(sorted(cells.items())))

    @property
    def own(self) -> list[Cell]:
        """The pair's own k at each number of requests."""
        return [found[self.k] for found in self.cells.values()]

    def fastest(self, number: int) -> Cell:
        """The fastest k with so many requests at once."""
        return max(self.cells[number].values(), key=lambda cell: cell.speedup().value)

    def best(self) -> dict[int, int]:
        """The fastest k by number of requests; 0 where its speedup is not shown to be above 1."""
        found = {number: self.fastest(number) for number in self.cells}
        return {number: cell.k if cell.speedup().low > 1 else 0 for number, cell in found.items()}

    def settings(self) -> str:
        """What ``--speculative-config`` should say besides method and model, as JSON."""
        return json.dumps(draft_schedule.settings(self.best()))

    def advice(self) -> str:
        """A sentence with the settings."""
        best = self.best()
        if not any(best.values()):
            return "No k is shown to pay at any number of requests at once: serve without MTP."
        where = "; ".join(f"{first} to {last} at once: {_named(k)}" for first, last, k in draft_schedule.ranges(best))
        said = f"{where}. In vLLM's form: {self.settings()}."
        warning = f" Read {WARNINGS} before a schedule is used." if draft_schedule.SCHEDULE in self.settings() else ""
        return said + warning

    def note(self) -> str:
        """The fastest k of each number of requests, and the settings."""
        table = "; ".join(
            f"{number} at once: k = {cell.k}, {cell.speedup()}, {cell.rate:.0f} tokens/s (without MTP "
            f"{cell.rate_without:.0f})"
            for number, cell in ((number, self.fastest(number)) for number in self.cells)
        )
        return f"fastest at {table}. {self.advice()} {self.rates()}"

    def rates(self) -> str:
        """A sentence about the rates."""
        said = ", ".join(f"{rate:.2f}" for rate in self.joint)
        beyond = f"; from position {self.published + 1} on the last published share of a draft that goes on is repeated"
        return f"Drafts were accepted at joint rates {said}{beyond if len(self.joint) > self.published else ''}."


def _named(k: int) -> str:
    return f"k = {k}" if k else "no drafts"


def _cells(rows: list[Mapping[str, Any]]) -> Iterator[Cell]:
    """The cell of each k and number; its rounds are compared with those of the server without MTP of the same turn.

    Raises:
        ObservationError: a draft had another length, or rounds are missing.
    """
    groups: dict[tuple[int, int, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["draft_tokens"] != row["drafts"] * row["k"]:
            where = f"{row['at_once']} at once, k = {row['k']}"
            raise ObservationError(f"{where}: {row['draft_tokens']} tokens drafted in {row['drafts']} drafts")
        groups.setdefault((row["at_once"], row["turn"], row["k"]), []).append(row)
    for (number, turn, k), found in groups.items():
        if not k:
            continue
        plain = groups.get((number, turn, 0)) or groups.get((number, 0, 0)) or []
        drafts = sum(row["drafts"] for row in found)
        if len(plain) != len(found) or not drafts:
            counted = f"{len(found)} rounds, {len(plain)} without MTP and {drafts} drafts"
            raise ObservationError(f"{number} at once, k = {k}: {counted}, so there is nothing to compare")
        without, having = (tuple(row["seconds"] / row["output_tokens"] for row in side) for side in (plain, found))
        yield Cell(k, number, without, having, drafts, sum(row["accepted"] for row in found))
