"""What to expect of one release on one hardware, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from packaging.version import InvalidVersion, Version

from conformance.errors import UsageError
from conformance.judging.diagnose import KnownFailure
from conformance.profile.profile import Hardware
from conformance.profile.release_facts import Release
from conformance.reports.releases.outlook import red, reference, sentence
from conformance.reports.releases.page import advice, by_hardware


def expectation(
    vllm: str, hardware: Hardware, releases: Sequence[Release], failures: Sequence[KnownFailure]
) -> Iterator[str]:
    """The judged outcome of this release, the defects whose range holds it, and the release to take.

    Raises:
        UsageError: ``vllm`` is no version.
    """
    try:
        number = Version(vllm).base_version
    except InvalidVersion:
        raise UsageError(f"--vllm {vllm} is no version; give one of vLLM's, such as 0.32.0.") from None
    known = {failure.id: failure for failure in failures}
    judged = [each for each in releases if each.release == number]
    yield f"vLLM {number} on {hardware.name}"
    yield ""
    if not judged:
        yield f"No run of {number} is kept here: scripts/releases {number} judges it."
    for each in judged:
        where = "" if each.hardware == hardware.name else f" (judged on {each.hardware}, not on {hardware.name})"
        yield f"{sentence(each, known)}{where}"
        yield from (
            f"  {check} {verdict.verdict}: {', '.join(verdict.failures)}" for check, verdict in red(each).items()
        )
    yield ""
    yield f"Known failures whose range holds {number}:"
    named = [
        failure
        for failure in failures
        if failure.since and failure.holds_in(number) and (hardware.memory == "host" or not failure.cpu_only)
    ]
    yield from (f"  {failure.id} ({reference(failure)}): {failure.advice}" for failure in named)
    if not named:
        yield "  none"
    yield ""
    groups = by_hardware(releases)
    for name in [hardware.name] if hardware.name in groups else list(groups):
        yield from advice(name, groups[name], known)
