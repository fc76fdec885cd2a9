"""Known failures: the documented upstream defects that match what a check found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

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


@pydantic.dataclasses.dataclass(frozen=True, config=toml_tables.STRICT)
class KnownFailure:
    """One documented defect; ``signature`` is searched in the check's message and in the tails of the server logs.

    ``checks`` are the ids or families of checks that the defect may explain, or ``*``.
    """

    id: str
    checks: tuple[str, ...]
    signature: Annotated[str, AfterValidator(_regular_expression)]
    upstream: str
    advice: str
    fixed_in: str = ""


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
