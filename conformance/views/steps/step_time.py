"""The time of a step of decoding with drafts and without, for requests in a row."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from conformance.errors import ObservationError
from conformance.judging import stats
from conformance.judging.stats import CONFIDENCE, Estimate
from conformance.profile.arm_facts import ArmFacts
from conformance.views.first_token import pairs, pairs_again, suspicion
from conformance.views.load import Answer, Load
from conformance.views.resolved_config import ResolvedConfig

FEWEST_GAPS = 2  # between deliveries of an answer, below which their median says nothing about a step


@dataclass(frozen=True)
class StepTime:
    """The time of a step without drafts over that of one with, by the median time between deliveries of an answer.

    ``alarm``: the factor that it may not exceed, at least the shift by which the server without MTP differs from
    itself. ``missed``: the factor that a PASS must exclude. ``suspected``: what may have caused a failure.
    """

    estimate: Estimate
    alarm: float
    missed: float
    suspected: str
    note: str
    source: str

    @classmethod
    def of(cls, load: Load, facts: ArmFacts, config: ResolvedConfig | None) -> Self:
        """Compare the arms of a load; ``config`` is None where the configurations are not known.

        Raises:
            ObservationError: too few answers have several steps, or the server without MTP was not compared with
                itself.
            Unsupported: there was no server without MTP.
        """
        cell = load.at(1)
        without, having = _medians(pairs(cell))
        if len(without) < facts.prompts.least:
            raise ObservationError(f"{load.source}: {len(without)} answers in a row have several steps in both arms")
        one, other = _medians(pairs_again(cell))
        if len(one) < 2:
            raise ObservationError(
                f"{load.source}: the server without MTP was not asked twice, so its shift is unknown"
            )
        shift = stats.speedup(one, other, confidence=CONFIDENCE)
        alarm = facts.step.alarm_beyond(shift.value)
        typical = [1000 * statistics.median(each) for each in (without, having)]
        note = (
            f"a step takes {typical[0]:.1f} ms without drafts and {typical[1]:.1f} ms with (medians); "
            f"A/A, the server without MTP against itself: {shift}"
        )
        found = stats.speedup(without, having, confidence=CONFIDENCE)
        return cls(found, alarm, facts.step.missed, suspicion(config), note, load.source)


def _medians(found: Sequence[tuple[Answer, Answer]]) -> tuple[list[float], list[float]]:
    """The median seconds between deliveries of each answer of a pair, where both have several."""
    enough = [pair for pair in found if min(len(answer.gaps_ms) for answer in pair) >= FEWEST_GAPS]
    return [_median(one) for one, _ in enough], [_median(other) for _, other in enough]


def _median(answer: Answer) -> float:
    return statistics.median(answer.gaps_ms) / 1000
