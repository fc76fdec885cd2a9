"""Known failures: the documented upstream defects that match what a check found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator

from conformance.formats import toml_tables
from conformance.judging.verdict import Diagnosis


def _regular_expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"a regular expression ({error})") from None
    return text


def _release(text: str) -> str:
    try:
        Version(text)
    except InvalidVersion:
        raise ValueError('a release of vLLM, as in "0.24.0"') from None
    return text


Release = Annotated[str, AfterValidator(_release)]


@pydantic.dataclasses.dataclass(frozen=True, config=toml_tables.STRICT)
class KnownFailure:
    """One documented defect; ``signature`` is searched in the check's message and in the tails of the server logs.

    ``checks`` are the ids or families of checks that the defect may explain, or ``*``. ``since`` is the first bad
    release and ``fixed_in`` the first good one; a side without a release is open. In every release between them one of
    the checks in ``shows_in`` must name this defect, and outside none may: ``judging/version_ranges.py``.
    """

    id: str
    checks: tuple[str, ...]
    signature: Annotated[str, AfterValidator(_regular_expression)]
    upstream: str
    advice: str
    fixed_in: Release | Literal[""] = ""
    since: Release | Literal[""] = ""
    shows_in: tuple[str, ...] = ()
    cpu_only: bool = False  # whether GPUs are not affected
    effect: str = ""  # on the user, for a sentence about a release: "the server ends at the first verified draft"

    @property
    def range(self) -> str:
        """The releases that have it, for a sentence."""
        end = f" to before {self.fixed_in}" if self.fixed_in else ""
        return f"from {self.since or 'the first release'}{end}"

    def holds_in(self, vllm: str) -> bool:
        """Whether this release is in the range."""
        begun = not self.since or Version(self.since) <= Version(vllm)
        return begun and not (self.fixed_in and Version(vllm) >= Version(self.fixed_in))


@pydantic.dataclasses.dataclass(frozen=True, config=toml_tables.STRICT)
class _File:
    failure: tuple[KnownFailure, ...]


def load_known_failures(directory: Path) -> tuple[KnownFailure, ...]:
    """Read every ``[[failure]]`` of the folder's TOML files.

    Raises:
        UsageError: a file is not valid.
    """
    return tuple(
        failure for path in sorted(directory.glob("*.toml")) for failure in toml_tables.read(path, _File).failure
    )


def diagnose(check: str, text: str, failures: Sequence[KnownFailure], vllm: str | None = None) -> tuple[Diagnosis, ...]:
    """The known failures for this check or its family whose signature matches the text."""
    family = check.partition("-")[0]
    return tuple(
        Diagnosis(failure.id, failure.upstream, failure.advice + _fixed_note(failure.fixed_in, vllm))
        for failure in failures
        if {"*", family, check} & set(failure.checks) and re.search(failure.signature, text)
    )


def _fixed_note(fixed_in: str, vllm: str | None) -> str:
    if not fixed_in:
        return ""
    try:
        back = vllm is not None and Version(vllm) >= Version(fixed_in)
    except InvalidVersion:
        back = False
    return f" Fixed in vLLM {fixed_in}" + (f", so under {vllm} it may have come back." if back else ".")
