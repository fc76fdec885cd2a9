"""Whether both servers sample their next tokens from the same distributions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError
from conformance.judging import stats
from conformance.judging.stats import Homogeneity
from conformance.profile.arms import MTP, PLAIN

Context = tuple[str, tuple[str, ...]]  # the prefix, and the tokens after it so far
REACHED = 20  # samples of each arm that a context needs; with fewer, the test can show almost nothing


@dataclass(frozen=True)
class Sampling:
    """The ``sampling`` observation: the number of times that each token followed each context.

    Given its context, a token does not depend on other tokens. So every token of a sample counts as one observation,
    and a difference at a later draft position shows as clearly as one at the first. The first token is only context,
    because it comes from the prefix alone, without a draft.
    """

    with_mtp: Mapping[Context, Counter[str]]
    without: Mapping[Context, Counter[str]]
    source: str = "observations/sampling.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation.

        Raises:
            ObservationError: samples are missing, or both servers reached no context often enough.
        """
        arms = {arm: _next_tokens(facts, arm) for arm in (MTP, PLAIN)}
        often = [
            context
            for context in sorted(arms[MTP].keys() & arms[PLAIN].keys())
            if min(arm[context].total() for arm in arms.values()) >= REACHED
        ]
        if not often:
            raise ObservationError(f"no context was reached {REACHED} times by both servers, so there is no comparison")
        mtp, plain = ({context: arms[arm][context] for context in often} for arm in (MTP, PLAIN))
        return cls(mtp, plain)

    def homogeneity(self, alarm: float) -> Homogeneity:
        """The homogeneity test over all contexts; its detectable shift is for a FAIL at p below ``alarm``."""
        return stats.homogeneity(list(self.with_mtp.values()), list(self.without.values()), confidence=1 - alarm)

    def largest_difference(self) -> str:
        """The token whose shares differ most, as a note."""
        differences = {
            (context, token): (_share(self.with_mtp[context], token), _share(counts, token))
            for context, counts in self.without.items()
            for token in counts | self.with_mtp[context]
        }
        (prefix, before), token = max(differences, key=lambda place: abs(differences[place][0] - differences[place][1]))
        mtp, plain = differences[(prefix, before), token]
        where = f"token {token} after {' '.join(before)} in {prefix}"
        return f"largest difference: {where} has a share of {mtp:.0%} with MTP and {plain:.0%} without"


def _next_tokens(facts: Mapping[str, Any], arm: str) -> dict[Context, Counter[str]]:
    found: dict[Context, Counter[str]] = defaultdict(Counter)
    for prompt in facts["prompts"]:
        samples = prompt[arm]["samples"]
        if sum(samples.values()) != facts["seeds"]:
            raise ObservationError(
                f"{prompt['id']}: there are {sum(samples.values())} samples of {facts['seeds']} seeds"
            )
        for sequence, count in samples.items():
            tokens = tuple(sequence.split())
            for place in range(1, len(tokens)):
                found[prompt["id"], tokens[:place]][tokens[place]] += count
    return found


def _share(counts: Counter[str], token: str) -> float:
    return counts[token] / counts.total()
