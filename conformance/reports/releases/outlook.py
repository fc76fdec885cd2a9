"""What a judged release can be used for, in one sentence, and which release to take."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from packaging.version import Version

from conformance.judging.check import FAMILIES
from conformance.judging.diagnose import KnownFailure
from conformance.judging.version_ranges import RED
from conformance.profile.profile import LEVELS
from conformance.profile.release_facts import Judged, Release

GRAVEST = ("ERROR", "FAIL", "WAIVED", "INCONCLUSIVE", "UNSUPPORTED", "PASS")
MOST = 3  # causes in a sentence
SERVED = frozenset(FAMILIES) - {"ENV", "CKPT", "GEOM", "PARSE", "MOE", "GRAPH"}  # these need a server
Known = Mapping[str, KnownFailure]


def red(release: Release) -> dict[str, Judged]:
    """The checks that did not pass although this release could have passed them."""
    return {check: judged for check, judged in release.checks.items() if judged.verdict in RED}


def died(release: Release) -> bool:
    """Whether a check that needs a server could not be judged."""
    return any(family(check) in SERVED and judged.verdict == "ERROR" for check, judged in release.checks.items())


def served(release: Release) -> bool:
    """Whether servers of this release answered all that was asked."""
    asked = [judged.verdict for check, judged in release.checks.items() if family(check) in SERVED]
    return "PASS" in asked and not died(release)


def family(check: str) -> str:
    """The family of a check."""
    return check.partition("-")[0]


def families(release: Release) -> dict[str, str]:
    """The gravest verdict of each family that was judged."""
    found: dict[str, str] = {}
    for check, judged in release.checks.items():
        worse = (found.get(family(check), "PASS"), judged.verdict)
        found[family(check)] = min(worse, key=GRAVEST.index)
    return found


def sentence(release: Release, known: Known) -> str:
    """What to expect of a release: "0.30.0: do not use, …"."""
    every = list(_causes(release, known))
    more = [f"and {len(every) - MOST} more"] if len(every) > MOST else []
    causes = "; ".join([*every[:MOST], *more])
    if died(release):
        words = f"do not use on {release.hardware}: {causes or 'its server ended for an unknown reason'}"
    elif served(release):
        words = f"serves{f', but {causes}' if causes else ' without a finding'}"
    else:
        words = f"not served yet{f'; {causes}' if causes else ', no finding'}"
    return f"{release.release}: {words}."


def _causes(release: Release, known: Known) -> Iterator[str]:
    """The effects of the known failures, of the server's end alone where there is one; then what has no name."""
    found: dict[str, None] = {}
    for judged in red(release).values():
        found |= dict.fromkeys(judged.failures)
    ended = {name for check, judged in red(release).items() if judged.verdict == "ERROR" for name in judged.failures}
    named = [known[name] for name in found if name in known and (name in ended or not died(release))]
    for failure in named:
        if failure.effect:
            yield f"{failure.effect} ({failure.id}, {reference(failure)})"
    nameless = [check for check, judged in red(release).items() if not judged.failures]
    if nameless:
        yield f"{', '.join(nameless)} did not pass for an unknown reason"


def reference(failure: KnownFailure) -> str:
    """The upstream number of a known failure, or that nobody has reported it."""
    if "no issue known" in failure.upstream:
        return "unreported"
    return re.sub(r"\b[\w-]+/(\w+#)", r"\1", failure.upstream)


def advised(releases: Sequence[Release]) -> Release | None:
    """The release to take: one that served, at the highest level, with the fewest reds; the newest of equals."""
    usable = [each for each in releases if served(each)]
    return max(usable, key=_rank, default=None)


def _rank(release: Release) -> tuple[int, int, Version]:
    return LEVELS.index(release.level), -len(red(release)), Version(release.release)
