"""What a step costs at every k, and how much of the speedup that follows from it the server under test reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from scipy.stats import linregress

from conformance.errors import ObservationError
from conformance.judging import stats
from conformance.judging.stats import Estimate

PLAIN, MTP = "plain", "mtp"


@dataclass(frozen=True)
class Asked:
    """One prompt at one k: decode seconds (after the first token), drafts, accepted, and the tokens that steps made.

    A step makes one token and those it accepts, even where the answer ends amid them: that a short answer throws some
    away is no fault of the build, and ten steps of a short answer would lose a twentieth by it.
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
    """One k: acceptance length, milliseconds of a step, the speedup that both allow, and that by prompt which came."""

    length: float
    step: float
    allowed: float
    speedup: Estimate


@dataclass(frozen=True)
class Costs:
    """Milliseconds: of a target step without MTP, of one more drafted token with its verification, of the rest."""

    target: float
    draft: float
    rest: float

    @property
    def overhead(self) -> float:
        """What a step with MTP costs beyond the target's and the draft's, as a share of the target's."""
        return self.rest / self.target - 1

    def step(self, k: int) -> float:
        """Milliseconds of a step that drafts k tokens: target · (1 + overhead) + k · draft."""
        return self.rest + k * self.draft

    def expected(self, length: float, k: int) -> float:
        """The speedup that an acceptance length allows: length / (1 + k · draft / target + overhead)."""
        if self.step(k) <= 0:
            raise ObservationError(f"a step at k = {k} comes out at {self.step(k):.2f} ms: the sweep is no line")
        return length * self.target / self.step(k)


@dataclass(frozen=True)
class Sweep:
    """The ``sweep`` observation: rows without MTP, of the server under test, and of every k; in the prompts' order."""

    k: int
    plain: Rows
    mtp: Rows
    swept: Mapping[int, Rows]
    source: str = "observations/sweep.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation; ObservationError where its counts contradict each other or prompts are missing."""
        _must_fit(facts)
        groups: dict[tuple[str, int], list[Asked]] = {}
        for row in facts["rows"]:
            group = row["server"] if row["server"] in (PLAIN, MTP) else "sweep"
            groups.setdefault((group, row["k"]), []).append(_asked(row))
        plain, mtp = groups.pop((PLAIN, 0), []), groups.pop((MTP, facts["k"]), [])
        swept = {k: rows for (_, k), rows in sorted(groups.items(), key=lambda group: group[0][1])}
        names = [row.prompt for row in plain]
        if facts["k"] not in swept or len(swept) < 2:
            raise ObservationError(f"{len(names)} prompts at {len(swept)} lengths: too few to tell what a step costs")
        if any([row.prompt for row in rows] != names for rows in (mtp, *swept.values())):
            raise ObservationError("not every prompt was asked at every k")
        return cls(facts["k"], plain, mtp, swept)

    def costs(self) -> Costs:
        """From the step's milliseconds at every k by a straight line."""
        return _costs(self.plain, self.swept)

    def expected(self) -> float:
        """The speedup that the acceptance length of the server under test allows at its k."""
        return self.costs().expected(_length(self.mtp), self.k)

    def measured(self) -> float:
        """The speedup of the server under test: decode time of a token without MTP over that with it."""
        return _per_token(self.plain) / _per_token(self.mtp)

    def of_expected(self) -> Estimate:
        """Measured over expected speedup by prompt: a slow build is slow at all of them, a busy machine at few."""
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
        """One k of the sweep by itself."""
        rows = self.swept[k]
        plain, mtp = ([_per_token([row]) for row in arm] for arm in (self.plain, rows))
        length = _length(rows)
        return Point(length, _per_step(rows), self.costs().expected(length, k), stats.speedup(plain, mtp))

    def best_k(self) -> int:
        """The k of the sweep with the highest speedup."""
        speedups = self.speedups()
        return max(speedups, key=lambda k: speedups[k])

    def best(self) -> str:
        """Which k was the fastest, as a sentence."""
        speedups, best = self.speedups(), self.best_k()
        if best == self.k:
            return f"The pair's k = {best} was the fastest of {len(speedups)}: {speedups[best]:.2f} times."
        pair = f"the pair's k = {self.k} gives {speedups[self.k]:.2f} times"
        return f"k = {best} was the fastest with {speedups[best]:.2f} times; {pair}."

    def note(self) -> str:
        """Costs, expected and measured, and the table of k, for a reader."""
        costs, speedups = self.costs(), self.speedups()
        table = "; ".join(
            f"k = {k}: {_length(rows):.2f}, {_per_step(rows):.2f} ms, {speedups[k]:.2f}"
            for k, rows in self.swept.items()
        )
        return (
            f"target {costs.target:.2f} ms a step, draft {costs.draft:.2f} ms a token, overhead {costs.overhead:.2f} "
            f"target steps; speedup expected {self.expected():.2f}, measured {self.measured():.2f}; "
            f"acceptance length, step and speedup at {table}. {self.best()}{self._different()}"
        )

    def _different(self) -> str:
        texts = [row.text for row in self.plain]
        ks = [str(k) for k, rows in self.swept.items() if [row.text for row in rows] != texts]
        return f" Answers differ from those without MTP at k = {', '.join(ks)}." if ks else ""


def _asked(row: Mapping[str, Any]) -> Asked:
    seconds, drafts = row["seconds"] - row["first_token_seconds"], row["drafts"]
    made = drafts + row["accepted"] if row["k"] else row["output_tokens"] - 1
    if seconds <= 0 or made < 1:
        raise ObservationError(f"{row['prompt']} at k = {row['k']} has no step after its first token")
    return Asked(row["prompt"], seconds, made, drafts, row["accepted"], tuple(row["token_ids"]))


def _must_fit(facts: Mapping[str, Any]) -> None:
    """ObservationError unless drafts have the asked length, positions sum up, and /metrics counts the same."""
    for row in facts["rows"]:
        where, per_position = f"{row['prompt']} at k = {row['k']}", row["accepted_per_position"]
        if row["draft_tokens"] != row["drafts"] * row["k"]:
            raise ObservationError(f"{where}: {row['draft_tokens']} tokens drafted in {row['drafts']} drafts")
        if sum(per_position) != row["accepted"] or per_position != sorted(per_position, reverse=True):
            raise ObservationError(f"{where}: {row['accepted']} tokens accepted, by position {per_position}")
    for total in facts["counted"]:
        rows = [row for row in facts["rows"] if row["server"] == total["server"]]
        for name in ("drafts", "draft_tokens", "accepted"):
            told = sum(row[name] for row in rows)
            if told != total[name]:
                where = f"/metrics of the {total['server']} server"
                raise ObservationError(f"{where} counts {total[name]} {name} where the answers tell {told}")


def _costs(plain: Rows, swept: Mapping[int, Rows]) -> Costs:
    line = linregress(list(swept), [_per_step(rows) for rows in swept.values()])
    return Costs(_per_token(plain), float(line.slope), float(line.intercept))


def _per_step(rows: Rows) -> float:
    return 1000 * sum(row.seconds for row in rows) / sum(row.drafts for row in rows)


def _per_token(rows: Rows) -> float:
    return 1000 * sum(row.seconds for row in rows) / sum(row.tokens for row in rows)


def _length(rows: Rows) -> float:
    return 1 + sum(row.accepted for row in rows) / sum(row.drafts for row in rows)
