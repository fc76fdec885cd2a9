"""What to expect of one release on one hardware, for a terminal and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from packaging.version import InvalidVersion, Version

from conformance.errors import UsageError
from conformance.judging.diagnose import KnownFailure
from conformance.profile.profile import Hardware
from conformance.profile.release_facts import Release
from conformance.reports.releases.outlook import red, reference, sentence
from conformance.reports.releases.page import advice, by_hardware


@dataclass(frozen=True)
class Red:
    """A verdict that is no PASS, and the ids of known failures that match it."""

    verdict: str
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """What a kept run found in the release; ``red`` has the known failures of each check that did not pass."""

    hardware: str
    sentence: str
    red: Mapping[str, Red]


@dataclass(frozen=True)
class Named:
    """A known failure whose range of releases holds this one."""

    id: str
    reference: str
    advice: str


@dataclass(frozen=True)
class Expectation:
    """Kept runs of a release, its known failures, and the release to take, as sentences."""

    vllm: str
    hardware: str
    judged: tuple[Judged, ...]
    known_failures: tuple[Named, ...]
    advice: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """As lines for a terminal."""
        yield f"vLLM {self.vllm} on {self.hardware}"
        yield ""
        if not self.judged:
            yield f"No run of {self.vllm} is kept here: scripts/releases {self.vllm} judges it."
        for each in self.judged:
            elsewhere = each.hardware != self.hardware
            yield each.sentence + f" (judged on {each.hardware}, not on {self.hardware})" * elsewhere
            yield from (f"  {id} {found.verdict}: {', '.join(found.failures)}" for id, found in each.red.items())
        yield ""
        yield f"Known failures whose range holds {self.vllm}:"
        yield from (f"  {each.id} ({each.reference}): {each.advice}" for each in self.known_failures)
        if not self.known_failures:
            yield "  none"
        yield ""
        yield from self.advice

    def document(self) -> dict[str, Any]:
        """As ``expectation.schema.json`` describes it."""
        return {"format": 1, **asdict(self)}


def expectation(
    vllm: str, hardware: Hardware, releases: Sequence[Release], failures: Sequence[KnownFailure]
) -> Expectation:
    """The judged outcome of this release, the defects whose range holds it, and the release to take.

    Raises:
        UsageError: ``vllm`` is no version.
    """
    try:
        number = Version(vllm).base_version
    except InvalidVersion:
        raise UsageError(f"--vllm {vllm} is no version; give one of vLLM's, such as 0.32.0.") from None
    known = {failure.id: failure for failure in failures}
    judged = tuple(
        Judged(
            each.hardware,
            sentence(each, known),
            {id: Red(str(found.verdict), tuple(found.failures)) for id, found in red(each).items()},
        )
        for each in releases
        if each.release == number
    )
    named = tuple(
        Named(failure.id, reference(failure), failure.advice)
        for failure in failures
        if failure.since and failure.holds_in(number) and (hardware.memory == "host" or not failure.cpu_only)
    )
    judging = by_hardware(releases)
    names = [hardware.name] if hardware.name in judging else list(judging)
    lines = tuple(line for name in names for line in advice(name, releases, known))
    return Expectation(number, hardware.name, judged, named, lines)
