"""vLLM's Prometheus counters of speculative decoding, and whether they are consistent."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from conformance.errors import ObservationError
from conformance.serving.server import Server

_SPEC = "vllm:spec_decode_num_"
DRAFTS, DRAFT_TOKENS, ACCEPTED = f"{_SPEC}drafts_total", f"{_SPEC}draft_tokens_total", f"{_SPEC}accepted_tokens_total"
PER_POSITION = f"{_SPEC}accepted_tokens_per_pos_total"
GENERATED = "vllm:generation_tokens_total"
BUSY = ("vllm:num_requests_running", "vllm:num_requests_waiting")
KV_USAGE = "vllm:kv_cache_usage_perc"
QUERIES, HITS = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"
BY_SOURCE, COMPUTED = "vllm:prompt_tokens_by_source_total", "local_compute"
PREEMPTIONS = "vllm:num_preemptions_total"
CACHE = "vllm:cache_config_info"

_SETTLE_SECONDS = 5.0
_STILL_SECONDS = 0.2
_LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Counters:
    """The counters since the server's start, or the difference of two readings."""

    drafts: int  # steps in which a draft was verified
    draft_tokens: int
    accepted: int  # draft tokens that the target accepted
    per_position: tuple[int, ...]  # accepted draft tokens at position 1 … k
    generated: int  # output tokens

    def __sub__(self, earlier: Counters) -> Counters:
        return Counters(
            drafts=self.drafts - earlier.drafts,
            draft_tokens=self.draft_tokens - earlier.draft_tokens,
            accepted=self.accepted - earlier.accepted,
            per_position=tuple(a - b for a, b in zip(self.per_position, earlier.per_position, strict=True)),
            generated=self.generated - earlier.generated,
        )


@dataclass(frozen=True)
class CacheCounts:
    """What is counted about prompts, in tokens: since the server's start, or the difference of two readings."""

    queries: int  # looked up in the prefix cache
    hits: int  # found there
    computed: int | None  # None if this vLLM does not count them

    def __sub__(self, earlier: CacheCounts) -> CacheCounts:
        counted = self.computed is not None and earlier.computed is not None
        computed = (self.computed or 0) - (earlier.computed or 0) if counted else None
        return CacheCounts(self.queries - earlier.queries, self.hits - earlier.hits, computed)

    def all_of(self, tokens: int) -> bool:
        """Whether so many tokens of prompts are counted."""
        return self.queries >= tokens and (self.computed is None or self.computed + self.hits >= tokens)


def read_counters(server: Server) -> Counters:
    """The counters as they are now.

    Raises:
        ObservationError: the server does not draft or does not answer.
    """
    page = _page(server)
    try:
        return parse(page)
    except ValueError as error:
        raise server.failure(f"its /metrics cannot be read: {error}") from None


def read_positions(server: Server) -> list[str]:
    """The draft positions for which /metrics counts accepted tokens, by their labels.

    Raises:
        ObservationError: the server does not answer, or /metrics cannot be read.
    """
    labels = {sample.labels.get("position", "") for sample in _samples(server) if sample.name == PER_POSITION}
    return sorted(labels, key=lambda label: (len(label), label))


def drafted_positions(server: Server) -> int:
    """How many tokens the server drafts a step, according to /metrics; 0 if it counts no drafts.

    Raises:
        ObservationError: the server does not answer, or /metrics cannot be read.
    """
    return 0 if all(sample.name != DRAFTS for sample in _samples(server)) else len(read_positions(server))


def gauges(server: Server) -> tuple[int, float]:
    """The number of running and waiting requests, and the used share of the KV cache, summed over engines.

    Raises:
        ObservationError: the server does not answer, or /metrics has no usage of the KV cache.
    """
    samples = _samples(server)
    busy = sum(sample.value for sample in samples if sample.name in BUSY)
    used = [sample.value for sample in samples if sample.name == KV_USAGE]
    if not used:
        raise ObservationError(f"/metrics of the {server.name} server has no {KV_USAGE}")
    return round(busy), sum(used)


def cache_counts(server: Server) -> CacheCounts:
    """The counters of the prefix cache since the server's start.

    Raises:
        ObservationError: the server does not answer, or /metrics lacks these counters.
    """
    samples = _samples(server)
    computed = [each.value for each in samples if each.name == BY_SOURCE and each.labels.get("source") == COMPUTED]
    try:
        queries, hits = _total(samples, QUERIES), _total(samples, HITS)
    except ValueError as error:
        raise server.failure(f"its /metrics cannot be used: {error}") from None
    return CacheCounts(queries, hits, round(sum(computed)) if computed else None)


