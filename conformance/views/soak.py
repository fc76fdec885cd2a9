"""A soak over time: what came of its requests, and whether speed, acceptance, memory and clocks hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

from conformance.errors import ObservationError, Unsupported
from conformance.judging import stats
from conformance.judging.stats import CONFIDENCE, Estimate

HEAT = ("sw_thermal_slowdown", "hw_thermal_slowdown", "hw_slowdown")  # NVML's reasons for lower clocks
POWER = ("sw_power_cap", "hw_power_brake_slowdown")
SENSORS = {"temperature_c": "temperature, °C", "sm_clock_mhz": "SM clock, MHz", "memory_mib": "memory in use, MiB"}
PARTS = 3  # the last of them is held against the first
HOUR = 3600.0
LEAST_LEFT = 0.01  # of the CPU by others
Value = Callable[[Mapping[str, Any]], float]


@dataclass(frozen=True)
class Soak:
    """The ``soak`` observation; ``warm_up`` is the share of the time at its beginning that no drift is judged by."""

    facts: Mapping[str, Any]
    warm_up: float
    source: str = "observations/soak.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any], warm_up: float) -> Self:
        """Read the observation."""
        return cls(facts, warm_up)

    @property
    def windows(self) -> Sequence[Mapping[str, Any]]:
        """All of them."""
        windows: Sequence[Mapping[str, Any]] = self.facts["windows"]
        return windows

    @property
    def settled(self) -> Sequence[Mapping[str, Any]]:
        """The windows after the warm-up."""
        return [each for each in self.windows if each["begin"] >= 60 * self.facts["minutes"] * self.warm_up]

    @property
    def asked(self) -> int:
        """Requests that were sent."""
        return int(self.facts["answered"] + self.facts["failed"])

    def objections(self) -> list[str]:
        """Requests that failed, a server that died or could not be read, time in which no token came."""
        facts = self.facts
        found = [f"after {row['seconds']:.0f} s {row['what']}" for row in facts["failures"]]
        if more := facts["failed"] - len(facts["failures"]):
            found.append(f"{more} more requests failed")
        if facts["broken"]:
            found.insert(0, f"the load broke off after {facts['seconds']:.0f} s: {facts['broken']}")
        elif not facts["alive"]:
            found.insert(0, "the server did not live to its end")
        silent = [row for row in self.windows if not row["counted"]["output_tokens"]]
        return found + [f"no token came between {row['begin']:.0f} and {row['end']:.0f} s" for row in silent]

    def account(self) -> str:
        """What was done, for a reader."""
        facts = self.facts
        return (
            f"{facts['answered']} requests answered with {facts['output_tokens']} tokens, "
            f"{facts['at_once']} at once for {facts['seconds'] / 60:.1f} minutes"
        )

    def over_time(self, value: Value) -> list[tuple[float, float]]:
        """(minute, value) of every window that has it."""
        return [(row["end"] / 60, value(row)) for row in self.windows]

    def told(self) -> dict[str, list[tuple[float, float]]]:
        """The same of memory and sensors, as far as all windows tell."""
        found = {"resident memory, MiB": [row["resident_mib"] for row in self.windows]}
        for gpu in self._at_work:
            for name, word in SENSORS.items():
                found[f"GPU {gpu}: {word}"] = [row["gpus"][gpu][name] for row in self.windows]
        ends = [row["end"] / 60 for row in self.windows]
        return {name: list(zip(ends, values, strict=True)) for name, values in found.items() if None not in values}

    def throughput_kept(self, confidence: float = CONFIDENCE) -> Estimate:
        """Tokens/s of the last part over those of the first.

        Where others took another share of the CPU than before, that may explain as much of a change as they left of it
        at last over at first, or nothing: the interval holds both.
        """
        found, explained = stats.kept(*self._sides(throughput), confidence=confidence), self._left_by_others()
        ends = found.low, found.high, found.low / explained, found.high / explained
        return replace(found, low=min(ends), high=max(ends))

    def acceptance_kept(self, confidence: float = CONFIDENCE) -> Estimate:
        """Acceptance length of the last part over that of the first."""
        return stats.kept(*self._sides(acceptance_length_of), confidence=confidence)

    def throughputs(self) -> list[float]:
        """Output tokens/s in every window after the warm-up."""
        return [throughput(row) for row in self.settled]

    def speeds(self) -> str:
        """Both speeds, and what others used of the machine meanwhile."""
        said = "{:.1f} output tokens/s at first, {:.1f} at last".format(*map(_mean, self._sides(throughput)))
        if self._knows_others:
            said += "; others used {:.0%} of the machine's CPU at first, {:.0%} at last".format(*self._others())
        return said

    def lengths(self) -> str:
        """Both acceptance lengths."""
        return "acceptance length {:.3f} at first, {:.3f} at last".format(
            *map(_mean, self._sides(acceptance_length_of))
        )

    def growth(self, step: float) -> dict[str, Estimate]:
        """Resident memory of the server's processes, MiB an hour; Unsupported where they are out of sight.

        ``step``: as many MiB more or less say nothing, since memory is taken in steps; it widens the interval.
        """
        if all(row["resident_mib"] is None for row in self.windows):
            raise Unsupported("The processes of the server cannot be seen from here, nor their memory.")
        return {"resident memory": self._growth(lambda row: row["resident_mib"], step)}

    def memory(self) -> str:
        """Where resident memory was after the warm-up, halfway and at the end."""
        rows = self.settled
        return "resident memory {:.0f}, {:.0f} and {:.0f} MiB after the warm-up, halfway and at the end".format(
            *(row["resident_mib"] for row in (rows[0], rows[len(rows) // 2], rows[-1]))
        )

    def gpu_growth(self, step: float) -> dict[str, Estimate]:
        """Memory in use on each GPU, MiB an hour; none for one that does not tell (unified memory)."""
        return {
            f"memory of GPU {gpu}": self._growth(partial(_gpu_memory, gpu), step)
            for gpu in self._gpus
            if all(row["gpus"][gpu]["memory_mib"] is not None for row in self.settled)
        }

    def clocks_kept(self) -> dict[str, Estimate]:
        """SM clock of the last part over that of the first, on each GPU at work; Unsupported without one that tells."""
        found = {f"SM clock of GPU {gpu}": stats.kept(*sides) for gpu in self._at_work if (sides := self._clocks(gpu))}
        if not found:
            raise Unsupported(
                f"There is no GPU at work that tells its clock and why it is lowered ({self.facts['gpus']})."
            )
        return found

    def throttled(self, allowed: Mapping[str, float]) -> list[str]:
        """Why the clocks of the GPUs at work were lowered in more than the allowed share of the looks at them."""
        rows = [row["gpus"][gpu] for row in self.windows for gpu in self._at_work]
        shares = {reason: sum(row["reasons"].get(reason, 0) for row in rows) / self.looks for reason in allowed}
        return [
            f"clocks were lowered by {reason} in {share:.1%} of the looks, where {allowed[reason]:.0%} are allowed"
            for reason, share in shares.items()
            if share > allowed[reason]
        ]

    @property
    def looks(self) -> int:
        """How often the GPUs at work were looked at."""
        return sum(row["gpus"][gpu]["looks"] for row in self.windows for gpu in self._at_work)

    def heat(self) -> str:
        """Clock, power and the highest temperature of each GPU at work."""
        return "; ".join(self._heat(gpu) for gpu in self._at_work)

    @property
    def _knows_others(self) -> bool:
        return all(row["others_cpu"] is not None for row in self.settled)

    def _others(self) -> tuple[float, float]:
        first, last = self._sides(lambda row: row["others_cpu"])
        return _mean(first), _mean(last)

    def _left_by_others(self) -> float:
        """The share of the CPU that they left at last over that at first; 1 where it is not known."""
        if not self._knows_others:
            return 1.0
        first, last = self._others()
        return max(1 - last, LEAST_LEFT) / max(1 - first, LEAST_LEFT)

    @property
    def _gpus(self) -> range:
        return range(min((len(row["gpus"]) for row in self.settled), default=0))

    @property
    def _at_work(self) -> list[int]:
        """Those that were busy in every window and say why their clocks are lowered."""
        every = range(min((len(row["gpus"]) for row in self.windows), default=0))
        rows = {gpu: [row["gpus"][gpu] for row in self.windows] for gpu in every}
        return [gpu for gpu, seen in rows.items() if all(row["busy"] and row["reasons"] is not None for row in seen)]

    def _clocks(self, gpu: int) -> tuple[list[float], list[float]] | None:
        if any(row["gpus"][gpu]["sm_clock_mhz"] is None for row in self.settled):
            return None
        return self._sides(lambda row: row["gpus"][gpu]["sm_clock_mhz"])

    def _heat(self, gpu: int) -> str:
        rows = [row["gpus"][gpu] for row in self.windows]
        words = [
            f"{word} {pick(known):.0f} {unit}"
            for word, name, unit, pick in (
                ("mean SM clock", "sm_clock_mhz", "MHz", _mean),
                ("mean power", "power_w", "W", _mean),
                ("at most", "temperature_c", "°C", max),
            )
            if (known := [row[name] for row in rows if row[name] is not None])
        ]
        return f"GPU {gpu}: {', '.join(words)}"

    def _growth(self, value: Value, step: float) -> Estimate:
        """From the second half: what a server allocates as its load comes up is no leak, and tails off."""
        later = [row for row in self.settled if row["begin"] >= 30 * self.facts["minutes"]]
        found = stats.trend([row["end"] / HOUR for row in later], [value(row) for row in later])
        reach = step * HOUR / (later[-1]["end"] - later[0]["begin"])
        return replace(found, low=found.low - reach, high=found.high + reach)

    def _sides(self, value: Value) -> tuple[list[float], list[float]]:
        """The measurements of the first and of the last part of what is settled."""
        rows = self.settled
        size = len(rows) // PARTS
        if not size:
            raise ObservationError(f"{self.source} has {len(rows)} windows after the warm-up: too few to compare")
        return [value(row) for row in rows[:size]], [value(row) for row in rows[-size:]]


def _gpu_memory(gpu: int, window: Mapping[str, Any]) -> float:
    return float(window["gpus"][gpu]["memory_mib"])


def throughput(window: Mapping[str, Any]) -> float:
    """Output tokens/s, as the server counts them."""
    return float(window["counted"]["output_tokens"] / (window["end"] - window["begin"]))


def acceptance_length_of(window: Mapping[str, Any]) -> float:
    """Tokens that a step yielded; ObservationError where there was no step."""
    counted = window["counted"]
    if not counted["drafts"]:
        raise ObservationError(f"nothing was drafted between {window['begin']:.0f} and {window['end']:.0f} s")
    return float(1 + counted["accepted"] / counted["drafts"])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
