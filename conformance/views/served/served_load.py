"""The speedup as people serve it, beside the measured one, and where the difference comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError
from conformance.judging import stats
from conformance.judging.stats import Estimate
from conformance.profile.arm_facts import ArmFacts
from conformance.profile.arms import MTP, PLAIN
from conformance.views.first_token import PARTS, WHOLE, Pairs, Timed, by_class, compare, pairs
from conformance.views.load import Answer, Load
from conformance.views.resolved_config import ResolvedConfig

SHOWN = 4  # fields that a sentence names
ALIKE = 0.8  # answers of one prompt compare as wholes if the shorter has this share of the longer one's tokens


@dataclass(frozen=True)
class ServedAnswer:
    """The times of one answer, in seconds."""

    seconds: float
    first_seconds: float
    tokens: int
    prompt_tokens: int


@dataclass(frozen=True)
class Both:
    """The answers to one prompt, (without MTP, with MTP): as people serve it, and measured."""

    served: tuple[ServedAnswer, ServedAnswer]
    measured: tuple[Answer, Answer]

    @property
    def alike(self) -> bool:
        """Whether the answers are about as long in both configurations."""
        one, other = (min(answer.tokens for answer in each) for each in (self.served, self.measured))
        return min(one, other) >= ALIKE * max(one, other)


@dataclass(frozen=True)
class Compared:
    """A part of the answers to prompts of one class: the speedup as people serve it, and the measured one."""

    part: str
    label: str
    served: Estimate
    measured: Estimate

    def __str__(self) -> str:
        return f"{self.part} {self.served}, measured {self.measured}"


@dataclass(frozen=True)
class ServedLoad:
    """The ``served_load`` observation, and the same prompts in the load.

    ``causes``: what the two servers differ in here and not where they are measured; None if that is not known.
    ``common``: the fields that both servers have with other values than the measured ones.
    """

    served: Mapping[str, tuple[ServedAnswer, ServedAnswer]]
    categories: tuple[str, ...]
    measured: Mapping[str, tuple[Answer, Answer]]
    causes: tuple[str, ...] | None
    common: tuple[str, ...]
    facts: ArmFacts
    source: str = "observations/served_load.json"

    @classmethod
    def of(cls, document: Mapping[str, Any], load: Load, config: ResolvedConfig | None, facts: ArmFacts) -> Self:
        """Read the observation; ``config`` is that of the measured servers, None where it is not known.

        Raises:
            ObservationError: no prompt was asked.
            Unsupported: the load had no server without MTP.
        """
        rows, configs = document["rows"], document["configs"]
        if not rows:
            raise ObservationError(f"{cls.source}: no prompt was asked")
        found = {row["id"]: (ServedAnswer(**row[PLAIN]), ServedAnswer(**row[MTP])) for row in rows}
        causes: tuple[str, ...] | None = None
        common: tuple[str, ...] = ()
        if config is not None and all(configs.values()):
            here = ResolvedConfig.of(configs, facts)
            causes, common = tuple(_causes(here, config)), tuple(_common(here, config))
        measured = {pair[0].id: pair for pair in reversed(pairs(load.at(1)))}
        return cls(found, tuple(row["category"] for row in rows), measured, causes, common, facts)

    def speedup(self) -> Estimate:
        """Seconds without MTP over seconds with MTP for the whole answers.

        Raises:
            ObservationError: fewer than two prompts were asked.
        """
        without, having = ([pair[arm].seconds for pair in self.served.values()] for arm in (0, 1))
        return stats.speedup(without, having, strata=self.categories)

    @property
    def both(self) -> list[Both]:
        """The prompts that the load asked too."""
        return [Both(pair, self.measured[id]) for id, pair in self.served.items() if id in self.measured]

    def by_part(self) -> list[Compared]:
        """Each part of the answers to prompts of each class that has enough of them."""
        return [each for label, group in self._classes().items() for each in self._parts(label, group)]

    def note(self) -> str:
        """As a note: what a part of the speedup comes from, and both speedups by part and by prompt length."""
        said = [self.difference()]
        for label, group in self._classes().items():
            if parts := "; ".join(map(str, self._parts(label, group))):
                said.append(f"prompts of {label} tokens ({len(group)}): {parts}")
        return ". ".join(said)

    def _classes(self) -> dict[str, list[Both]]:
        at = {id(both.served[0]): both for both in self.both}
        found = by_class([both.served for both in self.both], self.facts.prompts)
        return {label: [at[id(slower)] for slower, _ in group] for label, group in found.items()}

    def _parts(self, label: str, group: list[Both]) -> Iterator[Compared]:
        for name, part in PARTS.items():
            fit = [each for each in group if _fits(each, name)]
            if len(fit) >= self.facts.prompts.least:
                served, measured = compare(_served(fit), part), compare(_measured(fit), part)
                yield Compared(name, label, served, measured)

    def difference(self) -> str:
        """How far the speedups of the same answers differ in both configurations, and why."""
        fit = {name: [each for each in self.both if _fits(each, name)] for name in PARTS}
        name = next((name for name in (WHOLE, *PARTS) if len(fit[name]) >= self.facts.prompts.least), None)
        if name is None:
            return f"{len(self.both)} prompts are too few to compare with the measured speedup"
        group, part = fit[name], PARTS[name]
        served, measured = compare(_served(group), part), compare(_measured(group), part)
        factor = stats.speedup(_ratios(_served(group), part), _ratios(_measured(group), part))
        of = f"{name} ({len(group)} prompts of the load): {served} as people serve it, {measured} measured"
        if factor.low <= 1 <= factor.high:
            return f"{of}; no difference is shown, a factor of {factor}{self._though()}"
        return f"{of}; of {served.value:.2f}, a factor of {factor} comes from {self._named()}"

    def _named(self) -> str:
        if self.causes is None:
            return "what is not known: vLLM does not tell the configurations"
        found = " and ".join(self.causes) or "what the configurations do not show"
        if not self.common:
            return found
        more = f" and {len(self.common) - SHOWN} more" if len(self.common) > SHOWN else ""
        return f"{found}, or from what both servers have only here ({', '.join(self.common[:SHOWN])}{more})"

    def _though(self) -> str:
        return f", though only here the servers differ in {' and '.join(self.causes)}" if self.causes else ""


def _causes(served: ResolvedConfig, measured: ResolvedConfig) -> Iterator[str]:
    """What only the served servers differ in, each once: the name of its row, or the field that no row is about."""
    known = {each.field for each in measured.differing()}
    found = [each for each in served.differing() if each.field not in known]
    names = [each.row.name if each.row else each.field for each in found]
    return iter(dict.fromkeys(filter(None, names)))


def _common(served: ResolvedConfig, measured: ResolvedConfig) -> Iterator[str]:
    """The fields of the server without MTP that differ between both configurations, and may change its speed."""
    known = {each.field for each in served.differing()}
    for field in served.fields:
        row, changed = served.facts.about(field), served.plain.get(field) != measured.plain.get(field)
        if changed and field not in known and (row is None or row.kind == "confounding"):
            yield field


def _fits(both: Both, part: str) -> bool:
    several = min(answer.tokens for answer in (*both.served, *both.measured)) > 1
    return several and (part != WHOLE or both.alike)


def _served(group: list[Both]) -> Pairs[ServedAnswer]:
    return [each.served for each in group]


def _measured(group: list[Both]) -> Pairs[Answer]:
    return [each.measured for each in group]


def _ratios(found: Pairs[Any], part: Callable[[Timed], float]) -> list[float]:
    """The speedup of each prompt."""
    return [part(slower) / part(faster) for slower, faster in found]
