"""How a check is declared and judged: the ``@check`` decorator and ``judge``.

A check is a pytest function whose arguments are observations and whose body is one or a few expectations.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from conformance.errors import NotRecorded, ObservationError, Unsupported, UsageError
from conformance.judging.oracle import Oracle, checked_oracle
from conformance.judging.response import RESPONSES, Severity
from conformance.judging.verdict import Finding, Outcome, Verdict, worst
from conformance.profile.profile import LEVELS

FAMILIES = (
    *("ENV", "CKPT", "GEOM", "PARSE", "DRAFT", "MOE", "NUM", "PARITY"),
    *("TOOL", "REASON", "GRAMMAR", "API", "GOLD", "ACC", "LOSS", "TASK", "ARM", "GRAPH", "SPEED", "CAL", "FEATURE"),
    "SOAK",
)
DECLARATION = "conformance_check"

F = TypeVar("F", bound=Callable[..., None])
_findings: ContextVar[list[Finding] | None] = ContextVar("findings of the check being judged", default=None)


@dataclass(frozen=True)
class Check:
    """The declaration of a check, used by ``pytest --list-checks``, README's table and every report."""

    id: str
    level: str
    severity: Severity
    response: str  # one of RESPONSES
    oracle: Oracle
    claim: str
    upstream: str
    no_better_oracle: str = ""  # why a check is only self-consistent
    chats: tuple[str, ...] = ()  # the groups of chats that it judges
    swept: bool = False  # whether it comes last where every draft length needs a server of its own

    @property
    def chat_observations(self) -> tuple[str, ...]:
        """The observations of its groups of chats."""
        return tuple(f"chat-{group}" for group in self.chats)

    @property
    def order(self) -> tuple[int, str]:
        """The sort key: cheap families first, then by number."""
        return FAMILIES.index(self.id.partition("-")[0]), self.id


def check(
    id: str,
    *,
    level: str,
    severity: str,
    response: str,
    oracle: str,
    claim: str,
    upstream: str = "",
    no_better_oracle: str = "",
    chats: tuple[str, ...] = (),
    swept: bool = False,
) -> Callable[[F], F]:
    """Declare a check: a stable id, the lowest level that runs it, the sentence it proves, the upstream reference.

    ``severity`` says how grave a failure is, ``response`` which of ``RESPONSES`` helps.
    ``oracle`` says where the expected value comes from; ``no_better_oracle`` says why a check is only self-consistent.
    ``chats`` names the groups of chats that the argument ``chat`` holds. A check with ``swept`` comes last where every
    draft length needs a server of its own.

    Raises:
        ValueError: an argument is not valid.
    """
    if not re.fullmatch(rf"({'|'.join(FAMILIES)})-\d\d", id):
        raise ValueError(f"{id!r} is no check id; write one of {FAMILIES} and two digits, as in ACC-01")
    if level not in LEVELS:
        raise ValueError(f"{id}: level {level!r} is none of {', '.join(LEVELS)}")
    if severity not in list(Severity):
        raise ValueError(f"{id}: severity {severity!r} is none of {', '.join(Severity)}")
    if response not in RESPONSES:
        raise ValueError(f"{id}: response {response!r} is none of {', '.join(RESPONSES)}")
    if not claim.endswith("."):
        raise ValueError(f"{id}: the claim must be a sentence that ends with a full stop")

    found = Check(
        id,
        level,
        Severity(severity),
        response,
        checked_oracle(id, oracle, no_better_oracle),
        claim,
        upstream,
        no_better_oracle,
        chats,
        swept,
    )

    def declare(function: F) -> F:
        setattr(function, DECLARATION, found)
        return function

    return declare


def declaration(function: object) -> Check | None:
    """The declaration of a check; None for any other object."""
    found = getattr(function, DECLARATION, None)
    return found if isinstance(found, Check) else None


def check_of(item: object) -> Check | None:
    """The declaration of a test that pytest collected, or None if the test is not a check."""
    return declaration(getattr(item, "function", None))


def judge(function: Callable[..., None], arguments: Mapping[str, Any]) -> Outcome:
    """Run a check on its observations. The same observations always give the same outcome."""
    findings: list[Finding] = []
    token = _findings.set(findings)
    try:
        function(**arguments)
    except Exception as error:  # every exception gives an ERROR or UNSUPPORTED with a sentence, never a PASS
        return outcome_of(error, tuple(findings))
    finally:
        _findings.reset(token)
    if not findings:
        return Outcome(Verdict.ERROR, "the check compared nothing, so it proves nothing")
    verdict = worst(findings)
    sentence = "; ".join(finding.sentence for finding in findings if finding.verdict is verdict)
    return Outcome(verdict, sentence, tuple(findings))


def outcome_of(error: BaseException, findings: tuple[Finding, ...] = ()) -> Outcome:
    """The outcome of a check that raised: UNSUPPORTED with the reason, or ERROR with the sentence."""
    if isinstance(error, Unsupported):
        return Outcome(Verdict.UNSUPPORTED, str(error), findings)
    if isinstance(error, ObservationError):
        recorded = not isinstance(error, NotRecorded)
        return Outcome(Verdict.ERROR, error.sentence, findings, error.log_tail, recorded)
    if isinstance(error, UsageError):
        return Outcome(Verdict.ERROR, str(error), findings)
    trace = "".join(traceback.format_exception(error))
    return Outcome(Verdict.ERROR, f"unexpected {type(error).__name__}: {error}", findings, trace)


def record_finding(finding: Finding) -> Finding:
    """Add a finding to the check that is being judged, if there is one, and return it."""
    findings = _findings.get()
    if findings is not None:
        findings.append(finding)
    return finding
