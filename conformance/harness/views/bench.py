"""Whether our client and ``vllm bench serve`` see the same server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.harness.errors import ObservationError

AGREED = "the same"
NAMES = {"ours": "our client", "vllm": "vllm bench serve"}


@dataclass(frozen=True)
class Runs:
    """The runs of one client together: output tokens/s, acceptance length, and CPU seconds for 1,000 tokens.

    All runs count, since the clients take turns and a drift of the machine falls on both. ``spread`` is the fastest run
    over the slowest, less one. The CPU seconds are those of the cheapest run; a first one loads the tokenizer.
    """

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
        """Read the observation; ObservationError where a client lacks runs or left prompts out."""
        prompts = len(facts["prompts"])
        for run in facts["runs"]:
            if run["completed"] != prompts:
                raise ObservationError(f"{NAMES[run['client']]} completed {run['completed']} of {prompts} prompts")
        return cls(_runs(facts, "ours"), _runs(facts, "vllm"), facts["at_once"], prompts)

    def agreement(self, tolerance: float) -> dict[str, str]:
        """What both say the same of; ObservationError with both figures where they differ by more than the tolerance.

        Which of two instruments is wrong cannot be told, so their difference says nothing of the server.
        """
        both = {
            "output tokens/s": (self.ours.tokens_per_second, self.vllm.tokens_per_second),
            "acceptance length": (self.ours.acceptance_length, self.vllm.acceptance_length),
        }
        for what, (ours, theirs) in both.items():
            if abs(ours / theirs - 1) > tolerance:
                raise ObservationError(
                    f"{what} is {ours:.2f} by our client and {theirs:.2f} by vllm bench serve, "
                    f"{ours / theirs - 1:+.1%} where {tolerance:.0%} is allowed; {self._spread()}"
                )
        return dict.fromkeys(both, AGREED)

    def note(self) -> str:
        """Both figures, and what the clients cost."""
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


def _runs(facts: Mapping[str, Any], who: str) -> Runs:
    runs = [run for run in facts["runs"] if run["client"] == who and run["output_tokens"] and run["drafts"]]
    if not runs:
        raise ObservationError(f"{NAMES[who]} measured nothing")
    speeds = [run["output_tokens"] / run["seconds"] for run in runs]
    return Runs(
        sum(run["output_tokens"] for run in runs) / sum(run["seconds"] for run in runs),
        1 + sum(run["accepted"] for run in runs) / sum(run["drafts"] for run in runs),
        max(speeds) / min(speeds) - 1,
        min(1000 * run["client_cpu_seconds"] / run["output_tokens"] for run in runs),
    )
