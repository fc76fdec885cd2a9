"""docs/releases.md: every judged release in one sentence, its defects with their ranges, and what judging cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from packaging.version import Version

from conformance.judging.diagnose import KnownFailure
from conformance.judging.version_ranges import Range, ranges
from conformance.profile.release_facts import Judged, Release
from conformance.reports import markdown
from conformance.reports.markdown import table
from conformance.reports.releases.outlook import Known, advised, died, red, reference, sentence, served

BEGIN, END = "<!-- releases: begin -->", "<!-- releases: end -->"
PICTURE = "releases.svg"
FIGURE = "releases-figure.svg"
ARCHIVES = "results/releases"
LEGEND = "P pass, U unsupported, I inconclusive, W waived, F fail, E error; a dot where the level does not ask"


def plain(text: str) -> str:
    """The text with Markdown's signs as ordinary characters. The page is no comment, so numbers stay numbers."""
    return markdown.plain(text).replace("\u2060", "")


def as_markdown(releases: Sequence[Release], failures: Sequence[KnownFailure]) -> str:
    """The generated part of the page."""
    known = {failure.id: failure for failure in failures}
    parts = [
        *_advice(releases, known),
        "## Each release in one sentence",
        table(("release", "what to expect"), (_row(each, known) for each in reversed(releases))),
        "## Claims by family",
        f"![Verdicts of {len(releases)} releases by family of checks]({PICTURE})",
        f"The gravest verdict of each family: {LEGEND}.",
        "## Defects and their releases",
        _defects(ranges(failures, releases)),
        "## Acceptance and speed",
        _figure(releases),
        "## What a release lacks",
        "\n".join(_lacks(releases, known)) or "Nothing: no check is UNSUPPORTED.",
        "## What it took",
        _cost(releases),
    ]
    return "\n\n".join(parts) + "\n"


def by_hardware(releases: Sequence[Release]) -> dict[str, list[Release]]:
    """The releases by the hardware that judged them."""
    found: dict[str, list[Release]] = {}
    for each in releases:
        found.setdefault(each.hardware, []).append(each)
    return found


def advice(hardware: str, releases: Sequence[Release], known: Known) -> Iterator[str]:
    """The release to take on some hardware, what it passed, and why no newer one; plain sentences.

    ``releases`` are those of every hardware, because a newer one that was judged elsewhere is named too.
    """
    here = by_hardware(releases).get(hardware, [])
    best = advised(here)
    if best is None:
        yield f"On {hardware} no judged release has served yet."
        return
    passed = sum(judged.verdict == "PASS" for judged in best.checks.values())
    yield (
        f"On {hardware} use {best.release}: {passed} of {len(best.checks)} checks of level {best.level} passed"
        f"{'' if red(best) else ', and none failed'}."
    )
    for each in here:
        if Version(each.release) > Version(best.release):
            yield f"Not the newer {sentence(each, known)}"
    for each in releases:
        if Version(each.release) > max(Version(it.release) for it in here):
            yield f"Not the newer {each.release}: it was judged on {each.hardware}, and not on {hardware}."


def _advice(releases: Sequence[Release], known: Known) -> Iterator[str]:
    for hardware in by_hardware(releases):
        first, *rest = advice(hardware, releases, known)
        yield " ".join([f"**{plain(first)}**", *map(plain, rest)])


def _row(release: Release, known: Known) -> tuple[str, str]:
    """The release with a link to its archive, if that lies on the site, and its sentence."""
    name, _, words = sentence(release, known).partition(": ")
    linked = f"[{name}]({ARCHIVES}/{release.archive})" if release.archive.endswith(".tar.xz") else name
    return linked, plain(f"{words[0].upper()}{words[1:]}")


def _defects(found: Sequence[Range]) -> str:
    shown = sorted((it for it in found if it.bad), key=lambda it: (Version(it.first_bad), it.failure.id))
    rows = [
        (
            f"`{it.failure.id}`",
            _end(it.first_bad, it.failure.since),
            _end(it.first_good, it.failure.fixed_in) or "none yet",
            plain(f"{it.failure.effect} ({reference(it.failure)})"),
        )
        for it in shown
    ]
    return table(("defect", "first bad", "first good", "effect"), rows)


def _end(judged: str, declared: str) -> str:
    """One end of a range as its entry declares it, and the first release that has shown it if that is another one."""
    if not declared or judged == declared:
        return judged
    return f"{declared} ({f'judged: {judged}' if judged else 'not judged'})"


def _figure(releases: Sequence[Release]) -> str:
    if any(each.figures for each in releases):
        return f"![Acceptance length, share of equal texts and speedup by release, with 95 % intervals]({FIGURE})"
    return "Not measured yet: level qualify measures them, and no release has been judged there."


def _lacks(releases: Sequence[Release], known: Known) -> Iterator[str]:
    """A line for each reason, with the checks and the releases that it holds for."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for each in releases:
        for check, judged in each.checks.items():
            if judged.verdict == "UNSUPPORTED":
                words = plain(judged.sentence.replace(f"vLLM {each.release}", "vLLM"))
                reasons.setdefault((check, _explained(judged, known) + words), []).append(each.release)
    for (check, words), found in reasons.items():
        yield f"- {check} in {', '.join(found)}: {words}"


def _explained(judged: Judged, known: Known) -> str:
    """The known failures with their releases and upstream numbers."""
    explaining = [known[id] for id in judged.failures if id in known]
    return "".join(f"`{failure.id}`, {failure.range}, {reference(failure)}: " for failure in explaining)


def _cost(releases: Sequence[Release]) -> str:
    rows = [(each.release, each.level, f"{each.seconds / 60:.1f}", plain(_circumstances(each))) for each in releases]
    total = sum(each.seconds for each in releases) / 60
    ended = [each.release for each in releases if died(each)]
    words = f"{len(releases)} releases in {total:.0f} minutes of judging"
    words += f", {sum(map(served, releases))} of them with a server that answered" if any(map(served, releases)) else ""
    words += f", {len(ended)} whose server with MTP ends" if ended else ""
    columns = ("release", "level", "minutes", "where, when, with")
    return f"{words}. Times of runs beside other work say nothing about a release.\n\n{table(columns, rows)}"


def _circumstances(release: Release) -> str:
    beside = [f"{name} {release.versions[name]}" for name in ("torch", "transformers") if name in release.versions]
    return ", ".join([release.hardware, release.started[:10], *beside])
