"""The kind of CUDA graph of every step, and the speed, while 1 … max_num_seqs requests decode at once.

vLLM counts steps by their number of tokens. A step of decoding has 1 + k tokens for each request. Prompts are longer
than the widest step of decoding, so a step with a prompt in it is never taken for one.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from conformance.errors import ObservationError, Unsupported
from conformance.evidence.folder import Evidence
from conformance.observers.refusals import require_sound_pair
from conformance.profile.arms import MTP, PLAIN
from conformance.profile.graph_options import graph_options
from conformance.profile.profile import Profile
from conformance.serving import logs
from conformance.serving.command import captures
from conformance.serving.graph_counts import HEADER, graph_counts
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.workload.client import Answer, Client, client
from conformance.workload.prompts import LONG, Prompt, load_prefixes

LOG_SECONDS = 10.0  # vLLM's default interval between two tables (VLLM_LOG_STATS_INTERVAL)
LOOK_SECONDS = 0.5
LONGER = 1.3  # times the widest step of decoding, for a prompt


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """For each arm: the steps by size and kind of graph, and the rate for every number of requests.

    Raises:
        ObservationError: a server failed, or its log has no table.
        Unsupported: the servers have no CUDA graphs, or this vLLM does not count them.
    """
    servers.require_own_servers("it may not count its CUDA graphs")
    most = _require_graphs(profile, servers)
    require_sound_pair(profile, servers, evidence)
    sizes, k = profile.sizes, profile.pair.k
    again = Again(sizes.graph_drop, sizes.graph_more_passes)
    seconds = profile.hardware.bounds.request_seconds
    plan = Plan(most, most * (1 + k), sizes.graph_tokens, sizes.graph_passes, again, seconds)
    text = load_prefixes(profile.prompts / LONG)[-1].text
    with servers.quiet():
        arms = {
            arm: {"width": width} | _measure(start(), plan, text, servers.tell)
            for arm, width, start in ((PLAIN, 1, servers.plain), (MTP, 1 + k, servers.mtp))
        }
    return {"requests": most, "arms": arms}


@dataclass(frozen=True)
class Again:
    """Where a number of requests seems slower than one less by the share ``drop``, both are asked again.

    A machine can be slower for a while. What a lost graph costs stays, however often it is asked.
    """

    drop: float
    passes: int

    def numbers(self, rates: Mapping[int, Sequence[float]]) -> list[int]:
        """The numbers of requests to ask again, by the best rate (tokens/s) of each so far."""
        best = {number: max(each) for number, each in rates.items()}
        slower = [number for number in best if number - 1 in best and best[number] < (1 - self.drop) * best[number - 1]]
        return sorted({asked for number in slower for asked in (number - 1, number)})


@dataclass(frozen=True)
class Plan:
    """1 … ``most`` requests of ``tokens`` tokens each, ``passes`` times; ``widest``: tokens of a step of decoding."""

    most: int
    widest: int
    tokens: int
    passes: int
    again: Again
    seconds: float

    def numbers(self) -> Iterator[int]:
        """The numbers of requests: up in odd passes and down in even ones, so that a drift of the machine cancels."""
        for number in range(self.passes):
            upwards = range(1, self.most + 1)
            yield from upwards if number % 2 == 0 else reversed(upwards)

    def prompt(self, asking: Client, text: str) -> Prompt:
        """A prompt that is somewhat longer than the widest step of decoding.

        Raises:
            ObservationError: the text is too short for it.
        """
        made = Prompt("graph-steps", "long", "", ({"role": "user", "content": text},), self.tokens)
        whole = asking.ask(replace(made, max_tokens=1)).prompt_tokens
        content = text[: math.ceil(len(text) * LONGER * self.widest / whole)]
        cut = replace(made, messages=({"role": "user", "content": content},))
        found = asking.ask(replace(cut, max_tokens=1)).prompt_tokens
        if found <= self.widest:
            raise ObservationError(f"a prompt of {found} tokens is no longer than a step of decoding ({self.widest})")
        return cut


def _require_graphs(profile: Profile, servers: ServerPool) -> int:
    """The most requests at once.

    Raises:
        ObservationError: the level asks for nothing.
        Unsupported: the servers have no CUDA graphs, or this vLLM does not count them.
    """
    hardware, installed = profile.hardware, servers.executor.installed()
    most = graph_options(hardware, profile.pair.serve_args).max_num_seqs
    if not captures(profile):
        why = "it is a CPU" if hardware.sm is None else "--enforce-eager"
        raise Unsupported(f"The servers of hardware {hardware.name} capture no CUDA graphs: {why}.")
    if not installed.counts_graphs:
        raise Unsupported(f"vLLM {installed.vllm} has no --cudagraph-metrics, which count the steps by their graph.")
    if most is None:
        raise Unsupported(
            f"Hardware {hardware.name} gives no --max-num-seqs, so the most requests at once are unknown."
        )
    if not profile.sizes.graph_tokens:
        raise ObservationError(f"level {profile.level} asks nothing: set graph_tokens in fixtures/levels.toml")
    return most


def _measure(server: Server, plan: Plan, text: str, tell: Callable[[str], None]) -> dict[str, Any]:
    with client(server, plan.seconds) as asking:
        prompt = plan.prompt(asking, text)
        asking.ask_at_once([prompt] * plan.most, stream=True, ignore_eos=True)  # warms up
        before = len(logs.read(server.log))
        rates: list[dict[str, Any]] = []
        for number in _asked(plan, rates):
            tell(f"{server.name} server: {number} of {plan.most} requests at once")
            answers, _ = asking.ask_at_once([prompt] * number, stream=True, ignore_eos=True)
            rates.append({"requests": number, **_rate(answers)})
    counted = graph_counts(_logged(server, before))
    return {"rates": rates, "steps": [asdict(kind) | {"steps": counted[kind]} for kind in sorted(counted)]}


def _asked(plan: Plan, rates: Sequence[Mapping[str, Any]]) -> Iterator[int]:
    """The numbers of requests to ask; ``rates`` grows meanwhile."""
    yield from plan.numbers()
    for _ in range(plan.again.passes):
        by_number: dict[int, list[float]] = {}
        for row in rates:
            by_number.setdefault(row["requests"], []).append(row["tokens_per_second"])
        yield from plan.again.numbers(by_number)


def _rate(answers: Sequence[Answer]) -> dict[str, float]:
    """Tokens a second after the first token, summed over the requests, and the median time between deliveries.

    Raises:
        ObservationError: an answer came in one piece.
    """
    if any(len(each.arrivals) < 2 for each in answers):
        raise ObservationError("an answer came in one piece, so its steps cannot be timed")
    rate = sum((each.output_tokens - 1) / (each.arrivals[-1] - each.arrivals[0]) for each in answers)
    gaps = [later - earlier for each in answers for earlier, later in itertools.pairwise(each.arrivals)]
    return {"tokens_per_second": rate, "step_ms": 1000 * median(gaps)}


def _logged(server: Server, before: int) -> str:
    """What the server's log holds after so many characters, once vLLM has told about the last steps.

    Raises:
        ObservationError: it has no table.
    """
    end = time.monotonic() + 2 * LOG_SECONDS
    time.sleep(LOG_SECONDS)
    while True:
        text = logs.read(server.log)[before:]
        if HEADER in text:
            time.sleep(LOOK_SECONDS)  # the table may be half written
            return logs.read(server.log)[before:]
        if time.monotonic() > end:
            raise ObservationError(f"{server.name} server: its log has no table of CUDA graphs", server.log_tail())
        time.sleep(LOOK_SECONDS)
