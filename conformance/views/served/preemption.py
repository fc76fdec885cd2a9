"""Answers to requests that vLLM preempted, compared with the answers to the same requests a few at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError
from conformance.profile.arms import MTP, PLAIN
from conformance.views.served.replies import Parting, beyond_near_ties, incomplete, parting

WORDS = {MTP: "with MTP", PLAIN: "without MTP"}


@dataclass(frozen=True)
class Preemption:
    """The ``preemption`` observation."""

    asked: int  # tokens of each answer
    arms: Mapping[str, Mapping[str, Any]]
    source: str = "observations/preemption.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation.

        Raises:
            ObservationError: a server preempted nothing, so nothing was tested.
        """
        for arm, found in facts["arms"].items():
            if not found["crowd"]["preemptions"]:
                why = f"its cache of {found['cache_blocks']} blocks held all {facts['requests']} requests"
                raise ObservationError(f"the server {WORDS[arm]} preempted nothing: {why}")
        return cls(facts["asked"], facts["arms"])

    @property
    def requests(self) -> int:
        """The number of requests in the crowds."""
        return sum(len(found["crowd"]["replies"]) for found in self.arms.values())

    def objections(self, resolution: float, widest: float, kept: float) -> list[str]:
        """A sentence for each answer in the crowd that lost something, and one if fewer drafts were accepted there.

        ``kept`` is the share of the acceptance length that may be lost.
        """
        lost = [
            problem
            for arm, found in self.arms.items()
            for number, reply in enumerate(found["crowd"]["replies"], 1)
            for problem in incomplete(f"request {number} in the crowd {WORDS[arm]}", reply, self.asked)
        ]
        few, crowd = (self._acceptance_length(name) for name in ("few", "crowd"))
        fewer = f"the acceptance length is {crowd:.3f} in the crowd, {few:.3f} with a few requests at a time"
        return lost + beyond_near_ties(self._partings(), resolution, widest) + [fewer] * (crowd < few * (1 - kept))

    def note(self) -> str:
        """How often each server preempted a request, and the acceptance lengths."""
        counts = ", ".join(f"{found['crowd']['preemptions']} {WORDS[arm]}" for arm, found in self.arms.items())
        few, crowd = (self._acceptance_length(name) for name in ("few", "crowd"))
        return f"preemptions: {counts}; acceptance length {crowd:.3f} in the crowd, {few:.3f} with a few at a time"

    def _acceptance_length(self, name: str) -> float:
        counted = self.arms[MTP][name]
        return 1 + float(counted["accepted"]) / max(int(counted["drafts"]), 1)

    def _partings(self) -> Iterator[Parting | None]:
        for arm, found in self.arms.items():
            pairs = zip(found["few"]["replies"], found["crowd"]["replies"], strict=True)
            for number, (few, crowd) in enumerate(pairs, 1):
                between = f"the answers to request {number} alone and in the crowd {WORDS[arm]}"
                yield parting(between, few, crowd, with_mtp=arm == MTP)
        for number, replies in enumerate(
            zip(*(self.arms[arm]["few"]["replies"] for arm in (PLAIN, MTP)), strict=True), 1
        ):
            yield parting(f"the answers to request {number} with and without MTP", *replies, with_mtp=True)
