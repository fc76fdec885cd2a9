"""Waivers: a known FAIL that has an upstream URL and is allowed until a date.

A waiver masks a FAIL after it was judged, and no other verdict. Where a check tells kinds of findings apart, a waiver
names the kinds that it allows; a FAIL of another kind stays a FAIL. A waiver that is expired, names no check, or
applies to this run without masking a FAIL is a problem of the run, so outdated waivers are noticed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated

import pydantic
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import AfterValidator

from conformance.formats import toml_tables
from conformance.judging.verdict import Outcome, Record, Verdict


def _https(url: str) -> str:
    if not url.startswith("https://"):
        raise ValueError("the https URL of an issue or pull request")
    return url


def _version_range(text: str) -> str:
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        raise ValueError("a version range, as in >=0.28,<0.33") from None
    return text


@pydantic.dataclasses.dataclass(frozen=True, config=toml_tables.STRICT)
class Waiver:
    """One row of a file in fixtures/waivers; an empty condition applies to every run."""

    check: str
    upstream: Annotated[str, AfterValidator(_https)]
    reason: str
    owner: str
    expires: date
    hardware: str = ""
    pair: str = ""
    vllm: Annotated[str, AfterValidator(_version_range)] = ""
    kinds: tuple[str, ...] = ()  # of findings that it allows; if there are none, it allows the whole check

    @property
    def where(self) -> str:
        """The name of this waiver in a sentence."""
        return f"the waiver of {self.check} in fixtures/waivers ({self.upstream})"

    def applies(self, hardware: str, pair: str, vllm: str | None) -> bool:
        """Whether the waiver applies to this run; an unknown version is in no version range."""
        in_range = not self.vllm or (vllm is not None and SpecifierSet(self.vllm).contains(vllm, prereleases=True))
        return in_range and self.hardware in ("", hardware) and self.pair in ("", pair)


@pydantic.dataclasses.dataclass(frozen=True, config=toml_tables.STRICT)
class _File:
    waiver: tuple[Waiver, ...]


def load_waivers(directory: Path) -> tuple[Waiver, ...]:
    """Read every ``[[waiver]]`` of the folder's TOML files.

    Raises:
        UsageError: a file is not valid.
    """
    return tuple(waiver for path in sorted(directory.glob("*.toml")) for waiver in toml_tables.read(path, _File).waiver)


def apply(record: Record, waivers: Sequence[Waiver], today: date) -> Record:
    """The record; a FAIL becomes WAIVED if waivers that have not expired allow its check, or every kind that failed."""
    if record.verdict is not Verdict.FAIL:
        return record
    named = _in_force(record.id, waivers, today)
    used = [waiver for waiver in named if not waiver.kinds][:1] or [
        waiver for waiver in named if failed_kinds(record) & set(waiver.kinds)
    ]
    allowed = {kind for waiver in used for kind in waiver.kinds}
    if not used or (all(waiver.kinds for waiver in used) and failed_kinds(record) - allowed):
        return record
    notes = [f"{waiver.reason} ({waiver.upstream}; {waiver.owner}, until {waiver.expires})" for waiver in used]
    return replace(record, verdict=Verdict.WAIVED, waiver="; ".join(notes))


def what_fails(outcome: Outcome, check: str, waivers: Sequence[Waiver], today: date) -> str:
    """The sentences of failed findings that no waiver allows by their kind; the outcome's sentence if there is none."""
    allowed = {kind for waiver in _in_force(check, waivers, today) for kind in waiver.kinds}
    failed = [finding for finding in outcome.findings if finding.verdict is Verdict.FAIL]
    return "; ".join(each.sentence for each in failed if each.kind not in allowed) or outcome.sentence


def _in_force(check: str, waivers: Sequence[Waiver], today: date) -> list[Waiver]:
    return [waiver for waiver in waivers if waiver.check == check and today <= waiver.expires]


def failed_kinds(record: Record) -> set[str]:
    """The kinds of a record's findings that failed; empty text for a finding without a kind."""
    return {finding.kind for finding in record.findings if finding.verdict is Verdict.FAIL}


def problems(
    waivers: Sequence[Waiver], records: Sequence[Record], known: Collection[str], today: date
) -> tuple[str, ...]:
    """A sentence for each waiver that is expired, names no check, or masked nothing although its check was judged."""
    verdicts = {record.id: record.verdict for record in records}
    failed = {record.id: failed_kinds(record) for record in records}
    sentences = []
    for waiver in waivers:
        if waiver.check not in known:
            sentences.append(f"{waiver.where} names no check")
        elif today > waiver.expires:
            sentences.append(f"{waiver.where} expired on {waiver.expires}")
        elif verdicts.get(waiver.check, Verdict.WAIVED) not in (Verdict.WAIVED, Verdict.UNSUPPORTED):
            verdict = verdicts[waiver.check]
            sentences.append(f"{waiver.where} matched nothing: {waiver.check} is {verdict}, so delete the row")
        elif waiver.check in verdicts and verdicts[waiver.check] is not Verdict.UNSUPPORTED:
            gone = [kind for kind in waiver.kinds if kind not in failed[waiver.check]]
            sentences += [f"{waiver.where} names a kind that was not found, so delete it: {kind}" for kind in gone]
    return tuple(sentences)
