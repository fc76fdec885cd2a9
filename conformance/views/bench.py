"""Whether our client and ``vllm bench serve`` measure the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError
from conformance.judging import stats
from conformance.judging.stats import Estimate

NAMES = {"ours": "our client", "vllm": "vllm bench serve"}


@dataclass(frozen=True)
class Runs:
    """The runs of one client: seconds per output token and acceptance length, by run and over all runs.

    All runs count, because the clients take turns and a drift of the machine affects both. ``spread`` is the speed of
    the fastest run over that of the slowest, minus one. ``cpu_per_1000`` is the client's CPU seconds per 1,000 tokens
    in the cheapest run, because the first run also loads the tokenizer.
    """

    seconds_per_token: tuple[float, ...]
    acceptance_lengths: tuple[float, ...]
    tokens_per_second: float
    acceptance_length: float
    spread: float
    cpu_per_1000: float


@dataclass(frozen=True)
class Bench:
    """The ``bench`` observation."""

    ours: Runs
    vllm: Runs
    at_once: int
    prompts: int
    source: str = "observations/bench.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation.

        Raises:
            ObservationError: a client has no runs, or a run did not complete all prompts.
        """
        prompts = len(facts["prompts"])
        for run in facts["runs"]:
            if run["completed"] != prompts:
                raise ObservationError(f"{NAMES[run['client']]} completed {run['completed']} of {prompts} prompts")
        return cls(_runs(facts["runs"], "ours"), _runs(facts["runs"], "vllm"), facts["at_once"], prompts)

    def speed_ratio(self) -> Estimate:
        """Output tokens/s by our client over those by ``vllm bench serve``, over the pairs of runs."""
        return stats.agreement(self.vllm.seconds_per_token, self.ours.seconds_per_token)

    def acceptance_ratio(self) -> Estimate:
        """Acceptance length by our client over that by ``vllm bench serve``, from the same pairs.

        A real draft is accepted equally in each run, so the interval has no width. With vLLM's synthetic acceptance,
        which is random, it has some.
        """
        return stats.agreement(self.ours.acceptance_lengths, self.vllm.acceptance_lengths)

    def note(self) -> str:
        """Both clients' figures and CPU costs, as a note."""
        ours, theirs = self.ours, self.vllm
        return (
            f"ours against vllm bench serve, {self.prompts} prompts, {self.at_once} at once: "
            f"{ours.tokens_per_second:.1f} and {theirs.tokens_per_second:.1f} output tokens/s "
            f"({ours.tokens_per_second / theirs.tokens_per_second - 1:+.1%}), acceptance length "
            f"{ours.acceptance_length:.3f} and {theirs.acceptance_length:.3f}; {self._spread()}; "
            f"client CPU {ours.cpu_per_1000:.3f} and {theirs.cpu_per_1000:.3f} s for 1,000 tokens"
        )

    def _spread(self) -> str:
        return f"runs of the same client spread by {self.ours.spread:.1%} and {self.vllm.spread:.1%}"


def speed_half_width(runs: Sequence[Mapping[str, Any]]) -> float:
    """The half-width of the interval of both clients' speed ratio after these runs, as a share of the ratio."""
    return stats.agreement(_runs(runs, "vllm").seconds_per_token, _runs(runs, "ours").seconds_per_token).half_width


def _runs(every: Sequence[Mapping[str, Any]], who: str) -> Runs:
    runs = [run for run in every if run["client"] == who and run["output_tokens"] and run["drafts"]]
    if not runs:
        raise ObservationError(f"{NAMES[who]} measured nothing")
    speeds = [run["output_tokens"] / run["seconds"] for run in runs]
    return Runs(
        tuple(run["seconds"] / run["output_tokens"] for run in runs),
        tuple(1 + run["accepted"] / run["drafts"] for run in runs),
        sum(run["output_tokens"] for run in runs) / sum(run["seconds"] for run in runs),
        1 + sum(run["accepted"] for run in runs) / sum(run["drafts"] for run in runs),
        max(speeds) / min(speeds) - 1,
        min(1000 * run["client_cpu_seconds"] / run["output_tokens"] for run in runs),
    )
