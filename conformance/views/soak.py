"""A soak over time: its requests, and whether speed, acceptance, memory and clocks stay stable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

from conformance.errors import ObservationError, Unsupported
from conformance.judging import stats
from conformance.judging.stats import CONFIDENCE, Estimate
from conformance.profile.arms import MTP, PLAIN

HEAT = ("sw_thermal_slowdown", "hw_thermal_slowdown", "hw_slowdown")  # NVML's reasons for lower clocks
POWER = ("sw_power_cap", "hw_power_brake_slowdown")
SENSORS = {"temperature_c": "temperature, °C", "sm_clock_mhz": "SM clock, MHz", "memory_mib": "memory in use, MiB"}
PARTS = 3  # the last part is compared with the first
HOUR = 3600.0
LEAST_LEFT = 0.01  # the least share of the CPU that other processes leave
Value = Callable[[Mapping[str, Any]], float]


@dataclass(frozen=True)
class Soak:
    """The ``soak`` observation; ``warm_up`` is the share of its time at the beginning that is not judged for drift."""

    facts: Mapping[str, Any]
    warm_up: float
    source: str = "observations/soak.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any], warm_up: float) -> Self:
        """Read the observation."""
        return cls(facts, warm_up)

    @property
    def windows(self) -> Sequence[Mapping[str, Any]]:
        """All time windows."""
        windows: Sequence[Mapping[str, Any]] = self.facts["windows"]
        return windows

    @property
    def after_warm_up(self) -> Sequence[Mapping[str, Any]]:
        """The windows after the warm-up."""
        return [each for each in self.windows if each["begin"] >= 60 * self.facts["minutes"] * self.warm_up]

    @property
    def request_count(self) -> int:
        """The number of requests that were sent."""
        return int(self.facts["answered"] + self.facts["failed"])

    def objections(self) -> list[str]:
        """A sentence for each failed request, for a dead or unreadable server, and for each window without a token."""
        facts = self.facts
        found = [f"after {row['seconds']:.0f} s {row['what']}" for row in facts["failures"]]
        if more := facts["failed"] - len(facts["failures"]):
            found.append(f"{more} more requests failed")
        if facts["broken"]:
            found.insert(0, f"the load broke off after {facts['seconds']:.0f} s: {facts['broken']}")
        elif not facts["alive"]:
            found.insert(0, "the server did not survive the load")
        silent = [row for row in self.windows if not row["counted"]["output_tokens"]]
        return found + [f"no token arrived between {row['begin']:.0f} and {row['end']:.0f} s" for row in silent]

    def account(self) -> str:
        """The number of requests and tokens, as a note."""
        facts = self.facts
        return (
            f"{facts['answered']} requests answered with {facts['output_tokens']} tokens, "
            f"{facts['at_once']} at once for {facts['seconds'] / 60:.1f} minutes"
        )

    def over_time(self, value: Value) -> list[tuple[float, float]]:
        """(minute, value) of every window."""
        return [(row["end"] / 60, value(row)) for row in self.windows]

    def told(self) -> dict[str, list[tuple[float, float]]]:
        """(minute, value) of memory and sensors that all windows report."""
        found = {"resident memory, MiB": [row["resident_mib"] for row in self.windows]}
        for gpu in self._at_work:
            for name, word in SENSORS.items():
                found[f"GPU {gpu}: {word}"] = [row["gpus"][gpu][name] for row in self.windows]
        ends = [row["end"] / 60 for row in self.windows]
        return {name: list(zip(ends, values, strict=True)) for name, values in found.items() if None not in values}

    def throughput_kept(self, confidence: float = CONFIDENCE) -> Estimate:
        """Tokens/s of the last part over tokens/s of the first.

        If other processes used a different share of the CPU in the last part, this may explain the change by the ratio
        of the CPU shares that they left, or not at all. The interval includes both.
        """
        found, explained = stats.kept(*self._sides(throughput), confidence=confidence), self._cpu_left_ratio()
        ends = found.low, found.high, found.low / explained, found.high / explained
        return replace(found, low=min(ends), high=max(ends))

    def acceptance_kept(self, confidence: float = CONFIDENCE) -> Estimate:
        """Acceptance length of the last part over that of the first."""
        return stats.kept(*self._sides(acceptance_length_of), confidence=confidence)

    def throughputs(self) -> list[float]:
        """Output tokens/s in every window after the warm-up."""
        return [throughput(row) for row in self.after_warm_up]

    def throughput_note(self) -> str:
        """As a note: the throughput of the first and last part, and the CPU share of other processes."""
        said = "{:.1f} output tokens/s at first, {:.1f} at last".format(*map(_mean, self._sides(throughput)))
        if self._knows_others:
            said += "; others used {:.0%} of the machine's CPU at first, {:.0%} at last".format(*self._others())
        return said

    def acceptance_note(self) -> str:
        """As a note: the acceptance length of the first and last part."""
        return "acceptance length {:.3f} at first, {:.3f} at last".format(
            *map(_mean, self._sides(acceptance_length_of))
        )

    def growth(self, step: float) -> dict[str, Estimate]:
        """The growth of the server's resident memory in MiB an hour.

        Memory is allocated in steps, so ``step`` MiB more or less mean nothing and widen the interval.

        Raises:
            Unsupported: the processes of the server cannot be observed.
        """
        if all(row["resident_mib"] is None for row in self.windows):
            raise Unsupported("The processes of the server and their memory cannot be observed from here.")
        return {"resident memory": self._growth(lambda row: row["resident_mib"], step)}

    def memory_note(self) -> str:
        """As a note: resident memory after the warm-up, halfway and at the end."""
        rows = self.after_warm_up
        return "resident memory {:.0f}, {:.0f} and {:.0f} MiB after the warm-up, halfway and at the end".format(
            *(row["resident_mib"] for row in (rows[0], rows[len(rows) // 2], rows[-1]))
        )

    def gpu_growth(self, step: float) -> dict[str, Estimate]:
        """The growth of memory in use in MiB an hour, on each GPU that reports it; unified memory is not reported."""
        return {
            f"memory of GPU {gpu}": self._growth(partial(_gpu_memory, gpu), step)
            for gpu in self._gpus
            if all(row["gpus"][gpu]["memory_mib"] is not None for row in self.after_warm_up)
        }

    def clock_ratios(self) -> dict[str, Estimate]:
        """The SM clock of the last part over that of the first, on each busy GPU.

        Raises:
            Unsupported: no busy GPU reports its clock and the reasons for lower clocks.
        """
        found = {f"SM clock of GPU {gpu}": stats.kept(*sides) for gpu in self._at_work if (sides := self._clocks(gpu))}
        if not found:
            raise Unsupported(f"No busy GPU reports its clock and the reasons for lower clocks ({self.facts['gpus']}).")
        return found

    def throttling(self, allowed: Mapping[str, float]) -> list[str]:
        """A sentence for each reason that lowered the clocks of busy GPUs in more than the allowed share of samples."""
        rows = [row["gpus"][gpu] for row in self.windows for gpu in self._at_work]
        shares = {reason: sum(row["reasons"].get(reason, 0) for row in rows) / self.looks for reason in allowed}
        return [
            f"clocks were lowered by {reason} in {share:.1%} of the samples, where {allowed[reason]:.0%} are allowed"
            for reason, share in shares.items()
            if share > allowed[reason]
        ]

    @property
    def looks(self) -> int:
        """The number of samples of the busy GPUs' sensors."""
        return sum(row["gpus"][gpu]["looks"] for row in self.windows for gpu in self._at_work)

    def clock_note(self) -> str:
        """As a note: clock, power and highest temperature of each busy GPU."""
        return "; ".join(self._sensor_note(gpu) for gpu in self._at_work)

    @property
    def _knows_others(self) -> bool:
        return all(row["others_cpu"] is not None for row in self.after_warm_up)

    def _others(self) -> tuple[float, float]:
        first, last = self._sides(lambda row: row["others_cpu"])
        return _mean(first), _mean(last)

    def _cpu_left_ratio(self) -> float:
        """The CPU share that other processes left in the last part over that in the first; 1 if it is not known."""
        if not self._knows_others:
            return 1.0
        first, last = self._others()
        return max(1 - last, LEAST_LEFT) / max(1 - first, LEAST_LEFT)

    @property
    def _gpus(self) -> range:
        return range(min((len(row["gpus"]) for row in self.after_warm_up), default=0))

    @property
    def _at_work(self) -> list[int]:
        """The GPUs that were busy in every window and report why their clocks are lowered."""
        every = range(min((len(row["gpus"]) for row in self.windows), default=0))
        rows = {gpu: [row["gpus"][gpu] for row in self.windows] for gpu in every}
        return [gpu for gpu, seen in rows.items() if all(row["busy"] and row["reasons"] is not None for row in seen)]

    def _clocks(self, gpu: int) -> tuple[list[float], list[float]] | None:
        if any(row["gpus"][gpu]["sm_clock_mhz"] is None for row in self.after_warm_up):
            return None
        return self._sides(lambda row: row["gpus"][gpu]["sm_clock_mhz"])

    def _sensor_note(self, gpu: int) -> str:
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
        """The growth in the second half; what a server allocates as its load begins is no leak."""
        later = [row for row in self.after_warm_up if row["begin"] >= 30 * self.facts["minutes"]]
        found = stats.trend([row["end"] / HOUR for row in later], [value(row) for row in later])
        reach = step * HOUR / (later[-1]["end"] - later[0]["begin"])
        return replace(found, low=found.low - reach, high=found.high + reach)

    def _sides(self, value: Value) -> tuple[list[float], list[float]]:
        """The values of the first and of the last part of the windows after the warm-up.

        Raises:
            ObservationError: there are too few windows.
        """
        rows = self.after_warm_up
        size = len(rows) // PARTS
        if not size:
            raise ObservationError(f"{self.source} has {len(rows)} windows after the warm-up: too few to compare")
        return [value(row) for row in rows[:size]], [value(row) for row in rows[-size:]]


