"""What sampling options do with MTP, compared with what they do without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError, Unsupported
from conformance.profile.arms import MTP, PLAIN
from conformance.views.served.replies import OK, Facts, parting, said, status, token_ids


@dataclass(frozen=True)
class SamplingOptions:
    """The ``sampling_options`` observation. Each server was asked twice for every case."""

    cases: tuple[Facts, ...]
    baselines: Mapping[str, list[int]]
    not_asked: Mapping[str, str]  # why, by the id of the case
    source: str = "observations/sampling_options.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation.

        Raises:
            ObservationError: an option changes nothing without MTP, so its case tests nothing.
        """
        cases, baselines = tuple(facts["cases"]), facts["baselines"]
        for case in cases:
            replies = case[PLAIN]
            unchanged = [
                len(reply["choices"]) == 1 and token_ids(reply) == baselines[case["question"]] for reply in replies
            ]
            if case["shows"] and _accepted(replies) and all(unchanged):
                raise ObservationError(f'"{case["id"]}" changes nothing without MTP, so it tests nothing')
        return cls(cases, baselines, facts["not_asked"])

    def tested(self, about: str) -> list[Facts]:
        """The cases that both servers accept, of one kind: "choice" or "ending"."""
        return [case for case in self.cases if case["about"] == about and _accepted([*case[MTP], *case[PLAIN]])]

    def objections(self, about: str) -> list[str]:
        """A sentence for each case of this kind that both servers accept and that differs with MTP."""
        found = ((case["id"], self._problem(case)) for case in self.tested(about))
        return [f'"{id}" {problem}' for id, problem in found if problem]

    def wrong_refusals(self) -> list[str]:
        """A sentence for each case that only the server with MTP refuses, and without naming the option.

        Raises:
            Unsupported: it refuses some options by their names, and there is no wrong refusal.
        """
        refused = [(case, reply) for case in self._accepted_without() for reply in case[MTP] if reply["status"] != OK]
        named = {case["field"]: reply["message"] for case, reply in refused if _names(case, reply)}
        wrong = [
            f'"{case["id"]}" got {status(reply)} with MTP: {reply["message"][:200]}'
            for case, reply in refused
            if not _names(case, reply)
        ]
        if named and not wrong:
            reasons = dict.fromkeys(named.values())
            raise Unsupported(f"vLLM refuses {', '.join(named)} with MTP: {'; '.join(reasons)[:300]}")
        return list(dict.fromkeys(wrong))

    @property
    def accepted_without(self) -> int:
        """The number of cases that the server without MTP accepts."""
        return len(self._accepted_without())

    def note(self) -> str:
        """The cases that nobody was asked, and those that both servers refuse."""
        both = [case["id"] for case in self.cases if not _accepted(case[PLAIN])]
        notes = [f"not asked: {id} ({why})" for id, why in self.not_asked.items()]
        return "; ".join([*notes, *([f"refused with and without MTP: {', '.join(both)}"] if both else [])])

    def _accepted_without(self) -> list[Facts]:
        return [case for case in self.cases if _accepted(case[PLAIN])]

    def _problem(self, case: Facts) -> str:
        return next(filter(None, (self._difference(case, reply) for reply in case[MTP])), "")

    def _difference(self, case: Facts, reply: Facts) -> str:
        """How a reply with MTP differs from both replies without; a place where these differ counts as a near-tie."""
        once, again = case[PLAIN]
        if any((said(reply), reply["usage"]) == (said(each), each["usage"]) for each in (once, again)):
            return ""
        place, itself = (parting("", once, other, with_mtp=False) for other in (reply, again))
        if place and itself and itself.place <= place.place:
            return ""
        if case["shows"] and len(reply["choices"]) == 1 and token_ids(reply) == self.baselines[case["question"]]:
            return "is ignored with MTP"
        return next(_differences(once, reply))


def _accepted(replies: list[Facts]) -> bool:
    return all(reply["status"] == OK for reply in replies)


def _names(case: Facts, reply: Facts) -> bool:
    return 400 <= (reply["status"] or 0) < 500 and case["field"] in reply["message"]


def _differences(plain: Facts, mtp: Facts) -> Iterator[str]:
    for name in ("token_ids", "text", "finish_reason", "stop"):
        ours, others = ([choice.get(name) for choice in reply["choices"]] for reply in (mtp, plain))
        if ours != others:
            yield f"has {name} {_short(ours)} with MTP, {_short(others)} without"
    yield f"has usage {mtp['usage']} with MTP, {plain['usage']} without"


def _short(values: list[Any]) -> str:
    text = str(values[0] if len(values) == 1 else values)
    return text if len(text) <= 90 else f"{text[:40]} … {text[-45:]}"
