"""A long load on the server with MTP: counters, memory, sensors and failures in each window of time."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError
from conformance.evidence.folder import Evidence
from conformance.observers.load import counts, cut
from conformance.observers.refusals import require_sound_pair
from conformance.profile import gpus
from conformance.profile.gpus import IDLE, Sensors
from conformance.profile.profile import Profile, Sizes, soak_windows
from conformance.serving import processes
from conformance.serving.metrics import Counters, read_after, read_counters, read_when_still, require_consistent_counts
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.workload.client import Client, client
from conformance.workload.prompts import MIXED, Prompt, load_prompts, spread

LOOK_SECONDS = 1.0  # between two readings of the sensors
PAUSE_SECONDS = 1.0  # after a failure, so that a dead server does not get thousands of requests
KEPT_FAILURES = 20  # the sentences of so many failures are kept

Sense = Callable[[], list[Sensors]]


class Crowd:
    """Clients that ask the next prompt as soon as they have an answer, until the context ends."""

    def __init__(self, asking: Client, prompts: Sequence[Prompt], at_once: int) -> None:
        self._client, self._prompts, self._at_once = asking, itertools.cycle(prompts), at_once
        self._lock, self._over = threading.Lock(), threading.Event()
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="soak")
        self.answered = self.output_tokens = self.failed = 0
        self.failures: list[tuple[float, str]] = []  # the first ones: time by the monotonic clock, and sentence

    def __enter__(self) -> Self:
        self._work = [self._pool.submit(self._ask) for _ in range(self._at_once)]
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the answers to the running requests."""
        self._over.set()
        self._pool.shutdown()
        for work in self._work:
            work.result()

    def _ask(self) -> None:
        while not self._over.is_set():
            with self._lock:
                prompt = next(self._prompts)
            try:
                answer = self._client.ask(prompt, stream=True)
            except ObservationError as failure:
                with self._lock:
                    self.failed += 1
                    if len(self.failures) < KEPT_FAILURES:
                        self.failures.append((time.monotonic(), failure.sentence))
                self._over.wait(PAUSE_SECONDS)
            else:
                with self._lock:
                    self.answered += 1
                    self.output_tokens += answer.output_tokens


@dataclass(frozen=True)
class Moment:
    """All counts at one time."""

    seconds: float  # since the load began
    counters: Counters
    answered: int
    failed: int
    resident_mib: float | None
    machine_seconds: float  # CPU time of all cores
    others_seconds: float | None  # the part that neither server nor client used


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """The windows of a load that lasts as long as the profile says, or until the server has died.

    Raises:
        ObservationError: the server could not be started, or its counters contradict the answers.
    """
    require_sound_pair(profile, servers, evidence)
    sizes, seconds = profile.sizes, profile.hardware.bounds.request_seconds
    prompts = spread(load_prompts(profile.prompts / MIXED), sizes.soak_prompts)
    with servers.quiet(), _sensors(servers) as sense, client(servers.mtp(), seconds) as asking:
        crowd = Crowd(asking, [cut(prompt, sizes.longest_answer) for prompt in prompts], sizes.soak_at_once)
        held = _hold_load(profile, servers, crowd, sense)
    return {
        "k": profile.pair.k,
        "minutes": sizes.soak_minutes,
        "at_once": sizes.soak_at_once,
        "prompts": [prompt.id for prompt in prompts],
        "gpus": str(gpus.look() if servers.on_this_machine else gpus.ELSEWHERE),
        "answered": crowd.answered,
        "output_tokens": crowd.output_tokens,
        "failed": crowd.failed,
        **held,
    }


def _hold_load(profile: Profile, servers: ServerPool, crowd: Crowd, sense: Sense) -> dict[str, Any]:
    """Hold the load and record failed requests; end early if the counters cannot be read."""
    server, sizes, windows, broken = servers.mtp(), profile.sizes, list[dict[str, Any]](), None
    before, begin = read_when_still(server), time.monotonic()
    with crowd:
        try:
            for window in _windows(server, crowd, sense, before, sizes):
                windows.append(window)
                servers.tell(_progress(window, sizes.soak_minutes))
        except ObservationError as failure:
            broken = failure.sentence
    seconds = time.monotonic() - begin
    whole = broken is None and not crowd.failed
    return {
        "windows": windows,
        "seconds": seconds,
        "failures": [{"seconds": at - begin, "what": what} for at, what in crowd.failures],
        "alive": server.alive,
        "broken": broken,
        "counted": counts(_whole(server, before, crowd, profile.pair.k)) if whole else None,
    }


