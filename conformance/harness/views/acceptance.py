"""How many drafted tokens the target accepted, from vLLM's counters around each prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.harness import stats
from conformance.harness.errors import ObservationError
from conformance.harness.stats import Estimate


@dataclass(frozen=True)
class PromptCounts:
    """Counter differences around one request.

    ``drafts``: target steps that checked a draft; ``draft_tokens``: tokens proposed in them; ``per_position[i]``:
    drafts of which the first i + 1 tokens were all accepted (joint); ``output_tokens``: tokens of the answer.
    """

    id: str
    drafts: int
    draft_tokens: int
    accepted: int
    per_position: tuple[int, ...]
    output_tokens: int

    def contradiction(self, k: int) -> str:
        """In what these counters contradict each other; empty if in nothing.

        Every step yields one token of the target's own beside the accepted ones, and the first token comes from the
        prompt alone. The end of the answer may cut off up to k tokens of the last step, and steps without a draft, at
        the end of the context, add some that are not counted here.
        """
        made = 1 + self.drafts + self.accepted
        if len(self.per_position) != k:
            return f"{len(self.per_position)} positions are counted, but k is {k}"
        if self.draft_tokens != k * self.drafts:
            return f"{self.draft_tokens} tokens were drafted in {self.drafts} drafts of {k}"
        if sum(self.per_position) != self.accepted:
            return f"the positions sum to {sum(self.per_position)}, but {self.accepted} tokens were accepted"
        if list(self.per_position) != sorted(self.per_position, reverse=True) or self.per_position[0] > self.drafts:
            return f"joint counts {list(self.per_position)} of {self.drafts} drafts must not rise"
        if abs(made - self.output_tokens) > k:
            return f"{self.output_tokens} tokens came out of {self.drafts} drafts with {self.accepted} accepted"
        return ""


@dataclass(frozen=True)
class Acceptance:
    """The ``acceptance`` observation: one request at a time, greedy, over the mixed prompts."""

    k: int
    prompts: tuple[PromptCounts, ...]
    source: str = "observations/acceptance.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation and check its counters against each other; a contradiction is an ObservationError."""
        prompts = tuple(
            PromptCounts(
                row["id"],
                row["drafts"],
                row["draft_tokens"],
                row["accepted"],
                tuple(row["accepted_per_position"]),
                row["output_tokens"],
            )
            for row in facts["prompts"]
        )
        for prompt in prompts:
            if wrong := prompt.contradiction(facts["k"]):
                raise ObservationError(f"the counters of prompt {prompt.id} contradict each other: {wrong}")
        for name in ("drafts", "draft_tokens", "accepted"):
            whole, parts = facts["totals"][name], sum(getattr(prompt, name) for prompt in prompts)
            if whole != parts:
                raise ObservationError(f"{name}: the prompts sum to {parts}, but the whole workload counted {whole}")
        return cls(facts["k"], prompts)

    def length(self) -> Estimate:
        """Acceptance length: 1 + accepted / drafts."""
        return stats.acceptance_length([p.accepted for p in self.prompts], [p.drafts for p in self.prompts], self.k)

    def joint(self) -> tuple[Estimate, ...]:
        """For each position the share of drafts accepted up to and including it."""
        drafts = [p.drafts for p in self.prompts]
        return tuple(stats.ratio([p.per_position[i] for p in self.prompts], drafts) for i in range(self.k))

    def conditional(self) -> str:
        """For each position the share accepted of the drafts accepted up to the one before, as a note."""
        rates = []
        for i in range(self.k):
            before = [p.per_position[i - 1] if i else p.drafts for p in self.prompts]
            here = [p.per_position[i] for p in self.prompts]
            rates.append(f"{stats.ratio(here, before)}" if sum(before) else "nothing to accept")
        return "conditional acceptance, given the position before: " + "; ".join(rates)
