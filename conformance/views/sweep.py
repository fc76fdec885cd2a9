"""The cost of a step at every k, and the share of the resulting speedup that the server under test reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import scipy

from conformance.errors import ObservationError
from conformance.judging import stats
from conformance.judging.stats import Estimate

PLAIN, MTP = "plain", "mtp"


@dataclass(frozen=True)
class Asked:
    """One prompt at one k: decode seconds after the first token, drafts, accepted tokens, and tokens made by steps.

    A step makes one token and the tokens that it accepts, even if the answer ends before the last of them. A short
    answer of ten steps would lose a twentieth of its tokens otherwise, which is no fault of the build.
    """

    prompt: str
    seconds: float
    tokens: int
    drafts: int
    accepted: int
    text: tuple[int, ...]


Rows = Sequence[Asked]


@dataclass(frozen=True)
class Point:
    """One k: acceptance length, milliseconds per step, the speedup that both allow, and the measured speedup."""

    length: float
    step: float
    allowed: float
    speedup: Estimate


@dataclass(frozen=True)
class Costs:
    """Milliseconds of a target step without MTP, of one drafted token with its verification, and of the rest."""

    target: float
    draft: float
    rest: float

    @property
    def overhead(self) -> float:
        """The cost of a step with MTP beyond target and draft, as a share of a target step."""
        return self.rest / self.target - 1

    def step(self, k: int) -> float:
        """The milliseconds of a step that drafts k tokens: target · (1 + overhead) + k · draft."""
        return self.rest + k * self.draft

    def expected(self, length: float, k: int) -> float:
        """The speedup that an acceptance length allows: length / (1 + k · draft / target + overhead).

        Raises:
            ObservationError: the fitted time of a step is not positive.
        """
        if self.step(k) <= 0:
            raise ObservationError(
                f"the fitted time of a step at k = {k} is {self.step(k):.2f} ms: the sweep fits no straight line"
            )
        return length * self.target / self.step(k)


@dataclass(frozen=True)
class Sweep:
    """The ``sweep`` observation: rows without MTP, of the server under test, and of every k, in prompt order."""

    k: int
    plain: Rows
    mtp: Rows
    swept: Mapping[int, Rows]
    source: str = "observations/sweep.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation.

        Raises:
            ObservationError: the counts contradict each other, or prompts or draft lengths are missing.
        """
        _check_counts(facts)
        groups: dict[tuple[str, int], list[Asked]] = {}
        for row in facts["rows"]:
            group = row["server"] if row["server"] in (PLAIN, MTP) else "sweep"
            groups.setdefault((group, row["k"]), []).append(_asked(row))
        plain, mtp = groups.pop((PLAIN, 0), []), groups.pop((MTP, facts["k"]), [])
        swept = {k: rows for (_, k), rows in sorted(groups.items(), key=lambda group: group[0][1])}
        names = [row.prompt for row in plain]
        if facts["k"] not in swept or len(swept) < 2:
            raise ObservationError(
                f"{len(names)} prompts at {len(swept)} draft lengths are too few to estimate the cost of a step"
            )
        if any([row.prompt for row in rows] != names for rows in (mtp, *swept.values())):
            raise ObservationError("not every prompt was asked at every k")
        return cls(facts["k"], plain, mtp, swept)

    def costs(self) -> Costs:
        """The costs from a straight line through the milliseconds of a step at every k."""
        return _costs(self.plain, self.swept)

    def expected(self) -> float:
        """The speedup that the acceptance length of the server under test allows at its k."""
        return self.costs().expected(_length(self.mtp), self.k)

    def measured(self) -> float:
        """The speedup of the server under test: decode time per token without MTP over that with MTP."""
        return _per_token(self.plain) / _per_token(self.mtp)

    def share_of_expected(self) -> Estimate:
        """Measured over expected speedup by prompt; a slow build affects all prompts, a busy machine only a few."""
        measured, expected = [], []
        for place in range(len(self.plain)):
            plain, mtp = [self.plain[place]], [self.mtp[place]]
            costs = _costs(plain, {k: [rows[place]] for k, rows in self.swept.items()})
            measured.append(_per_token(plain) / _per_token(mtp))
            expected.append(costs.expected(_length(mtp), self.k))
        return stats.agreement(measured, expected)

    def speedups(self) -> dict[int, float]:
        """The speedup at every k of the sweep."""
        return {k: _per_token(self.plain) / _per_token(rows) for k, rows in self.swept.items()}

    def at(self, k: int) -> Point:
        """One k of the sweep."""
        rows = self.swept[k]
        plain, mtp = ([_per_token([row]) for row in arm] for arm in (self.plain, rows))
        length = _length(rows)
        return Point(length, _per_step(rows), self.costs().expected(length, k), stats.speedup(plain, mtp))

    def best_k(self) -> int:
        """The k of the sweep with the highest speedup."""
        speedups = self.speedups()
        return max(speedups, key=lambda k: speedups[k])

    def best(self) -> str:
        """A sentence that says which k was the fastest."""
        speedups, best = self.speedups(), self.best_k()
        if best == self.k:
            return f"The pair's k = {best} was the fastest of {len(speedups)}: {speedups[best]:.2f} times."
        pair = f"the pair's k = {self.k} gives {speedups[self.k]:.2f} times"
        return f"k = {best} was the fastest with {speedups[best]:.2f} times; {pair}."

    def note(self) -> str:
        """As a note: the costs, the expected and measured speedup, and a table by k."""
        costs, speedups = self.costs(), self.speedups()
        table = "; ".join(
            f"k = {k}: {_length(rows):.2f}, {_per_step(rows):.2f} ms, {speedups[k]:.2f}"
            for k, rows in self.swept.items()
        )
        return (
            f"target {costs.target:.2f} ms a step, draft {costs.draft:.2f} ms a token, overhead {costs.overhead:.2f} "
            f"target steps; speedup expected {self.expected():.2f}, measured {self.measured():.2f}; "
            f"acceptance length, step and speedup at {table}. {self.best()}{self._text_note()}"
        )

    def _text_note(self) -> str:
        texts = [row.text for row in self.plain]
        ks = [str(k) for k, rows in self.swept.items() if [row.text for row in rows] != texts]
        return f" Answers differ from those without MTP at k = {', '.join(ks)}." if ks else ""


