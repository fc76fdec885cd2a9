"""How many samples a floor needs: a power calculation before the run, from the planning figures of the floors.

A planning figure is the expected value and its spread. It decides no verdict; it only says whether a level is likely to
reach a verdict on its floors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import scipy

from conformance.judging.stats import MINIMUM_CLUSTERS, POWER, look_confidence
from conformance.profile.floors import Floor, Floors
from conformance.profile.profile import Sizes

AT_ONCE = 8  # requests, as in the published figure
LIMIT = 100_000  # samples; a floor that needs more counts as unreachable


@dataclass(frozen=True)
class Sampling:
    """What the samples of a floor are, and how many a level takes for one group-sequential look.

    Floors with the same ``load`` are judged by the same requests, so the time of these counts once. ``logarithmic``:
    the spread is that of log ratios.
    """

    load: str
    unit: str
    taken: Callable[[Sizes], int]
    logarithmic: bool = False
    minimum: int = 2


def _sequential_requests(sizes: Sizes) -> int:
    return sizes.requests_of(1) * sizes.by_concurrency().get(1, 0)


def _concurrent_rounds(sizes: Sizes) -> int:
    return sizes.by_concurrency().get(AT_ONCE, 0)


def _all_prompts(sizes: Sizes) -> int:
    requests = sum(sizes.requests_of(concurrency) * rounds for concurrency, rounds in sizes.by_concurrency().items())
    return min(sizes.mixed_prompts, requests)


_ACCEPTANCE = Sampling("load", "prompts", _all_prompts, minimum=MINIMUM_CLUSTERS)
SAMPLINGS = {
    "acceptance_length": _ACCEPTANCE,
    "acceptance_per_position": _ACCEPTANCE,
    "speedup_sequential": Sampling("load", "prompts", _sequential_requests, logarithmic=True),
    "speedup_concurrent": Sampling("load", f"rounds of {AT_ONCE}", _concurrent_rounds, logarithmic=True),
    "acceptance_length_of_pair": _ACCEPTANCE,
    "speedup_of_expected": Sampling("sweep", "prompts", lambda sizes: sizes.sweep_prompts, logarithmic=True),
}


@dataclass(frozen=True)
class Plan:
    """One floor, and the samples that a level takes for it; ``needed`` is None if it cannot be computed or reached."""

    name: str
    floor: Floor
    sampling: Sampling
    taken: int
    needed: int | None

    @property
    def seconds(self) -> float | None:
        """The duration of one look; None without a planning figure."""
        return None if self.floor.seconds is None else self.taken * self.floor.seconds


def plan(floors: Floors, sizes: Sizes) -> list[Plan]:
    """The plans of the floors that are judged by an interval, in the order of their file."""
    plans = []
    for row in floors.rows:
        if sampling := SAMPLINGS.get(row):
            rows = floors.each(row)
            for position, floor in enumerate(rows, 1):
                name = f"{floor.name} {position}" if len(rows) > 1 else floor.name
                needs = needed_for(floor, sampling, look_confidence(sizes.looks))
                plans.append(Plan(name, floor, sampling, sampling.taken(sizes), needs))
    return plans


def needed_for(floor: Floor, sampling: Sampling, confidence: float) -> int | None:
    """The fewest samples whose interval reaches the floor with probability ``POWER``, if the planning figures hold.

    The number comes from the power of the t test (noncentral t). It is None without planning figures, if the expected
    value is below the floor, and if more than ``LIMIT`` samples are needed.
    """
    if floor.bound is None or floor.expected is None or floor.spread is None:
        return None
    margin = math.log(floor.expected / floor.bound) if sampling.logarithmic else floor.expected - floor.bound
    if margin <= 0:
        return None
    if _power(LIMIT, margin, floor.spread, confidence) < POWER:
        return None
    low, high = sampling.minimum - 1, sampling.minimum
    while _power(high, margin, floor.spread, confidence) < POWER:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(middle, margin, floor.spread, confidence) >= POWER else (middle, high)
    return high


def _power(n: int, margin: float, spread: float, confidence: float) -> float:
    """The probability that the interval's low end, of n samples, lies above the floor."""
    if spread == 0:
        return 1.0
    away = margin / spread * math.sqrt(n)
    if away > 37:  # beyond it, rounding makes the noncentral t useless
        return 1.0
    return float(scipy.stats.nct.sf(scipy.stats.t.isf((1 - confidence) / 2, n - 1), n - 1, away))


def first_look(plans: list[Plan]) -> float:
    """The seconds of the first look; requests that several floors share count once."""
    seconds: dict[str, float] = {}
    for each in plans:
        seconds[each.sampling.load] = max(seconds.get(each.sampling.load, 0.0), each.seconds or 0.0)
    return sum(seconds.values())


def as_text(plans: list[Plan], looks: int) -> str:
    """A line for each floor, and the time of all floors."""
    first = first_look(plans)
    total = f"in all about {first:.0f} s for the first look"
    if looks > 1:
        total += (
            f", {looks * first:.0f} s if all {looks} are needed; each of these group-sequential looks uses "
            f"{look_confidence(looks):.1%} intervals"
        )
    return "\n".join([*map(_line, plans), f"{total}. Starting the servers is not counted."]) + "\n"


def _line(each: Plan) -> str:
    floor, unit = each.floor, each.sampling.unit
    begin = f"{each.name}: floor {floor.bound:g}"
    if floor.expected is None or floor.spread is None:
        return f"{begin}: no planning figure, so n cannot be computed; the level takes {each.taken} {unit}{_time(each)}"
    begin += f", expected {floor.expected:g} (spread {floor.spread:g})"
    if each.needed is None:
        return f"{begin}: no n is likely to reach it; the level takes {each.taken}{_time(each)}"
    short = " TOO FEW" if each.taken < each.needed else ""
    return f"{begin}: needs {each.needed} {unit}, the level takes {each.taken}{short}{_time(each)}"


def _time(each: Plan) -> str:
    return "" if each.seconds is None else f", about {each.seconds:.0f} s"
