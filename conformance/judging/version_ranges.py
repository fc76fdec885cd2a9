"""Holds the version ranges of known failures against judged releases.

A red outside its range and a green inside it are errors of the entry: the range is wrong, or the signature is. So is
an entry that explains a verdict of a judged release and does not say since which release it holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from packaging.version import Version

from conformance.judging.diagnose import KnownFailure
from conformance.profile.release_facts import Judged, Release

RED = frozenset({"FAIL", "WAIVED", "ERROR"})  # INCONCLUSIVE says nothing about a release
GREEN = frozenset({"PASS"})
NAMED = RED | {"UNSUPPORTED"}  # what a known failure must explain


@dataclass(frozen=True)
class Range:
    """One known failure on the judged releases: those in which it shows, the first of them and the first without it."""

    failure: KnownFailure
    bad: tuple[str, ...]
    good: tuple[str, ...]

    @property
    def first_bad(self) -> str:
        """The first release in which it shows; empty for none."""
        return self.bad[0] if self.bad else ""

    @property
    def first_good(self) -> str:
        """The first release after those in which it shows, in which the same check passes; empty for none."""
        later = [it for it in self.good if self.bad and Version(it) > Version(self.bad[-1])]
        return later[0] if later else ""


def ranges(failures: Sequence[KnownFailure], releases: Sequence[Release]) -> list[Range]:
    """Every known failure that says where it shows, with the releases that show it, in the order of releases."""
    found = []
    for failure in failures:
        if failure.shows_in:
            bad = tuple(it.release for it in releases if _red(failure, it))
            good = tuple(it.release for it in releases if it.release not in bad and _green(failure, it))
            found.append(Range(failure, bad, good))
    return found


def range_problems(failures: Sequence[KnownFailure], releases: Sequence[Release]) -> list[str]:
    """A sentence for each red outside a range, each green inside one, and each verdict that lacks a name or a range."""
    return [*_wrong_ends(failures, releases), *_nameless(releases), *_without_range(failures, releases)]


def _wrong_ends(failures: Sequence[KnownFailure], releases: Sequence[Release]) -> Iterator[str]:
    for found in ranges(failures, releases):
        failure = found.failure
        checks = ", ".join(failure.shows_in)
        for release in found.bad:
            if not failure.holds_in(release):
                yield f"{failure.id} holds {failure.range}, but {checks} shows it in vLLM {release}."
        for release in found.good:
            if failure.holds_in(release):
                yield f"{failure.id} holds {failure.range}, but {checks} passes in vLLM {release}."


def _nameless(releases: Sequence[Release]) -> Iterator[str]:
    for release in releases:
        for check, judged in release.checks.items():
            if judged.verdict in NAMED and not judged.failures:
                yield f"{check} is {judged.verdict} in vLLM {release.release}, which no known failure names."


def _without_range(failures: Sequence[KnownFailure], releases: Sequence[Release]) -> Iterator[str]:
    open_ended = {failure.id for failure in failures if not failure.since}
    seen: dict[str, str] = {}
    for release in releases:
        for check, judged in release.checks.items():
            for name in open_ended.intersection(judged.failures):
                seen.setdefault(name, f"{name} explains {check} in vLLM {release.release}")
    for name in sorted(seen):
        yield f"{seen[name]}, and its entry does not say since which release it holds."


def _red(failure: KnownFailure, release: Release) -> bool:
    return any(judged.verdict in RED and failure.id in judged.failures for judged in _shown(failure, release))


def _green(failure: KnownFailure, release: Release) -> bool:
    return any(judged.verdict in GREEN for judged in _shown(failure, release))


def _shown(failure: KnownFailure, release: Release) -> list[Judged]:
    return [release.checks[check] for check in failure.shows_in if check in release.checks]