@dataclass(frozen=True)
class Window:
    """A load on one server: joules of the GPUs that worked, and the tokens that they made."""

    seconds: float
    tokens: int
    joules: float
    counted: bool  # whether the joules are the GPUs' own count; otherwise mean power times seconds

    @property
    def each(self) -> float:
        """Joules for a token."""
        return self.joules / self.tokens


@dataclass(frozen=True)
class Energy:
    """The ``energy`` observation: windows with MTP and without, in the order in which they were held."""

    mtp: tuple[Window, ...]
    plain: tuple[Window, ...]
    at_once: int
    gpus: str
    source: str = "observations/energy.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation.

        Raises:
            ObservationError: no GPU worked all the time, or a window has no token.
        """
        rows = facts["windows"]
        count = min((len(row["gpus"]) for row in rows), default=0)
        known = [n for n in range(count) if all(_joules(row, n) is not None and row["gpus"][n]["busy"] for row in rows)]
        if not known:
            raise ObservationError(f"{cls.source}: no GPU worked in every window and told its energy")
        if not all(row["output_tokens"] > 0 for row in rows):
            raise ObservationError(f"{cls.source}: no token was generated in a window")
        mtp, plain = (tuple(_window(row, known) for row in rows if row["arm"] == arm) for arm in (MTP, PLAIN))
        return cls(mtp, plain, facts["at_once"], facts["gpus"])

    def gain(self) -> Estimate:
        """Tokens for a joule with MTP over those without, by windows one after another."""
        return stats.speedup([each.each for each in self.plain], [each.each for each in self.mtp])

    def note(self) -> str:
        """Tokens for a joule, tokens/s and power of both."""
        said = "; ".join(f"{word}: {_spent(rows)}" for word, rows in (("with MTP", self.mtp), ("without", self.plain)))
        how = (
            "the GPUs' own counters" if all(each.counted for each in (*self.mtp, *self.plain)) else "power, read often"
        )
        return f"{said}; {self.at_once} requests at once, by {how}"


def _spent(windows: Sequence[Window]) -> str:
    tokens, joules, seconds = (sum(getattr(each, name) for each in windows) for name in ("tokens", "joules", "seconds"))
    return f"{tokens / joules:.2f} tokens/J, {tokens / seconds:.0f} tokens/s, {joules / seconds:.0f} W"


def _joules(row: Mapping[str, Any], gpu: int) -> float | None:
    told = row["gpus"][gpu]
    if told["energy_j"] is not None:
        return float(told["energy_j"])
    return None if told["power_w"] is None else float(told["power_w"] * row["seconds"])


def _window(row: Mapping[str, Any], gpus: Sequence[int]) -> Window:
    joules = sum(_joules(row, gpu) or 0.0 for gpu in gpus)
    counted = all(row["gpus"][gpu]["energy_j"] is not None for gpu in gpus)
    return Window(row["seconds"], row["output_tokens"], joules, counted)


def _gpu_memory(gpu: int, window: Mapping[str, Any]) -> float:
    return float(window["gpus"][gpu]["memory_mib"])


def throughput(window: Mapping[str, Any]) -> float:
    """Output tokens/s of a window, by the server's count."""
    return float(window["counted"]["output_tokens"] / (window["end"] - window["begin"]))


def acceptance_length_of(window: Mapping[str, Any]) -> float:
    """The mean number of tokens that a step yielded in a window.

    Raises:
        ObservationError: nothing was drafted in the window.
    """
    counted = window["counted"]
    if not counted["drafts"]:
        raise ObservationError(f"nothing was drafted between {window['begin']:.0f} and {window['end']:.0f} s")
    return float(1 + counted["accepted"] / counted["drafts"])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
