"""Steps of decoding by the kind of their CUDA graph, and the speed by the number of requests at once."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median, variance
from typing import Any, Self

from conformance.errors import ObservationError
from conformance.judging.power import drop_seen
from conformance.profile.arms import MTP, PLAIN
from conformance.views.cuda_graphs import FULL, ranges

WORDS = {PLAIN: "without MTP", MTP: "with MTP"}


@dataclass(frozen=True)
class Cliff:
    """A number of requests that seems slower than one less; ``in_every_pass``: noise of the machine cannot be why."""

    sentence: str
    in_every_pass: bool


@dataclass(frozen=True)
class Arm:
    """One server: its steps of decoding by requests and kind of graph, and its passes over the numbers of requests."""

    name: str
    most: int
    steps: Mapping[int, Counter[str]]
    other_steps: int  # with a prompt, or of requests whose drafts were shorter
    rates: Mapping[int, tuple[float, ...]]  # tokens/s by pass
    step_ms: Mapping[int, float]

    @classmethod
    def of(cls, name: str, most: int, found: Mapping[str, Any]) -> Self:
        """Read one arm of the observation.

        Raises:
            ObservationError: the server counted no step of decoding, or a number of requests was not asked.
        """
        steps: dict[int, Counter[str]] = defaultdict(Counter)
        other, width = 0, found["width"]
        for row in found["steps"]:
            requests, rest = divmod(row["tokens"], width)
            if rest == 0 and requests <= most:
                steps[requests][row["mode"]] += row["steps"]
            else:
                other += row["steps"]
        rates: dict[int, list[float]] = defaultdict(list)
        times: dict[int, list[float]] = defaultdict(list)
        for row in found["rates"]:
            rates[row["requests"]].append(row["tokens_per_second"])
            times[row["requests"]].append(row["step_ms"])
        if not steps:
            raise ObservationError(f"{GraphSteps.source}: no step of decoding {WORDS[name]} was counted")
        if sorted(rates) != list(range(1, most + 1)):
            raise ObservationError(f"{GraphSteps.source}: {len(rates)} of {most} numbers of requests were asked")
        by_number = {number: tuple(each) for number, each in sorted(rates.items())}
        return cls(WORDS[name], most, steps, other, by_number, {n: median(each) for n, each in sorted(times.items())})

    @property
    def decoded(self) -> int:
        """The number of steps of decoding."""
        return sum(sum(kinds.values()) for kinds in self.steps.values())

    def without_full_graph(self) -> Iterator[str]:
        """A sentence for each kind of graph but FULL: for which numbers of requests, and how many of their steps."""
        for kind in sorted({kind for counted in self.steps.values() for kind in counted} - {FULL}):
            affected = {number: counted for number, counted in self.steps.items() if counted[kind]}
            steps, every = (
                sum(each[kind] for each in affected.values()),
                sum(sum(each.values()) for each in affected.values()),
            )
            yield (
                f"{self.name}: {steps} of {every} steps of decoding with {ranges(affected)} requests "
                f"are {kind}, not {FULL}"
            )

    def cliffs(self, share: float) -> Iterator[Cliff]:
        """Each number of requests whose best pass with one more is slower by that share."""
        for number in range(1, self.most):
            here, more = max(self.rates[number]), max(self.rates[number + 1])
            if more < (1 - share) * here:
                sentence = (
                    f"{self.name}: {here:.0f} tokens/s with {number} {'requests' if number > 1 else 'request'}, "
                    f"but {more:.0f} with {number + 1}, {100 * (1 - more / here):.0f} % less"
                )
                yield Cliff(sentence, in_every_pass=more < (1 - share) * min(self.rates[number]))

    def spread(self) -> float:
        """The standard deviation of the logarithm of one pass, over all numbers of requests."""
        logs = [[math.log(rate) for rate in rates] for rates in self.rates.values() if len(rates) > 1]
        return math.sqrt(sum(map(variance, logs)) / len(logs)) if logs else math.inf

    def note(self) -> str:
        """Where the steps were counted, and where not."""
        unseen = [number for number in range(1, self.most + 1) if number not in self.steps]
        missing = f", none with {ranges(unseen)} requests" if unseen else ""
        return f"{self.name}: {self.decoded} steps of decoding and {self.other_steps} others{missing}"

    def speed(self) -> str:
        """The speed at a few numbers of requests."""
        chosen = dict.fromkeys((1, max(1, self.most // 4), max(1, self.most // 2), self.most))
        said = ", ".join(f"{n}: {max(self.rates[n]):.0f} tokens/s, {self.step_ms[n]:.1f} ms a step" for n in chosen)
        return f"{self.name}, by requests at once: {said}"


@dataclass(frozen=True)
class GraphSteps:
    """The ``graph_steps`` observation."""

    arms: tuple[Arm, ...]
    source: str = "observations/graph_steps.json"

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read the observation.

        Raises:
            ObservationError: a server counted no step of decoding, or a number of requests was not asked.
        """
        return cls(tuple(Arm.of(name, document["requests"], document["arms"][name]) for name in (PLAIN, MTP)))

    @property
    def decoded(self) -> int:
        """The number of steps of decoding of both servers."""
        return sum(arm.decoded for arm in self.arms)

    @property
    def numbers(self) -> int:
        """How many numbers of requests have one more beside them, in both servers together."""
        return sum(arm.most - 1 for arm in self.arms)

    def without_full_graph(self) -> list[str]:
        """A sentence for each kind of graph but FULL, in each server."""
        return [sentence for arm in self.arms for sentence in arm.without_full_graph()]

    def cliffs(self, share: float) -> list[str]:
        """A sentence for each cliff that every pass shows, in each server."""
        return [cliff.sentence for arm in self.arms for cliff in arm.cliffs(share) if cliff.in_every_pass]

    def doubtful_cliffs(self, share: float) -> list[str]:
        """A sentence for each cliff that the best passes show, but not every pass, in each server."""
        return [cliff.sentence for arm in self.arms for cliff in arm.cliffs(share) if not cliff.in_every_pass]

    def drop_seen(self, share: float) -> float:
        """The drop of tokens/s that every pass shows with probability 0.95, in the noisier server; 1 with one pass."""
        passes = min(len(rates) for arm in self.arms for rates in arm.rates.values())
        spread = max(arm.spread() for arm in self.arms)
        return 1.0 if math.isinf(spread) else drop_seen(spread, passes, share)

    def counted(self) -> str:
        """As a note: where steps were counted."""
        return "; ".join(arm.note() for arm in self.arms)

    def speeds(self) -> str:
        """As a note: the speed at a few numbers of requests."""
        return "; ".join(arm.speed() for arm in self.arms)
