"""Replies of the servers in the configuration that people serve: what they say, and where two of them part."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Facts = Mapping[str, Any]
OK = 200


@dataclass(frozen=True)
class Parting:
    """The first place where two replies differ. ``gap`` is the lead of the most likely token there, in nats."""

    between: str
    place: int
    gap: float
    with_mtp: bool

    def __str__(self) -> str:
        lead = f", where the most likely token leads by {self.gap:.2f} nats" if self.gap != float("inf") else ""
        return f"{self.between} differ at token {self.place}{lead}"


def token_ids(reply: Facts) -> list[int]:
    """The tokens of the first choice; none if the request was refused."""
    return list(reply["choices"][0]["token_ids"]) if reply["choices"] else []


def parting(between: str, one: Facts, other: Facts, *, with_mtp: bool) -> Parting | None:
    """Where the first choices of two replies differ; ``one`` has the gaps. None if both have the same tokens."""
    pairs = itertools.zip_longest(token_ids(one), token_ids(other))
    place = next((place for place, (a, b) in enumerate(pairs) if a != b), None)
    if place is None:
        return None
    gaps = one["choices"][0].get("gaps", []) if one["choices"] else []
    return Parting(between, place, gaps[place] if place < len(gaps) else float("inf"), with_mtp)


def beyond_near_ties(partings: Iterable[Parting | None], resolution: float, widest: float) -> list[str]:
    """A sentence for each parting with MTP that is at no near-tie.

    A gap is a near-tie up to the resolution of the logits, or up to the widest gap at which the server without MTP
    differs from itself, but never above ``widest``.
    """
    found = [each for each in partings if each is not None]
    limit = min(widest, max([resolution, *(each.gap for each in found if not each.with_mtp)]))
    return [str(each) for each in found if each.with_mtp and each.gap > limit]


def incomplete(name: str, reply: Facts, asked: int | None = None) -> Iterator[str]:
    """What is wrong with a reply by itself; ``asked`` is the number of tokens that it must have."""
    if reply["status"] != OK:
        yield f"{name} got {status(reply)}: {reply['message'][:120]}"
        return
    tokens = token_ids(reply)
    counted = sum(len(choice["token_ids"]) for choice in reply["choices"])
    if counted != reply["usage"][1]:
        yield f"{name} has {counted} token ids where usage counts {reply['usage'][1]}"
    if asked is not None and (len(tokens), reply["choices"][0]["finish_reason"]) != (asked, "length"):
        finish = reply["choices"][0]["finish_reason"]
        yield f'{name} has {len(tokens)} tokens and finish_reason "{finish}" where {asked} and "length" are right'


def status(reply: Facts) -> str:
    """The status for a reader."""
    return "no answer" if reply["status"] is None else f"HTTP {reply['status']}"


def said(reply: Facts) -> Sequence[Facts]:
    """Everything that a client gets, by choice, without what only the comparison needs."""
    return [{name: value for name, value in choice.items() if name != "gaps"} for choice in reply["choices"]]
