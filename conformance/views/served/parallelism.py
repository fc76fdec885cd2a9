"""Answers of servers whose tensor parallelism is another one, compared with those of the servers that people serve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError, Unsupported
from conformance.profile.arms import MTP, PLAIN
from conformance.profile.combined_features import CUSTOM_ALL_REDUCE, FEATURES
from conformance.views.served.combination import GROUPS, Combination
from conformance.views.served.replies import Parting, beyond_near_ties, incomplete, parting

WORDS = {MTP: "with MTP", PLAIN: "without MTP"}
PLACES = {"few": "a few at a time", "crowd": "in the crowd"}


@dataclass(frozen=True)
class Parallelism:
    """Two groups of the ``combination`` observation: the feature, and the servers without it."""

    name: str  # of the feature
    changed: Combination
    served: Combination
    source: str

    @classmethod
    def of(cls, changed: Mapping[str, Any], served: Mapping[str, Any]) -> Self:
        """Read both groups.

        Raises:
            ObservationError: a server without MTP gives no answer, or the feature changed nothing.
            Unsupported: the servers do not tell, or vLLM uses no all-reduce of its own on this machine.
        """
        feature = FEATURES[changed["feature"]]
        for arm in (PLAIN, MTP):
            _require_changed(feature.changes, *(side["arms"][arm].get("parallel", {}) for side in (changed, served)))
        ours = Combination.of(changed)
        return cls(feature.name, ours, Combination.of(served), ours.source)

    @property
    def compared(self) -> int:
        """The number of answers that are compared with those of the servers without the feature."""
        return len(list(self._rows()))

    def objections(self, resolution: float, widest: float) -> list[str]:
        """A sentence for each answer that is cut, or differs from the one of the other servers at no near-tie."""
        cut = [
            problem
            for number, arm, group, reply, _ in self._rows()
            for problem in incomplete(self._name(number, arm, group), reply, self.changed.asked)
        ]
        return cut + beyond_near_ties(self._partings(), resolution, widest)

    def note(self) -> str:
        """How many answers are the same to the last token, and how wide the widest lead is where others differ."""
        apart = [each for each in self._partings() if each.with_mtp]
        itself = sum(not each.with_mtp for each in self._partings())
        lead = f", which led by at most {max(each.gap for each in apart):.2f} nats" if apart else ""
        return (
            f"{self.compared - len(apart)} of {self.compared} answers are the same to the last token, {len(apart)} "
            f"differ{lead}; without MTP, {itself} answers in the crowd differ from those a few at a time"
        )

    def _name(self, number: int, arm: str, group: str) -> str:
        return f"request {number} {PLACES[group]} {WORDS[arm]}, by {self.name},"

    def _rows(self) -> Iterator[tuple[int, str, str, Mapping[str, Any], Mapping[str, Any]]]:
        """Number, arm, group, the reply, and the one that the served server without MTP gave a few at a time."""
        ours, right = self.changed.arms, self.served.arms[PLAIN]["few"]["replies"]
        for arm in (PLAIN, MTP):
            for group in GROUPS:
                for number, (reply, expected) in enumerate(zip(ours[arm][group]["replies"], right, strict=True), 1):
                    yield number, arm, group, reply, expected

    def _partings(self) -> list[Parting]:
        """Where answers differ from those of the other servers (judged), and where servers differ from themselves."""
        found = [
            parting(f"{self._name(number, arm, group)} and without it", expected, reply, with_mtp=True)
            for number, arm, group, reply, expected in self._rows()
        ]
        for side in (self.changed, self.served):
            plain = side.arms[PLAIN]
            pairs = zip(*(plain[group]["replies"] for group in GROUPS), strict=True)
            found += [parting("a few at a time and in the crowd", *pair, with_mtp=False) for pair in pairs]
        return [each for each in found if each is not None]


def _require_changed(what: str, changed: Mapping[str, Any], served: Mapping[str, Any]) -> None:
    if what not in changed or what not in served:
        raise Unsupported(f"The servers do not tell their {what.replace('_', ' ')}.")
    if changed[what] != served[what]:
        return
    if what == CUSTOM_ALL_REDUCE and not served[what]:
        raise Unsupported("vLLM uses no custom all-reduce on this machine, so there is none to switch off.")
    raise ObservationError(f"both servers have {what.replace('_', ' ')} {served[what]}, so nothing was tested")
