"""Answers of two servers, with MTP and without, that have one more feature switched on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError
from conformance.profile.arms import MTP, PLAIN
from conformance.views.served.replies import OK, Parting, beyond_near_ties, incomplete, parting

GROUPS = ("few", "crowd")  # a few requests at a time, and all at once
EXACT = -1.0  # no lead is so small that it is a near-tie


@dataclass(frozen=True)
class Combination:
    """One group of the ``combination`` observation."""

    asked: int  # tokens of each answer
    arms: Mapping[str, Mapping[str, Any]]
    source: str

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation.

        Raises:
            ObservationError: the server without MTP gives no answer.
        """
        found = cls(facts["asked"], facts["arms"], f"observations/combination-{facts['feature']}.json")
        for reply in found._replies(PLAIN):
            if reply["status"] != OK:
                why = next(incomplete("a request without MTP", reply))
                raise ObservationError(f"{why}; there is nothing to compare with")
        return found

    @property
    def requests(self) -> int:
        """The number of requests with MTP."""
        return len(list(self._replies(MTP)))

    def objections(self, resolution: float = EXACT, widest: float = EXACT) -> list[str]:
        """A sentence for each answer with MTP that is cut or another one than without MTP.

        The bounds are those of near-ties; without them, there are none.
        """
        failed = [
            problem
            for number, reply in enumerate(self._replies(MTP), 1)
            for problem in incomplete(f"request {number} with MTP", reply, self.asked)
        ]
        partings = list(self._partings())
        return failed + (
            [str(each) for each in partings if each.with_mtp]
            if widest == EXACT
            else beyond_near_ties(partings, resolution, widest)
        )

    def note(self) -> str:
        """How often each server preempted a request, and how often the one without MTP differs from itself."""
        counts = [self.arms[arm]["crowd"]["preemptions"] for arm in (MTP, PLAIN)]
        itself = sum(not each.with_mtp for each in self._partings())
        return (
            f"preemptions: {counts[0]} with MTP, {counts[1]} without; "
            f"without MTP, {itself} answers in the crowd differ from those a few at a time"
        )

    def _replies(self, arm: str) -> Iterator[Mapping[str, Any]]:
        for group in GROUPS:
            yield from self.arms[arm][group]["replies"]

    def _partings(self) -> Iterator[Parting]:
        plain, mtp = (self.arms[arm] for arm in (PLAIN, MTP))
        rows = zip(
            *(plain[group]["replies"] for group in GROUPS), *(mtp[group]["replies"] for group in GROUPS), strict=True
        )
        for number, (few, crowd, few_mtp, crowd_mtp) in enumerate(rows, 1):
            name = f"the answers to request {number}"
            found = (
                parting(f"{name} without MTP, a few at a time and in the crowd,", few, crowd, with_mtp=False),
                parting(f"{name} with and without MTP", few, few_mtp, with_mtp=True),
                parting(f"{name} in the crowd with MTP, and a few at a time without,", few, crowd_mtp, with_mtp=True),
            )
            yield from (each for each in found if each is not None)
