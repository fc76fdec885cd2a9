"""Answers by the length of their prompts: what MTP gains until the first token, from there on, and in all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

from conformance.errors import ObservationError
from conformance.judging import stats
from conformance.judging.stats import CONFIDENCE, Estimate, look_confidence
from conformance.profile.arm_facts import ArmFacts, PromptClasses, load_arm_facts
from conformance.views.load import Answer, Cell, Load
from conformance.views.resolved_config import ResolvedConfig

LIKELY = 2  # differences of the arms that a failure names as its cause


class Timed(Protocol):
    """An answer whose parts can be compared: seconds to its first token and to its end, its tokens, its prompt's."""

    @property
    def seconds(self) -> float: ...
    @property
    def first_seconds(self) -> float: ...
    @property
    def tokens(self) -> int: ...
    @property
    def prompt_tokens(self) -> int: ...


T = TypeVar("T", bound=Timed)
Pairs = Sequence[tuple[T, T]]  # of the slower and the faster arm
WHOLE = "whole answer"
PARTS: Mapping[str, Callable[[Timed], float]] = {
    "first token": lambda answer: answer.first_seconds,
    "each later token": lambda answer: (answer.seconds - answer.first_seconds) / (answer.tokens - 1),
    WHOLE: lambda answer: answer.seconds,
}


@dataclass(frozen=True)
class FirstTokens:
    """Seconds to the first token without MTP over seconds with it, by class of prompt length, for requests in a row.

    Requests at once are left out: their first token waits for other prompts. ``alarm``: the factor that no class may
    exceed, at least the shift by which the server without MTP differs from itself. ``missed``: the factor that a PASS
    must exclude. ``suspected``: what may have caused a failure.
    """

    estimates: Mapping[str, Estimate]
    alarm: float
    missed: float
    suspected: str
    note: str
    source: str

    @classmethod
    def of(cls, load: Load, facts: ArmFacts, config: ResolvedConfig | None) -> Self:
        """Compare the arms of a load; ``config`` is None where the configurations are not known.

        Raises:
            ObservationError: no class has enough prompts, or the server without MTP was not compared with itself.
            Unsupported: there was no server without MTP.
        """
        cell = load.at(1)
        classes = by_class(pairs(cell), facts.prompts)
        enough = {label: each for label, each in classes.items() if len(each) >= facts.prompts.least}
        if not enough:
            raise ObservationError(f"{load.source}: no class of prompts has {facts.prompts.least} requests in a row")
        confidence = look_confidence(len(enough))  # each class is a chance to fail
        estimates = {label: compare(each, PARTS["first token"], confidence) for label, each in enough.items()}
        shift = _shift(cell, load.source)
        few = [f"{label} ({len(each)})" for label, each in classes.items() if label not in enough]
        note = f"A/A, the server without MTP against itself: {shift}" + (f"; too few: {', '.join(few)}" if few else "")
        alarm = facts.first_token.alarm_beyond(shift.value)
        return cls(estimates, alarm, facts.first_token.missed, suspicion(config), note, load.source)


def pairs(cell: Cell) -> list[tuple[Answer, Answer]]:
    """The answers of the server without MTP, each with that of the server with MTP to the same prompt.

    Raises:
        Unsupported: there was no server without MTP.
    """
    return [pair for each in cell.rounds for pair in each.plain.paired(each.mtp)]


def pairs_again(cell: Cell) -> list[tuple[Answer, Answer]]:
    """The answers of the server without MTP, each with its second answer to the same prompt (A/A)."""
    return [pair for each in cell.rounds if each.again is not None for pair in each.plain.paired(each.again)]


def by_class(found: Pairs[T], classes: PromptClasses) -> dict[str, list[tuple[T, T]]]:
    """The pairs by the label of their class, the shortest prompts first; classes without a pair are left out."""
    groups: dict[int, list[tuple[T, T]]] = defaultdict(list)
    for pair in found:
        groups[classes.of(pair[0].prompt_tokens)].append(pair)
    return {classes.labels[number]: groups[number] for number in sorted(groups)}


def account(cell: Cell) -> str:
    """As a note beside a speedup: the account of the cell, and the speedup by prompt length.

    Raises:
        Unsupported: there was no server without MTP.
    """
    return f"{cell.account()}; {decomposed(cell, load_arm_facts().prompts)}"


def decomposed(cell: Cell, classes: PromptClasses) -> str:
    """As a note: the speedup of each part of an answer, by class of prompt length.

    Raises:
        Unsupported: there was no server without MTP.
    """
    said = []
    for label, found in by_class(pairs(cell), classes).items():
        longer = [pair for pair in found if min(answer.tokens for answer in pair) > 1]
        if len(longer) >= classes.least:
            parts = (f"{name} {compare(longer, part)}" for name, part in PARTS.items())
            said.append(f"{label} ({len(longer)}): {', '.join(parts)}")
    return f"speedup by prompt tokens: {'; '.join(said)}" if said else "too few prompts of any length"


def compare(found: Pairs[T], part: Callable[[Timed], float], confidence: float = CONFIDENCE) -> Estimate:
    """The speedup of one part of an answer."""
    slower, faster = ([part(pair[arm]) for pair in found] for arm in (0, 1))
    return stats.speedup(slower, faster, confidence=confidence)


def _shift(cell: Cell, source: str) -> Estimate:
    again = pairs_again(cell)
    if len(again) < 2:
        raise ObservationError(f"{source}: the server without MTP was not asked twice, so its own shift is unknown")
    return compare(again, PARTS["first token"])


def suspicion(config: ResolvedConfig | None) -> str:
    """What may make a server with MTP faster where it does strictly more."""
    if config is None:
        return "the configurations of the servers are not known, so the arms may be unlike"
    if found := config.objections():
        return f"the arms are not alike: {'; '.join(found[:LIKELY])}"
    return "the configurations are alike, so suspect what they do not show, such as a warm-up or another load"
