"""Texts that were sampled with seeds, each request twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError
from conformance.profile.arms import MTP, PLAIN
from conformance.views.served.replies import OK, Facts, incomplete


@dataclass(frozen=True)
class Seeds:
    """The ``seeds`` observation: rows by server, in the same order."""

    asked: int  # tokens of each answer
    arms: Mapping[str, list[Facts]]
    source: str = "observations/seeds.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation.

        Raises:
            ObservationError: without MTP a request failed, or seeds change nothing, so nothing was tested.
        """
        arms = facts["arms"]
        for row in arms[PLAIN]:
            for reply in row["replies"]:
                if reply["status"] != OK:
                    why = next(incomplete(f"seed {row['seed']} without MTP", reply))
                    raise ObservationError(f"{why}; there is nothing to compare with")
        if list(_constant(arms[PLAIN])):
            raise ObservationError("different seeds give the same text without MTP, so nothing was tested")
        return cls(facts["asked"], arms)

    @property
    def requests(self) -> int:
        """The number of requests with MTP that were repeated."""
        return len(self.arms[MTP])

    def objections(self) -> list[str]:
        """A sentence for each request with MTP that its seed does not decide.

        Requests that differ from themselves count only if there are more of them than without MTP.
        """
        failed = [
            problem
            for row in self.arms[MTP]
            for reply in row["replies"]
            for problem in _malformed(f"seed {row['seed']} with MTP", row, reply, self.asked)
        ]
        if failed:
            return failed
        others, noise = (list(_repeated_otherwise(self.arms[arm])) for arm in (MTP, PLAIN))
        changed = [f"{name} with MTP" for name in others] if len(others) > len(noise) else []
        return changed + [f"{name} with MTP" for name in _constant(self.arms[MTP])]

    def note(self) -> str:
        """How often the text with MTP is the one without, which vLLM does not promise, and the noise."""
        pairs = [
            mtp == plain
            for rows in zip(self.arms[MTP], self.arms[PLAIN], strict=True)
            for mtp, plain in zip(*(_texts(row)[0] for row in rows), strict=False)
        ]
        noise = len(list(_repeated_otherwise(self.arms[PLAIN])))
        same = f"{sum(pairs)} of {len(pairs)} texts with MTP are those without, which vLLM does not promise"
        return f"{same}; without MTP, {noise} of {len(self.arms[PLAIN])} requests differ from themselves"


def _texts(row: Facts) -> list[list[list[int]]]:
    """The tokens of every answer, by reply."""
    return [[choice["token_ids"] for choice in reply["choices"]] for reply in row["replies"]]


def _malformed(name: str, row: Facts, reply: Facts, asked: int) -> Iterator[str]:
    yield from incomplete(name, reply, asked)
    if reply["status"] == OK and len(reply["choices"]) != row["n"]:
        yield f"{name} has {len(reply['choices'])} answers where {row['n']} were asked for"


def _repeated_otherwise(rows: list[Facts]) -> Iterator[str]:
    """A sentence for each request whose answers are other ones the second time."""
    for row in rows:
        once, again = _texts(row)
        for number, (one, other) in enumerate(zip(once, again, strict=False), 1):
            pairs = itertools.zip_longest(one, other)
            place = next((place for place, (a, b) in enumerate(pairs) if a != b), None)
            if place is not None:
                which = f", answer {number} of {row['n']}," if row["n"] > 1 else ""
                yield f"seed {row['seed']}{which} gives another token at {place} the second time"
                break


def _constant(rows: list[Facts]) -> Iterator[str]:
    """A sentence if all requests for one answer give one text, and one for each request whose answers are all equal."""
    single = [_texts(row)[0][0] for row in rows if row["n"] == 1 and row["replies"][0]["choices"]]
    if len(single) > 1 and all(text == single[0] for text in single):
        yield f"{len(single)} seeds give one text"
    for row in rows:
        texts = _texts(row)[0]
        if row["n"] > 1 and len(texts) > 1 and all(text == texts[0] for text in texts):
            yield f"{len(texts)} answers to one request with seed {row['seed']} are one text"