def _asked(row: Mapping[str, Any]) -> Asked:
    seconds, drafts = row["seconds"] - row["first_token_seconds"], row["drafts"]
    made = drafts + row["accepted"] if row["k"] else row["output_tokens"] - 1
    if seconds <= 0 or made < 1:
        raise ObservationError(f"{row['prompt']} at k = {row['k']} has no step after its first token")
    return Asked(row["prompt"], seconds, made, drafts, row["accepted"], tuple(row["token_ids"]))


def _check_counts(facts: Mapping[str, Any]) -> None:
    """Require that drafts have the requested length, positions sum up, and /metrics counts the same.

    Raises:
        ObservationError: one of these does not hold.
    """
    for row in facts["rows"]:
        where, per_position = f"{row['prompt']} at k = {row['k']}", row["accepted_per_position"]
        if row["draft_tokens"] != row["drafts"] * row["k"]:
            raise ObservationError(f"{where}: {row['draft_tokens']} tokens drafted in {row['drafts']} drafts")
        if sum(per_position) != row["accepted"] or per_position != sorted(per_position, reverse=True):
            raise ObservationError(f"{where}: {row['accepted']} tokens accepted, by position {per_position}")
    for total in facts["counted"]:
        rows = [row for row in facts["rows"] if row["server"] == total["server"]]
        for name in ("drafts", "draft_tokens", "accepted"):
            counted = sum(row[name] for row in rows)
            if counted != total[name]:
                where = f"/metrics of the {total['server']} server"
                raise ObservationError(f"{where} counts {total[name]} {name} where the answers count {counted}")


def _costs(plain: Rows, swept: Mapping[int, Rows]) -> Costs:
    line = scipy.stats.linregress(list(swept), [_per_step(rows) for rows in swept.values()])
    return Costs(_per_token(plain), float(line.slope), float(line.intercept))


def _per_step(rows: Rows) -> float:
    return 1000 * sum(row.seconds for row in rows) / sum(row.drafts for row in rows)


def _per_token(rows: Rows) -> float:
    return 1000 * sum(row.seconds for row in rows) / sum(row.tokens for row in rows)


def _length(rows: Rows) -> float:
    return 1 + sum(row.accepted for row in rows) / sum(row.drafts for row in rows)
