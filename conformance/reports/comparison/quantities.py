"""The figures by which two runs are compared; each can estimate its change with an interval.

A better server has higher figures. Figures that decide are ratios within a run, so that the speed of the machine on
that day cancels. Absolute speeds are shown too, but decide nothing.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from conformance.errors import ObservationError, Unsupported
from conformance.judging import stats
from conformance.judging.stats import CONFIDENCE, MINIMUM_CLUSTERS, Estimate, Sample
from conformance.reports.source import Source
from conformance.views.acceptance import everywhere
from conformance.views.bench import Bench
from conformance.views.load import Cell, Counts
from conformance.views.texts import Texts


@dataclass(frozen=True)
class Quantity:
    """A figure of both runs; ``change`` estimates its change at a confidence, as a ratio or a difference."""

    name: str
    before: float
    after: float
    is_ratio: bool
    decides: bool
    change: Callable[[float], Estimate]


@dataclass(frozen=True)
class Row:
    """The contribution of one prompt or one round to a figure: numerator, denominator, category."""

    over: float
    under: float
    category: str


Rows = Mapping[object, Row]


def quantities(before: Source, after: Source) -> tuple[list[Quantity], list[str]]:
    """Every figure that both runs have, and a sentence for each group of figures that cannot be compared."""
    found: list[Quantity] = []
    problems = []
    for name, observation, make in GROUPS:
        held = [source.holds(observation) for source in (before, after)]
        if all(held):
            try:
                found += make(before, after)
            except (ObservationError, Unsupported) as error:
                problems.append(f"{name} cannot be compared: {error}.")
        elif any(held):
            problems.append(f"{name} cannot be compared: only {'A' if held[0] else 'B'} has observed it.")
    return found, problems


def _acceptance(before: Source, after: Source) -> Iterator[Quantity]:
    """Acceptance length, joint acceptance at each position that both runs draft, and the length by category."""
    seen = [everywhere(source.load) for source in (before, after)]
    same = _same_prompts(before, after)

    def of(name: str, count: Callable[[Counts], int], offset: int, category: str | None = None) -> Quantity:
        one, other = (_counted(view.counts, count, category) for view in seen)
        made = _difference(name, one, other, same, offset, decides=category is None)
        return replace(made, change=partial(_with_spread, made.change))

    yield of("acceptance length", lambda counts: counts.accepted, 1)
    for i in range(min(view.k for view in seen)):
        yield of(f"joint acceptance at position {i + 1}", partial(_at_position, i), 0)
    categories = [{counts.category for counts in view.counts} for view in seen]
    for category in sorted(set.intersection(*categories)):
        yield of(f"acceptance length, {category or 'no category'}", lambda counts: counts.accepted, 1, category)


def _at_position(i: int, counts: Counts) -> int:
    return counts.per_position[i]


def _counted(every: Iterable[Counts], count: Callable[[Counts], int], category: str | None) -> Rows:
    """The mean over the requests of a prompt; if vLLM does not count by request, a row for each round, without pair."""
    chosen = [each for each in every if each.drafts and category in (None, each.category)]
    return {
        each.name or ("round", number): Row(count(each) / each.times, each.drafts / each.times, each.category)
        for number, each in enumerate(chosen)
    }


def _with_spread(change: Callable[[float], Estimate], confidence: float) -> Estimate:
    """Require enough prompts: near 1, the difference of two shares needs as many as the interval of one share.

    Raises:
        ObservationError: there are too few prompts.
    """
    found = change(confidence)
    if found.n < MINIMUM_CLUSTERS:
        raise ObservationError(f"{found.n} prompts, and an interval needs {MINIMUM_CLUSTERS}")
    return found


def _speeds(before: Source, after: Source) -> Iterator[Quantity]:
    """The speedup at each concurrency of both runs, and the speeds of single answers with and without MTP."""
    same = _same_prompts(before, after)
    cells = [source.load.cells for source in (before, after)]
    for concurrency in sorted(cells[0].keys() & cells[1].keys()):
        one, other = (cell[concurrency] for cell in cells)
        made = _ratio(f"speedup {one.name}", _speedups(one), _speedups(other), same, decides=True)
        yield replace(made, change=partial(_of_equal_work, (one, other), made.change))
    if all(1 in cell for cell in cells):
        for arm, word in (("mtp", "with"), ("plain", "without")):
            first, second = (_rates(cell[1], arm) for cell in cells)
            yield _ratio(f"tokens/s in a row {word} MTP", first, second, same, decides=False)


def _of_equal_work(cells: Iterable[Cell], change: Callable[[float], Estimate], confidence: float) -> Estimate:
    for cell in cells:
        cell.speedup()  # raises ObservationError if the arms did not generate equally much
    return change(confidence)


def _speedups(cell: Cell) -> Rows:
    """Logarithms of speedups: by prompt for one request at a time, else by round, which its prompts name."""
    if cell.concurrency > 1:
        rounds = [
            (tuple(a.id for a in each.plain.answers), math.log(each.plain.seconds / each.mtp.seconds), "")
            for each in cell.rounds
        ]
        return _means(rounds)
    return _means(
        (slow.id, math.log(slow.seconds / fast.seconds), slow.category)
        for each in cell.rounds
        for slow, fast in each.plain.paired(each.mtp)
    )


def _rates(cell: Cell, arm: str) -> Rows:
    answers = [answer for each in cell.rounds for answer in getattr(each, arm).answers]
    return _means((a.id, math.log(a.tokens / a.seconds), a.category) for a in answers if a.tokens)


def _means(values: Iterable[tuple[object, float, str]]) -> Rows:
    """One row for each name, with the mean of its values."""
    groups: dict[object, list[tuple[float, str]]] = defaultdict(list)
    for name, value, category in values:
        groups[name].append((value, category))
    return {name: Row(sum(v for v, _ in found) / len(found), 1.0, found[0][1]) for name, found in groups.items()}


def _texts(before: Source, after: Source) -> Iterator[Quantity]:
    """The share of greedy answers that MTP does not change.

    Raises:
        ObservationError: no two answers are equal.
    """
    seen = [Texts.of(source.observation("near_ties")) for source in (before, after)]
    compared = [each.compared[True] for each in seen]
    equal = [n - sum(d.with_mtp for d in each.divergences) for n, each in zip(compared, seen, strict=True)]
    if not all(equal):
        raise ObservationError("no two answers are equal")

    yield _over("equal greedy texts", [partial(_share, *each) for each in zip(equal, compared, strict=True)])


def _share(successes: int, n: int, confidence: float) -> Estimate:
    return stats.share(successes, n, confidence=confidence)


def _bench(before: Source, after: Source) -> Iterator[Quantity]:
    """Tokens/s of many requests at once."""
    seen = [Bench.of(source.observation("bench")) for source in (before, after)]
    one, other = (
        _means((("run", i), -math.log(s), "") for i, s in enumerate(each.ours.seconds_per_token)) for each in seen
    )
    yield _ratio(f"tokens/s, {seen[0].at_once} at once", one, other, (), decides=False)


def _soak(before: Source, after: Source) -> Iterator[Quantity]:
    """The throughput and acceptance that a soak kept, and its speed."""
    seen = [source.soak for source in (before, after)]
    yield _over("throughput kept in a soak", [each.throughput_kept for each in seen])
    yield _over("acceptance length kept in a soak", [each.acceptance_kept for each in seen])
    one, other = (each.throughputs() for each in seen)

    def change(confidence: float) -> Estimate:
        return stats.kept(one, other, confidence=confidence)

    speeds = statistics.geometric_mean(one), statistics.geometric_mean(other)
    yield Quantity("tokens/s in a soak", *speeds, is_ratio=True, decides=False, change=change)


GROUPS: Sequence[tuple[str, str, Callable[[Source, Source], Iterator[Quantity]]]] = (
    ("Acceptance", "load", _acceptance),
    ("Speed", "load", _speeds),
    ("Equal greedy texts", "near_ties", _texts),
    ("Speed at once", "bench", _bench),
    ("A soak", "soak", _soak),
)


def _same_prompts(before: Source, after: Source) -> set[str]:
    """The ids that name the same prompt, token by token, in both runs."""
    one, other = (
        {id: p["token_ids"] for look in s.looks for id, p in look["prompts"].items()} for s in (before, after)
    )
    return {id for id, tokens in one.items() if other.get(id) == tokens}


def _difference(
    name: str, before: Rows, after: Rows, same: Collection[str], offset: float, *, decides: bool
) -> Quantity:
    """A ratio of sums plus a constant, which cancels in the change."""
    one, other, paired = _matched(before, after, same)
    values = [offset + sum(side.over) / sum(side.under) for side in (one, other)]

    def change(confidence: float) -> Estimate:
        return stats.change(one, other, paired=paired, confidence=confidence)

    return Quantity(name, values[0], values[1], is_ratio=False, decides=decides, change=change)


def _ratio(name: str, before: Rows, after: Rows, same: Collection[str], *, decides: bool) -> Quantity:
    """A ratio of geometric means; the rows hold logarithms."""
    logs = _difference(name, before, after, same, 0.0, decides=decides)

    def change(confidence: float) -> Estimate:
        found = logs.change(confidence)
        return replace(found, value=math.exp(found.value), low=math.exp(found.low), high=math.exp(found.high))

    return replace(logs, before=math.exp(logs.before), after=math.exp(logs.after), is_ratio=True, change=change)


def _over(name: str, measures: Sequence[Callable[[float], Estimate]]) -> Quantity:
    """The ratio of two estimates, one for each run."""

    def change(confidence: float) -> Estimate:
        one, other = (each(confidence) for each in measures)
        return stats.divide(other, one)

    before, after = (each(CONFIDENCE).value for each in measures)
    return Quantity(name, before, after, is_ratio=True, decides=True, change=change)


def _matched(before: Rows, after: Rows, same: Collection[str]) -> tuple[Sample, Sample, bool]:
    """The rows that both runs have, in the same order, if these are most of either; else all rows, unpaired."""
    common = [name for name in before if name in after and _known(name, same)]
    if 2 * len(common) > max(len(before), len(after)):
        return _sample([before[name] for name in common]), _sample([after[name] for name in common]), True
    return _sample(before.values()), _sample(after.values()), False


def _known(name: object, same: Collection[str]) -> bool:
    """Whether the id of a prompt, or every id of a round, means the same in both runs."""
    return all(each in same for each in name) if isinstance(name, tuple) else name in same


def _sample(rows: Iterable[Row]) -> Sample:
    found = list(rows)
    if not found:
        raise ObservationError("nothing was measured")
    return Sample([r.over for r in found], [r.under for r in found], [r.category for r in found])
