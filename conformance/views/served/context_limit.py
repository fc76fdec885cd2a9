"""Long prompts among running answers, and requests up to the end of the context and beyond."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError
from conformance.profile.arms import MTP, PLAIN
from conformance.views.served.replies import OK, Parting, beyond_near_ties, incomplete, parting, status


@dataclass(frozen=True)
class ContextLimit:
    """The ``context_limit`` observation: rows by server, in the same order."""

    context: int
    arms: Mapping[str, Mapping[str, list[Mapping[str, Any]]]]
    source: str = "observations/context_limit.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation.

        Raises:
            ObservationError: the server without MTP itself does not answer up to the end of its context.
        """
        arms = facts["arms"]
        for name in ("running", "ends"):
            for row in arms[PLAIN][name]:
                if row["reply"]["status"] != OK:
                    why = next(incomplete("a long prompt without MTP", row["reply"]))
                    raise ObservationError(f"{why}; there is nothing to compare with")
        return cls(facts["context"], arms)

    @property
    def requests(self) -> int:
        """The number of requests with MTP."""
        return sum(len(rows) for rows in self.arms[MTP].values())

    def objections(self, resolution: float, widest: float) -> list[str]:
        """A sentence for each request with MTP that is cut, refused or answered otherwise than without MTP."""
        failed = [
            problem
            for name in ("running", "ends")
            for row in self.arms[MTP][name]
            for problem in incomplete(_name(name, row), row["reply"], row["asked"])
        ]
        accepted = [
            f"{_name('full', row)} got {status(row['reply'])} where a 4xx is right"
            for row in self.arms[MTP]["full"]
            if not 400 <= (row["reply"]["status"] or 0) < 500
        ]
        accepted += [
            f"{_name('beyond', mtp)} got {_end(mtp['reply'])} with MTP, {_end(plain['reply'])} without"
            for plain, mtp in zip(self.arms[PLAIN]["beyond"], self.arms[MTP]["beyond"], strict=True)
            if _end(mtp["reply"]) != _end(plain["reply"])
        ]
        return failed + beyond_near_ties(self._partings(), resolution, widest) + accepted

    def _partings(self) -> Iterator[Parting | None]:
        for name in ("running", "ends", "beyond"):
            for plain, mtp in zip(self.arms[PLAIN][name], self.arms[MTP][name], strict=True):
                between = f"{_name(name, mtp)} with and without MTP"
                yield parting(between, plain["reply"], mtp["reply"], with_mtp=True)
        among, alone = (self.arms[PLAIN]["ends"][place]["reply"] for place in (-2, -1))
        yield parting("alone and among others", among, alone, with_mtp=False)


def _name(name: str, row: Mapping[str, Any]) -> str:
    if name == "running":
        return f"an answer of {row['asked']} tokens among long prompts"
    if name == "full":
        return "a prompt that fills the whole context"
    what = "tokens up to the end of the context" if name == "ends" else "tokens, one more than the context holds,"
    return f"a request for {row['asked']} {what}"


def _end(reply: Mapping[str, Any]) -> str:
    """The status of a reply, and how its answer ends."""
    ends = [f"{len(choice['token_ids'])} tokens, {choice['finish_reason']}" for choice in reply["choices"]]
    return ": ".join([status(reply), *ends])
