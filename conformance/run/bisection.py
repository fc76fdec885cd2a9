"""The first release of vLLM on which a check fails: logarithmic steps, with a log to go on from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from conformance.errors import UsageError
from conformance.evidence.folder import write_atomically
from conformance.judging.verdict import Verdict

LOG = "bisect.json"  # in the folder of the search
# A waiver allows a FAIL, which is one all the same. Any other verdict says nothing, and its release is passed over.
TOLD = {Verdict.PASS: True, Verdict.FAIL: False, Verdict.WAIVED: False}


@dataclass(frozen=True)
class Step:
    """One release that was judged."""

    release: str
    verdict: str
    sentence: str
    evidence: str

    @property
    def good(self) -> bool | None:
        """Whether the check passed; None if it could not tell."""
        return TOLD.get(Verdict(self.verdict))


@dataclass(frozen=True)
class Found:
    """The result: the last release that passed, the first that failed, and those between that could not tell."""

    check: str
    good: str
    bad: str
    unknown: tuple[str, ...]
    steps: tuple[Step, ...]

    @property
    def sentence(self) -> str:
        """The result in words."""
        if not self.unknown:
            return f"{self.check} fails from {self.bad} on; {self.good} is the last release that passes."
        between = ", ".join(self.unknown)
        return f"{self.check} fails from {self.bad} or from one of {between} on; {self.good} is the last that passes."


Judge = Callable[[str], Step]


def bisect(check: str, releases: Sequence[str], judge: Judge, log: Path, tell: Callable[[str], None]) -> Found:
    """Search between the first release, which must pass, and the last, which must fail.

    Steps in ``log`` are not repeated.

    Raises:
        UsageError: an end does not hold what the user says, or the log belongs to another search.
    """
    if len(releases) < 2:
        raise UsageError("A search needs a good release and a later bad one; name them by --good and --bad.")
    done = _read(log, check, releases)

    def known(release: str) -> Step:
        if release not in done:
            tell(f"judging {check} on {release}\n")
            done[release] = judge(release)
            _write(log, check, releases, done.values())
        tell(f"{release}: {done[release].verdict}, {done[release].sentence}\n")
        return done[release]

    _require_end(known(releases[0]), passes=True)
    _require_end(known(releases[-1]), passes=False)
    good, bad = 0, len(releases) - 1
    unknown: set[int] = set()
    while (place := _middle(good, bad, unknown)) is not None:
        told = known(releases[place]).good
        if told is None:
            unknown.add(place)
        elif told:
            good = place
        else:
            bad = place
    between = tuple(releases[place] for place in sorted(unknown) if good < place < bad)
    return Found(check, releases[good], releases[bad], between, tuple(done.values()))


def _middle(good: int, bad: int, unknown: set[int]) -> int | None:
    """The place nearest to the middle between both that is not passed over; None if none is left."""
    left = [place for place in range(good + 1, bad) if place not in unknown]
    return min(left, key=lambda place: (abs(2 * place - good - bad), place), default=None)


def _require_end(step: Step, *, passes: bool) -> None:
    if step.good is not passes:
        said = f"the verdict is {step.verdict} ({step.sentence})"
        raise UsageError(f"--{'good' if passes else 'bad'} {step.release}: {said}; name another release.")


def _read(log: Path, check: str, releases: Sequence[str]) -> dict[str, Step]:
    if not log.is_file():
        return {}
    try:
        document = json.loads(log.read_text(encoding="utf-8"))
        kept, steps = document["check"], [Step(**row) for row in document["steps"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{log} is no log of a search ({error}); remove it, or name another folder.") from None
    if kept != check:
        raise UsageError(f"{log} is a search for {kept}; name another folder by --into.")
    return {step.release: step for step in steps if step.release in releases and step.good is not None}


def _write(log: Path, check: str, releases: Sequence[str], steps: Iterable[Step]) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    rows = [asdict(step) for step in steps]
    write_atomically(log, json.dumps({"check": check, "releases": list(releases), "steps": rows}, indent=1) + "\n")
