"""How close the two most likely tokens are where answers differ, and how much the server's own scores vary.

The logits of the same tokens differ a little from batch to batch, with and without MTP. This changes an answer only
where the two most likely tokens are closer than that shift.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conformance.evidence.folder import Evidence
from conformance.observers import load
from conformance.profile.profile import Profile, Sizes
from conformance.serving.pool import ServerPool
from conformance.workload.client import Client, client

AT_ONCE = 5  # sequences in a batch that is scored


@dataclass(frozen=True)
class Said:
    """The answer of one arm to a prompt at one concurrency."""

    id: str
    arm: str
    concurrency: int
    token_ids: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.arm} {self.concurrency}"


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """The shifts of the gap between the two most likely tokens, and that gap at every first divergence."""
    loaded = evidence.observe("load", lambda: load.observe(profile, servers, evidence))
    prompts = {id: row["token_ids"] for id, row in loaded["prompts"].items()}
    with servers.exclusive(), client(servers.plain(), profile.hardware.bounds.request_seconds) as asking:
        pairs = list(pairs_to_compare(loaded["rounds"]))
        against_itself = sum(other.arm != "mtp" for _, other in pairs)
        return {
            "compared": {"with_mtp": len(pairs) - against_itself, "without_mtp": against_itself},
            "shifts": _shifts(asking, prompts, profile.sizes),
            "divergences": _divergences(asking, prompts, pairs),
        }


def _shifts(asking: Client, prompts: Mapping[str, Sequence[int]], sizes: Sizes) -> list[dict[str, Any]]:
    """Score the same tokens when generated in one large batch, when read in smaller batches, and when read alone."""
    chosen = list(prompts)[: sizes.tie_prompts]
    written = asking.continued([prompts[id] for id in chosen], sizes.longest_answer)
    sequences = [[*prompts[id], *found.token_ids] for id, found in zip(chosen, written, strict=True)]
    begin = [len(prompts[id]) for id in chosen]
    alone = [asking.scored([sequence], [start])[0] for sequence, start in zip(sequences, begin, strict=True)]
    batches = range(0, len(chosen), AT_ONCE)
    read = [gaps for at in batches for gaps in asking.scored(sequences[at : at + AT_ONCE], begin[at : at + AT_ONCE])]
    return [
        {
            "id": id,
            "positions": len(found.gaps),
            "largest": max(max(gaps) - min(gaps) for gaps in zip(found.gaps, one, many, strict=True)),
        }
        for id, found, one, many in zip(chosen, written, alone, read, strict=True)
    ]


def pairs_to_compare(rounds: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Said, Said]]:
    """The pairs of answers to compare: without MTP and with MTP; without MTP twice, also in other batches."""
    first: dict[str, Said] = {}
    for row in rounds:
        if row["warm_up"]:
            continue
        arms = {arm: _said(row, arm) for arm in ("mtp", "plain", "plain_again") if row[arm]}
        for number, plain in enumerate(arms["plain"]):
            yield plain, arms["mtp"][number]
            if "plain_again" in arms:
                yield plain, arms["plain_again"][number]
            if plain.id in first:
                yield first[plain.id], plain
            first.setdefault(plain.id, plain)


def _said(row: Mapping[str, Any], arm: str) -> list[Said]:
    answers = zip(row["prompts"], row[arm]["answers"], strict=True)
    return [Said(id, arm, row["concurrency"], tuple(answer["token_ids"])) for id, answer in answers]


def divergence(one: Sequence[int], other: Sequence[int]) -> int | None:
    """The first position where two answers differ or one has ended; None if they are equal."""
    both = itertools.zip_longest(one, other)
    return next((place for place, (a, b) in enumerate(both) if a != b), None)


def _divergences(
    asking: Client, prompts: Mapping[str, Sequence[int]], pairs: Sequence[tuple[Said, Said]]
) -> list[dict[str, Any]]:
    found = [
        (one, other, place) for one, other in pairs if (place := divergence(one.token_ids, other.token_ids)) is not None
    ]
    prefixes = [[*prompts[one.id], *one.token_ids[:place]] for one, _, place in found]
    gaps = [asking.continued([prefix], 1)[0].gaps[0] for prefix in prefixes]
    return [
        {
            "id": one.id,
            "between": [one.name, other.name],
            "place": place,
            "tokens": [dict(enumerate(said.token_ids)).get(place) for said in (one, other)],
            "gap": gap,
        }
        for (one, other, place), gap in zip(found, gaps, strict=True)
    ]
