"""How far the draft's steps in the running server are from transformers' own draft."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError
from conformance.reference.numeric_error import Deviation, deviation


@dataclass(frozen=True)
class Parity:
    """The ``parity`` observation."""

    rows: tuple[Mapping[str, Any], ...]
    unrecognised: tuple[Mapping[str, Any], ...] | None  # None where an earlier suite recorded
    source: str = "observations/parity.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any], fewest: float) -> Self:
        """Read the observation; an ObservationError where fewer proposals were recognised: then nothing is shown."""
        rows, unrecognised = tuple(facts["rows"]), facts.get("unrecognised")
        for kind, together in {"alone": False, "in a batch": True}.items():
            if len([row for row in rows if row["step"] == 0 and (row["rows"] > 1) is together]) < fewest:
                others = f"; {len(unrecognised)} others were not" if unrecognised else ""
                raise ObservationError(f"fewer than {fewest:g} proposals of requests {kind} were recognised{others}")
        if any(row["token"] is None for row in rows):
            raise ObservationError("of some draft steps no logits were captured")
        if {row["step"] for row in rows} != set(range(facts["k"])):
            raise ObservationError(f"not every one of the {facts['k']} draft steps was captured")
        return cls(rows, None if unrecognised is None else tuple(unrecognised))

    @property
    def proposals(self) -> int:
        """How many were captured."""
        return len([row for row in self.rows if row["step"] == 0]) + len(self.unrecognised or ())

    def strays(self, share: float, past_the_end: float) -> list[str]:
        """Proposals that belong to no place of a request, each as a sentence; none where they are within the share.

        So many past a request's end are excused.
        """
        rows = self.unrecognised or ()
        beyond = [
            f"{count} proposals go on past the end of {name}, where at most {past_the_end:g} are expected"
            for name, count in Counter(row["request"] for row in rows if row["request"] is not None).items()
            if count > past_the_end
        ]
        found = [self._stray(row) for row in rows if row["request"] is None]
        return beyond + (found if len(found) > share * self.proposals else [])

    def note(self) -> str:
        """What an earlier suite did not record."""
        lacking = {
            "what later steps are given": any("carried" not in row for row in self.rows),
            "proposals that are not recognised": self.unrecognised is None,
        }
        missing = " and ".join(what for what, lacks in lacking.items() if lacks)
        return f"recorded by an earlier suite, which did not look at {missing}" if missing else ""

    def given(self) -> dict[str, Any]:
        """The position of every captured step, and what a later one was given, by request, place and step."""
        return {name: given for name, given, _ in self._given_and_due()}

    def due(self) -> dict[str, Any]:
        """What those have to be: the place of the last token that the target has seen; what the step before made."""
        return {name: due for name, _, due in self._given_and_due()}

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
            if row["token"] != row["expected_token"] and row["gap"] is not None and row["gap"] > near_tie
        ]  # where the gap is no number, the logits are none either, and fail for that

    def worst_inputs(self) -> dict[str, Deviation]:
        """The single first step whose hidden state is furthest off, by request."""
        return self._worst("hidden", (0,))

    def worst_outputs(self) -> dict[str, Deviation]:
        """The single step whose projected state is furthest off, by request."""
        return self._worst("projected", range(max(row["step"] for row in self.rows) + 1))

    def _worst(self, what: str, steps: Collection[int]) -> dict[str, Deviation]:
        found: dict[str, Deviation] = {}
        for row in (row for row in self.rows if row["step"] in steps):
            name, this = f"the worst step of {row['request']}", self._deviation(row, what)
            found[name] = max(found.get(name, this), this, key=lambda each: each.error)
        return found

    def _given_and_due(self) -> Iterator[tuple[str, Any, Any]]:
        for row in self.rows:
            name, carried = self._name(row), row.get("carried")
            yield name, row["position"], row["place"]
            if carried:
                token, likeliest, width = carried["token"], carried["likeliest"], carried["width"]
                yield f"{name}, token", token, token if token in likeliest else likeliest[-1]
                due, others = f"what step {row['step'] - 1} projected", width - carried["equal"]
                yield f"{name}, hidden state", f"another in {others} of {width} values" if others else due, due

    @staticmethod
    def _stray(row: Mapping[str, Any]) -> str:
        batch = f"a row of {row['rows']} at place {row['place']}"
        if row["token"] is None:
            return f"{batch} goes on from no first step"
        return f"{batch} begins with token {row['token']}, which no request that lacks a row has there"

    def _medians(self, what: str, steps: Collection[int]) -> dict[str, Deviation]:
        groups: dict[str, list[Deviation]] = {}
        for row in (row for row in self.rows if row["step"] in steps):
            name = f"step {row['step']} of a request {'in a batch' if row['rows'] > 1 else 'alone'}"
            groups.setdefault(name, []).append(self._deviation(row, what))
        return {
            name: sorted(group, key=lambda each: each.error)[len(group) // 2]  # of two in the middle the worse
            for name, group in groups.items()
        }

    @staticmethod
    def _deviation(row: Mapping[str, Any], what: str) -> Deviation:
        return deviation([row[what]["found"]], [row[what]["expected"]])

    @staticmethod
    def _name(row: Mapping[str, Any]) -> str:
        return f"{row['request']}, place {row['place']}, step {row['step']}"
