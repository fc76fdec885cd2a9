"""The configurations of the two arms, and what differs between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError
from conformance.profile.arm_facts import ARM_FACTS, ArmFacts, Difference
from conformance.profile.arms import MTP, PLAIN

ABSENT = "absent"
SHOWN = 8  # values of a list that a sentence shows in full


@dataclass(frozen=True)
class Differing:
    """A field that the two servers have with different values, and the row of the facts that is about it."""

    field: str
    mtp: Any
    plain: Any
    row: Difference | None

    @property
    def kind(self) -> str:
        return "unknown" if self.row is None else self.row.kind

    def __str__(self) -> str:
        why = f"no row of {ARM_FACTS.name} is about it" if self.row is None else self.row.reason
        return f"{self.field} is {_shown(self.mtp)} with MTP and {_shown(self.plain)} without ({self.kind}: {why})"


@dataclass(frozen=True)
class ResolvedConfig:
    """The ``resolved_config`` observation, and the facts about what may differ."""

    mtp: Mapping[str, Any]
    plain: Mapping[str, Any]
    facts: ArmFacts
    source: str = "observations/resolved_config.json"

    @classmethod
    def of(cls, document: Mapping[str, Any], facts: ArmFacts) -> Self:
        """Read the observation.

        Raises:
            ObservationError: a server reported no field.
        """
        for arm in (MTP, PLAIN):
            if not document[arm]:
                raise ObservationError(f"{cls.source}: the server {arm} reported no configuration")
        return cls(document[MTP], document[PLAIN], facts)

    @property
    def fields(self) -> list[str]:
        """Every field of either server, sorted."""
        return sorted(self.mtp.keys() | self.plain.keys())

    def differing(self) -> list[Differing]:
        """Every field whose values differ, beyond what its row allows."""
        found = []
        for field in self.fields:
            row = self.facts.about(field)
            mtp, plain = (_value(arm, field, row) for arm in (self.mtp, self.plain))
            if mtp != plain and not _close(mtp, plain, row):
                found.append(Differing(field, mtp, plain, row))
        return found

    def objections(self) -> list[str]:
        """A sentence for each difference that is confounding or unknown, those with a known effect first."""
        order = ("confounding", "unknown")
        wrong = [each for each in self.differing() if each.kind in order]
        return [str(each) for each in sorted(wrong, key=lambda each: order.index(each.kind))]

    def note(self) -> str:
        """How many fields differ for each declared reason."""
        rows = Counter(each.row.reason for each in self.differing() if each.row and each.kind != "confounding")
        said = (f"{count} {'field' if count == 1 else 'fields'}: {reason}" for reason, count in rows.items())
        return f"differ, as declared: {'; '.join(said)}" if rows else "no field differs"


def _value(arm: Mapping[str, Any], field: str, row: Difference | None) -> Any:
    found = arm.get(field, ABSENT)
    return arm.get(row.empty_means, found) if found in (None, ABSENT) and row and row.empty_means else found


def _close(one: Any, other: Any, row: Difference | None) -> bool:
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (one, other))
    return bool(row and row.within and numbers and abs(one - other) <= row.within * max(abs(one), abs(other)))


def _shown(value: Any) -> str:
    """The value in a sentence; a long list by its ends."""
    if isinstance(value, list) and len(value) > SHOWN:
        return f"{value[0]} … {value[-1]} ({len(value)} values)"
    return str(value)