def cache_counts_after(server: Server, before: CacheCounts, tokens: int) -> CacheCounts:
    """What the counters of the prefix cache grew by, once prompts of so many tokens are counted, or after some seconds.

    Raises:
        ObservationError: the server does not answer, or /metrics lacks these counters.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    while not (grown := cache_counts(server) - before).all_of(tokens) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    return grown


def preemptions(server: Server) -> int:
    """How often the server has preempted a request since its start.

    Raises:
        ObservationError: the server does not answer, or /metrics lacks this counter.
    """
    return _count(server, PREEMPTIONS)


def generated_tokens(server: Server) -> int:
    """How many tokens the server has generated since its start.

    Raises:
        ObservationError: the server does not answer, or /metrics lacks this counter.
    """
    return _count(server, GENERATED)


def cache_blocks(server: Server) -> int:
    """The number of blocks of the KV cache.

    Raises:
        ObservationError: the server does not answer, or /metrics does not describe the cache.
    """
    found = [sample.labels for sample in _samples(server) if sample.name == CACHE]
    try:
        return int(found[-1]["num_gpu_blocks"])
    except (IndexError, KeyError, ValueError):
        raise ObservationError(f"/metrics of the {server.name} server does not describe its cache") from None


def _count(server: Server, name: str) -> int:
    """The sum of one counter over engines."""
    try:
        return _total(_samples(server), name)
    except ValueError as error:
        raise server.failure(f"its /metrics cannot be used: {error}") from None


def _samples(server: Server) -> list[Sample]:
    page = _page(server)
    try:
        return _all(page)
    except ValueError as error:
        raise server.failure(f"reading /metrics failed ({type(error).__name__}: {error})") from None


def _page(server: Server) -> str:
    try:
        answer = server.request("GET", "/metrics", 10.0)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise server.failure(f"reading /metrics failed ({type(error).__name__}: {error})") from None
    return answer.text


def _all(page: str) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(page) for sample in family.samples]


def parse(text: str) -> Counters:
    """The counters of a Prometheus page, summed over engines.

    Raises:
        ValueError: a counter is missing or is not a finite number.
    """
    samples = _all(text)
    positions = sorted({int(sample.labels.get("position", "")) for sample in samples if sample.name == PER_POSITION})
    if positions != list(range(len(positions))):
        raise ValueError(f"{PER_POSITION} has positions {positions}")
    return Counters(
        drafts=_total(samples, DRAFTS),
        draft_tokens=_total(samples, DRAFT_TOKENS),
        accepted=_total(samples, ACCEPTED),
        per_position=tuple(_total(samples, PER_POSITION, str(position)) for position in positions),
        generated=_total(samples, GENERATED),
    )


def read_when_still(server: Server) -> Counters:
    """The counters after they have stopped changing: the last step of an earlier request may not be counted yet.

    Raises:
        ObservationError: the counters keep changing.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    now, earlier = read_counters(server), None
    while now != earlier:
        if time.monotonic() > deadline:
            raise server.failure("/metrics keeps counting; somebody else sends requests to this server")
        time.sleep(_STILL_SECONDS)
        now, earlier = read_counters(server), now
    return now


def read_after(server: Server, before: Counters, generated: int) -> Counters:
    """The counters after they count all ``generated`` tokens that the client received since ``before``.

    Raises:
        ObservationError: they count fewer tokens in the end, or more.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    while (counted := (now := read_counters(server)).generated - before.generated) < generated:
        if time.monotonic() > deadline:
            break
        time.sleep(_LOOK_SECONDS)
    if counted != generated:
        foreign = "; somebody else sends requests to this server" if counted > generated else ""
        raise server.failure(f"/metrics counts {counted} output tokens, but the client received {generated}{foreign}")
    return now


def require_consistent_counts(counted: Counters, k: int, requests: int) -> None:
    """Require that the counters of ``requests`` finished requests fit together.

    The first token of each request comes from its prompt. Every later step yields one token and the accepted ones. A
    stop in the middle of a step drops up to k accepted tokens. A step without a draft, at the end of the context, adds
    one token that these counters do not include.

    Raises:
        ObservationError: two counters contradict each other.
    """
    if len(counted.per_position) != k:
        raise ObservationError(f"/metrics has {len(counted.per_position)} draft positions, but k is {k}")
    if sum(counted.per_position) != counted.accepted:
        raise ObservationError(
            f"/metrics contradicts itself: {counted.accepted} tokens accepted, {sum(counted.per_position)} by position"
        )
    if counted.draft_tokens != counted.drafts * k:
        raise ObservationError(
            f"/metrics contradicts itself: {counted.draft_tokens} tokens drafted in {counted.drafts} drafts of k = {k}"
        )
    if list(counted.per_position) != sorted(counted.per_position, reverse=True):
        raise ObservationError(f"/metrics contradicts itself: accepted by position {list(counted.per_position)} rises")
    surplus = requests + counted.drafts + counted.accepted - counted.generated
    if not -k * requests <= surplus <= k * requests:
        raise ObservationError(
            f"/metrics does not fit the output: {counted.generated} tokens from {requests} requests, "
            f"{counted.drafts} drafts and {counted.accepted} accepted tokens"
        )


def _total(samples: Iterable[Sample], name: str, position: str | None = None) -> int:
    values = [s.value for s in samples if s.name == name and s.labels.get("position") == position]
    if not values:
        raise ValueError(f"it has no {name}")
    if not math.isfinite(total := sum(values)):
        raise ValueError(f"{name} is {total}")
    return round(total)