def _sensors(servers: ServerPool) -> AbstractContextManager[Sense]:
    return gpus.sensors() if servers.on_this_machine else nullcontext(list)


def _windows(server: Server, crowd: Crowd, sense: Sense, before: Counters, sizes: Sizes) -> Iterator[dict[str, Any]]:
    """A row for each window.

    Raises:
        ObservationError: the counters cannot be read any more.
    """
    begin, count = time.monotonic(), soak_windows(sizes)
    earlier = _moment(server, crowd, begin, before)
    for number in range(1, count + 1):
        looks = list(_readings(sense, begin + 60 * sizes.soak_minutes * number / count))
        later = _moment(server, crowd, begin, read_counters(server))
        yield {
            "begin": earlier.seconds,
            "end": later.seconds,
            "answered": later.answered - earlier.answered,
            "failed": later.failed - earlier.failed,
            "counted": counts(later.counters - earlier.counters),
            "resident_mib": later.resident_mib,
            "others_cpu": _others(earlier, later),
            "gpus": [describe_gpu(each) for each in zip(*looks, strict=True)],
        }
        earlier = later


def _moment(server: Server, crowd: Crowd, begin: float, counters: Counters) -> Moment:
    seconds, answered, failed, members = time.monotonic() - begin, crowd.answered, crowd.failed, server.members()
    total, idle = processes.machine_seconds()
    if members is None:
        return Moment(seconds, counters, answered, failed, None, total, None)
    ours = processes.cpu_seconds(members) + time.process_time()
    return Moment(seconds, counters, answered, failed, processes.resident_mib(members), total, total - idle - ours)


def _others(earlier: Moment, later: Moment) -> float | None:
    """The share of the machine's CPU time that other processes used, cut to 0 … 1 because clocks differ a little."""
    total = later.machine_seconds - earlier.machine_seconds
    if earlier.others_seconds is None or later.others_seconds is None or total <= 0:
        return None
    return min(1.0, max(0.0, (later.others_seconds - earlier.others_seconds) / total))


def _readings(sense: Sense, until: float) -> Iterator[list[Sensors]]:
    """Read the sensors once a second until that time, but at least once."""
    left = until - time.monotonic()
    while True:
        time.sleep(max(0.0, min(left, LOOK_SECONDS)))
        yield sense()
        if (left := until - time.monotonic()) <= 0:
            return


def describe_gpu(looks: Sequence[Sensors]) -> dict[str, Any]:
    """One GPU in one window: the maxima of memory and temperature, the means of clock and power while it worked."""
    busy = [each for each in looks if IDLE not in (each.reasons or ())]
    told = [each.reasons for each in looks if each.reasons is not None]
    return {
        "looks": len(looks),
        "busy": len(busy),
        "memory_mib": max(_known(each.memory_mib for each in looks), default=None),
        "temperature_c": max(_known(each.temperature_c for each in looks), default=None),
        "sm_clock_mhz": _mean(_known(each.sm_clock_mhz for each in busy)),
        "power_w": _mean(_known(each.power_w for each in busy)),
        "reasons": dict(Counter(itertools.chain.from_iterable(told))) if told else None,
    }


def _known(values: Iterator[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _whole(server: Server, before: Counters, crowd: Crowd, k: int) -> Counters:
    """The counters over the whole load.

    Raises:
        ObservationError: they contradict what the clients received.
    """
    counted = read_after(server, before, crowd.output_tokens) - before
    require_consistent_counts(counted, k, crowd.answered)
    return counted


def _progress(window: Mapping[str, Any], minutes: float) -> str:
    speed = window["counted"]["output_tokens"] / (window["end"] - window["begin"])
    return f"soak: {window['end'] / 60:.1f} of {minutes:g} minutes, {speed:.0f} tokens/s"
