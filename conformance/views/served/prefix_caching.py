"""Answers after hits of the prefix cache, and what the cache counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError, Unsupported
from conformance.profile.arms import MTP, PLAIN
from conformance.views.served.replies import OK, Parting, beyond_near_ties, incomplete, parting, said

WORDS = {MTP: "with MTP", PLAIN: "without MTP"}
EARLIER = "not recorded"


@dataclass(frozen=True)
class PrefixCaching:
    """The ``prefix_caching`` observation."""

    arms: Mapping[str, Mapping[str, Any]]
    source: str = "observations/prefix_caching.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation.

        Raises:
            ObservationError: a cold answer is missing, or the server without MTP counts no hit at all.
        """
        arms = facts["arms"]
        for arm, found in arms.items():
            for prompt, reply in found["cold"]["replies"].items():
                if reply["status"] != OK:
                    why = next(incomplete(f"the cold prompt {prompt} {WORDS[arm]}", reply))
                    raise ObservationError(f"{why}; there is nothing to compare with")
        if not any(step["hits"] for step in arms[PLAIN]["steps"] if step["hit"]):
            raise ObservationError("the server without MTP counts no hit of its prefix cache, so nothing was tested")
        return cls(arms)

    @property
    def steps(self) -> int:
        """The number of requests after the cold ones."""
        return sum(len(found["steps"]) for found in self.arms.values())

    def other_texts(self, resolution: float, widest: float) -> list[str]:
        """A sentence for each answer that is not the cold one, apart from near-ties."""
        failed = [
            problem
            for arm, found in self.arms.items()
            for step in found["steps"]
            for problem in incomplete(f'"{step["id"]}" {WORDS[arm]}', step["reply"])
        ]
        return failed + beyond_near_ties(self._partings(), resolution, widest) + list(self._other_forms())

    def wrong_counts(self) -> list[str]:
        """A sentence for each request around which the cache counted something impossible."""
        return [
            f'"{name}" {WORDS[arm]} {problem}'
            for arm, found in self.arms.items()
            for name, hit, tokens, row in _counted(found)
            for problem in _wrong_count(row, hit, tokens)
        ]

    def wasted_hits(self) -> list[str]:
        """A sentence for each request around which tokens were both found and computed, or neither.

        Raises:
            Unsupported: computed tokens were not counted.
        """
        rows = [(arm, row) for arm, found in self.arms.items() for row in _counted(found)]
        counts = [row[3].get("computed", EARLIER) for _, row in rows]
        if EARLIER in counts:
            raise Unsupported("An earlier version of this suite recorded this, which did not count computed tokens.")
        if None in counts:
            raise Unsupported("This vLLM does not count the tokens of prompts that it computes.")
        return [
            f'"{name}" {WORDS[arm]} computed {row["computed"]} of {tokens} tokens, where {row["hits"]} were found'
            for arm, (name, _, tokens, row) in rows
            if row["computed"] + row["hits"] != tokens
        ]

    def note(self) -> str:
        """The share of looked-up tokens that were found, where the cache must have them."""
        rates = {}
        for arm, found in self.arms.items():
            repeated = [step for step in found["steps"] if step["hit"]]
            hits, queries = (sum(step[name] for step in repeated) for name in ("hits", "queries"))
            rates[arm] = f"{hits} of {queries} tokens {WORDS[arm]} ({hits / max(queries, 1):.1%})"
        evicted = any(step["hit"] is False and step["id"] != "first" for step in self.arms[PLAIN]["steps"])
        big = "" if evicted else "; the cache is so large that nothing was evicted"
        return f"hits of prompts that the cache holds: {rates[MTP]}, {rates[PLAIN]}{big}"

    def _partings(self) -> Iterator[Parting | None]:
        cold = {arm: found["cold"]["replies"] for arm, found in self.arms.items()}
        for prompt, reply in cold[PLAIN].items():
            between = f"the cold answers to {prompt} with and without MTP"
            yield parting(between, reply, cold[MTP][prompt], with_mtp=True)
        for arm, found in self.arms.items():
            for step in found["steps"]:
                between = f'"{step["id"]}" and the cold answer {WORDS[arm]}'
                yield parting(between, cold[arm][step["prompt"]], step["reply"], with_mtp=arm == MTP)

    def _other_forms(self) -> Iterator[str]:
        """Where the tokens are the cold ones, the calls, the thought and the end must be, too."""
        for arm, found in self.arms.items():
            for step in found["steps"]:
                cold = found["cold"]["replies"][step["prompt"]]
                if parting("", cold, step["reply"], with_mtp=False) is None and said(cold) != said(step["reply"]):
                    name = f'"{step["id"]}" {WORDS[arm]}'
                    yield f"{name} has the tokens of the cold answer, but not its text, calls or end"


def _counted(found: Mapping[str, Any]) -> Iterator[tuple[str, bool | None, int, Mapping[str, Any]]]:
    """Name, whether there should be a hit, tokens of the prompt or prompts, and the row with its counts."""
    cold = found["cold"]
    yield "cold prompts", False, sum(reply["usage"][0] for reply in cold["replies"].values()), cold
    for step in found["steps"]:
        yield step["id"], step["hit"], (step["reply"]["usage"] or [0])[0], step


def _wrong_count(row: Mapping[str, Any], hit: bool | None, tokens: int) -> Iterator[str]:
    if row["queries"] != tokens:
        yield f"looked up {row['queries']} tokens of a prompt of {tokens}"
    if row["hits"] >= max(tokens, 1):
        yield f"found {row['hits']} of {tokens} tokens, though the last one is always computed"
    if hit is True and not row["hits"]:
        yield "found nothing in the cache, though it holds this prompt"
    if hit is False and row["hits"]:
        yield f"found {row['hits']} tokens in the cache, which cannot hold this prompt"
