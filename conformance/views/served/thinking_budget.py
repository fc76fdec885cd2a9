"""Thoughts that ``thinking_token_budget`` ends, with MTP and without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError
from conformance.profile.arms import MTP, PLAIN
from conformance.views.served.replies import OK, Facts, Parting, beyond_near_ties, incomplete, parting, token_ids


@dataclass(frozen=True)
class ThinkingBudget:
    """The ``thinking_budget`` observation: rows by server, in the same order."""

    opening: int  # the token that begins a thought
    closing: int  # the token that ends it
    arms: Mapping[str, Mapping[str, Any]]
    source: str = "observations/thinking_budget.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation.

        Raises:
            ObservationError: without MTP a request failed, or no budget ends a thought, so nothing was tested.
        """
        found = cls(facts["open"], facts["close"], facts["arms"])
        plain = found.arms[PLAIN]
        for reply in (plain["whole"], *(row["reply"] for row in plain["rows"])):
            if reply["status"] != OK:
                why = next(incomplete("a thought without MTP", reply))
                raise ObservationError(f"{why}; there is nothing to compare with")
        if not found._ended():
            raise ObservationError(
                f"without MTP, no budget ends the thought of {found.whole} tokens, so nothing was tested"
            )
        return found

    @property
    def whole(self) -> int:
        """The tokens of the thought without a budget, by the server without MTP."""
        return self.length(self.arms[PLAIN]["whole"])

    @property
    def requests(self) -> int:
        """The number of requests with MTP."""
        return len(self.arms[MTP]["rows"])

    def length(self, reply: Facts) -> int:
        """The tokens of the thought: those between the one that begins it and the one that ends it."""
        ids = token_ids(reply)
        if self.opening not in ids:
            return 0
        thought = ids[ids.index(self.opening) + 1 :]
        return thought.index(self.closing) if self.closing in thought else len(thought)

    def objections(self, resolution: float, widest: float) -> list[str]:
        """A sentence for each answer with MTP whose thought is beyond its budget, or that is another one."""
        failed, longer = [], []
        for plain, row in self._pairs():
            name = f"{_name(row)} with MTP"
            failed += list(incomplete(name, row["reply"]))
            length, budget = self.length(row["reply"]), row["budget"]
            if length > max(budget, self.length(plain["reply"])):
                longer.append(f"{name} has a thought of {length} tokens")
        return failed + longer + beyond_near_ties(self._partings(), resolution, widest)

    def note(self) -> str:
        """How many budgets end the thought without MTP."""
        ended = self._ended()
        return (
            f"without a budget, the thought has {self.whole} tokens; without MTP, {len(ended)} requests end it earlier"
        )

    def _ended(self) -> list[Facts]:
        """The rows without MTP whose thought the budget ends in time."""
        rows = self.arms[PLAIN]["rows"]
        return [row for row in rows if self.length(row["reply"]) <= row["budget"] < self.whole]

    def _pairs(self) -> Iterator[tuple[Facts, Facts]]:
        yield from zip(self.arms[PLAIN]["rows"], self.arms[MTP]["rows"], strict=True)

    def _partings(self) -> Iterator[Parting | None]:
        first: dict[int, Facts] = {}
        for plain, row in self._pairs():
            yield parting(f"{_name(row)} with and without MTP", plain["reply"], row["reply"], with_mtp=True)
            once = first.setdefault(plain["budget"], plain["reply"])
            yield parting(f"{_name(plain)} without MTP, repeated,", once, plain["reply"], with_mtp=False)


def _name(row: Facts) -> str:
    how = [word for word, true in (("alone", row["alone"]), ("streamed", row["stream"])) if true]
    return f"the answer with a budget of {row['budget']}{''.join(f', {word},' for word in how)}"
