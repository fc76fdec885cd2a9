"""Releases of vLLM as this suite judged them: fixtures/releases.json, made by ``qualify releases`` from archives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from packaging.version import Version
from pydantic.dataclasses import dataclass

from conformance import FIXTURES
from conformance.errors import UsageError
from conformance.formats import toml_tables
from conformance.formats.json_files import parse_json
from conformance.formats.toml_tables import STRICT

RELEASES = FIXTURES / "releases.json"
MEND = "make it again with: qualify releases --record"


@dataclass(frozen=True, config=STRICT)
class Judged:
    """One check in one release: its verdict, the ids of the known failures beside it, and why it did not pass."""

    verdict: str
    failures: tuple[str, ...] = ()
    sentence: str = ""


@dataclass(frozen=True, config=STRICT)
class Release:
    """One judged run of one release. ``figures``: value, low and high end of the 95 % interval, by name."""

    release: str
    hardware: str
    pair: str
    level: str
    started: str  # UTC, ISO 8601
    seconds: float  # from the start to the manifest
    archive: str  # the file in docs/results/releases
    versions: Mapping[str, str]  # of what its servers import
    sentence: str  # the judgement
    checks: Mapping[str, Judged]
    figures: Mapping[str, tuple[float, float, float]]


@dataclass(frozen=True, config=STRICT)
class _File:
    releases: tuple[Release, ...]


def load_releases(path: Path = RELEASES) -> tuple[Release, ...]:
    """Every judged release, the oldest first.

    Raises:
        UsageError: the file is missing or wrong; the sentence names it and the mend.
    """
    try:
        table = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}): {MEND}.") from None
    return in_order(toml_tables.convert(path, table, _File).releases)


def in_order(releases: Sequence[Release]) -> tuple[Release, ...]:
    """The releases by version."""
    return tuple(sorted(releases, key=lambda each: Version(each.release)))


def releases_to_json(releases: Sequence[Release]) -> dict[str, object]:
    """The document of fixtures/releases.json; a check that passed takes one word."""
    return {"releases": [asdict(each) for each in in_order(releases)]}
