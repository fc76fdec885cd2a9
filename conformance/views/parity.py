"""The deviation of the draft steps in the running server from the draft in transformers."""

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
    unrecognised: tuple[Mapping[str, Any], ...] | None  # None if an earlier version of the suite recorded
    source: str = "observations/parity.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any], fewest: float) -> Self:
        """Read the observation.

        Raises:
            ObservationError: fewer than ``fewest`` proposals were recognised, or steps or logits are missing.
        """
        rows, unrecognised = tuple(facts["rows"]), facts.get("unrecognised")
        for kind, together in {"alone": False, "in a batch": True}.items():
            if len([row for row in rows if row["step"] == 0 and (row["rows"] > 1) is together]) < fewest:
                others = f"; {len(unrecognised)} proposals were not recognised" if unrecognised else ""
                raise ObservationError(f"fewer than {fewest:g} proposals of requests {kind} were recognised{others}")
        if any(row["token"] is None for row in rows):
            raise ObservationError("no logits were captured for some draft steps")
        if {row["step"] for row in rows} != set(range(facts["k"])):
            raise ObservationError(f"some of the {facts['k']} draft steps were not captured")
        return cls(rows, None if unrecognised is None else tuple(unrecognised))

    @property
    def proposals(self) -> int:
        """The number of captured proposals."""
        return len([row for row in self.rows if row["step"] == 0]) + len(self.unrecognised or ())

    def unrecognised_proposals(self, share: float, past_the_end: float) -> list[str]:
        """A sentence for each proposal that belongs to no place of a request, if they exceed ``share`` of all.

        Up to ``past_the_end`` proposals after the end of each request are allowed.
        """
        rows = self.unrecognised or ()
        beyond = [
            f"{count} proposals continue after the end of {name}, where at most {past_the_end:g} are expected"
            for name, count in Counter(row["request"] for row in rows if row["request"] is not None).items()
            if count > past_the_end
        ]
        found = [self._describe_unrecognised(row) for row in rows if row["request"] is None]
        return beyond + (found if len(found) > share * self.proposals else [])

    def note(self) -> str:
        """What an earlier version of the suite did not record, as a note."""
        lacking = {
            "the inputs of later steps": any("carried" not in row for row in self.rows),
            "unrecognised proposals": self.unrecognised is None,
        }
        missing = " and ".join(what for what, lacks in lacking.items() if lacks)
        return f"recorded by an earlier version of this suite, which did not record {missing}" if missing else ""

    def step_inputs(self) -> dict[str, Any]:
        """The position of every captured step, and the other inputs of later steps, by request, place and step."""
        return {name: found for name, found, _ in self._step_inputs()}

    def expected_step_inputs(self) -> dict[str, Any]:
        """The place of the last token that the target has seen, and the outputs of the step before."""
        return {name: expected for name, _, expected in self._step_inputs()}

    def inputs(self) -> dict[str, Deviation]:
        """The median deviation of the target's hidden state that the first step gets."""
        return self._medians("hidden", (0,))

    def outputs(self) -> dict[str, Deviation]:
        """The median deviation of each step's projected state."""
        return self._medians("projected", range(max(row["step"] for row in self.rows) + 1))

    def logits(self) -> dict[str, Deviation]:
        """The median deviation of each step's largest logits."""
        return self._medians("logits", range(max(row["step"] for row in self.rows) + 1))

    def other_tokens(self, near_tie: float) -> list[str]:
        """A sentence for each step whose token differs from the reference without a near-tie."""
        return [
            f"{self._name(row)} drafts token {row['token']} where token {row['expected_token']} is expected, "
            f"which leads by {row['gap']:.2f}"
            for row in self.rows
            if row["token"] != row["expected_token"] and row["gap"] is not None and row["gap"] > near_tie
        ]  # where the gap is not a number, the comparison of the logits fails

    def worst_inputs(self) -> dict[str, Deviation]:
        """The largest deviation of a first step's hidden state, by request."""
        return self._worst("hidden", (0,))

    def worst_outputs(self) -> dict[str, Deviation]:
        """The largest deviation of a step's projected state, by request."""
        return self._worst("projected", range(max(row["step"] for row in self.rows) + 1))

    def _worst(self, what: str, steps: Collection[int]) -> dict[str, Deviation]:
        found: dict[str, Deviation] = {}
        for row in (row for row in self.rows if row["step"] in steps):
            name, this = f"the worst step of {row['request']}", self._deviation(row, what)
            found[name] = max(found.get(name, this), this, key=lambda each: each.error)
        return found

    def _step_inputs(self) -> Iterator[tuple[str, Any, Any]]:
        for row in self.rows:
            name, carried = self._name(row), row.get("carried")
            yield name, row["position"], row["place"]
            if carried:
                token, likeliest, width = carried["token"], carried["likeliest"], carried["width"]
                yield f"{name}, token", token, token if token in likeliest else likeliest[-1]
                expected, others = f"the projected state of step {row['step'] - 1}", width - carried["equal"]
                found = f"different in {others} of {width} values" if others else expected
                yield f"{name}, hidden state", found, expected

    @staticmethod
    def _describe_unrecognised(row: Mapping[str, Any]) -> str:
        batch = f"a row of {row['rows']} at place {row['place']}"
        if row["token"] is None:
            return f"{batch} continues no captured first step"
        return f"{batch} begins with token {row['token']}, which no request without a row has at this place"

    def _medians(self, what: str, steps: Collection[int]) -> dict[str, Deviation]:
        groups: dict[str, list[Deviation]] = {}
        for row in (row for row in self.rows if row["step"] in steps):
            name = f"step {row['step']} of a request {'in a batch' if row['rows'] > 1 else 'alone'}"
            groups.setdefault(name, []).append(self._deviation(row, what))
        return {
            name: sorted(group, key=lambda each: each.error)[len(group) // 2]  # of two in the middle, the worse one
            for name, group in groups.items()
        }

    @staticmethod
    def _deviation(row: Mapping[str, Any], what: str) -> Deviation:
        return deviation([row[what]["found"]], [row[what]["expected"]])

    @staticmethod
    def _name(row: Mapping[str, Any]) -> str:
        return f"{row['request']}, place {row['place']}, step {row['step']}"
