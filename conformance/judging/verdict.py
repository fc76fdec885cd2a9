"""Verdicts: the six words, what a check found, and the sentence and exit code of a whole run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from conformance.judging.stats import Estimate

UNQUALIFYING = ("static", "smoke", "soak", "k-by-batch")  # levels that do not measure all that a qualification needs
NO_FLOOR = "no floor"  # shown by a finding without a floor
FLOORED = ("ACC-01", "SPEED-01")  # without floors for these, a run measures its hardware but does not qualify it


class Verdict(StrEnum):
    """The result of a check."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    UNSUPPORTED = "UNSUPPORTED"
    WAIVED = "WAIVED"
    ERROR = "ERROR"


class ExitCode(IntEnum):
    """The exit code of a run, the same for ``pytest conformance/`` and for the command."""

    QUALIFIED = 0
    NOT_QUALIFIED = 1
    USAGE = 2
    INCONCLUSIVE = 3
    INSTRUMENT = 4
    NOTHING = 5


@dataclass(frozen=True)
class Finding:
    """One comparison of a check: the value, the floor, and the file that the value was read from."""

    verdict: Verdict
    sentence: str
    value: str
    floor: str
    n: int | None = None
    interval: tuple[float, float] | None = None
    source: str = ""
    note: str = ""
    kind: str = ""  # of what is wrong, where a check tells kinds apart; a waiver may name it
    power: str = ""  # which true value it fails with probability 0.95, where samples decide


@dataclass(frozen=True)
class Diagnosis:
    """A known failure whose signature matches what a check found."""

    id: str
    upstream: str
    advice: str


@dataclass(frozen=True)
class Outcome:
    """The result of judging one check, before waivers: the verdict, its sentence and the findings."""

    verdict: Verdict
    sentence: str
    findings: tuple[Finding, ...] = ()
    details: str = ""
    recorded: bool = True  # False if the evidence does not hold the observation of the check


@dataclass(frozen=True)
class Record:
    """One row of the verdict table."""

    id: str
    claim: str
    level: str
    verdict: Verdict
    sentence: str
    seconds: float
    findings: tuple[Finding, ...] = ()
    details: str = ""
    upstream: str = ""
    diagnoses: tuple[Diagnosis, ...] = ()
    waiver: str = ""
    severity: str = ""  # empty in evidence of earlier versions
    response: str = ""  # one of judging/response.py


@dataclass(frozen=True)
class Run:
    """Everything that a report needs: the hardware and pair, the checks, and their results."""

    hardware: str
    pair: str
    level: str
    evidence: str
    expected: tuple[str, ...]
    records: tuple[Record, ...]
    problems: tuple[str, ...] = ()
    certify: bool = False
    complete: bool = True
    unlocked: bool = False  # whether the installed versions were not compared with a lock

    def with_verdict(self, *verdicts: Verdict) -> tuple[Record, ...]:
        """The records that carry one of these verdicts, in the order of the table."""
        return tuple(record for record in self.records if record.verdict in verdicts)

    def not_passed(self) -> list[tuple[Record, ...]]:
        """The records that did not pass; records with the same message are grouped."""
        groups: dict[tuple[object, ...], list[Record]] = {}
        for record in self.records:
            if record.verdict is not Verdict.PASS:
                same = (record.verdict, record.sentence, record.details, record.diagnoses, record.waiver)
                groups.setdefault(same, []).append(record)
        return [tuple(group) for group in groups.values()]


@dataclass(frozen=True)
class Judgement:
    """One sentence and one exit code for a run."""

    exit_code: ExitCode
    sentence: str


def decide(estimate: Estimate, floor: float) -> Verdict:
    """PASS if the whole interval reaches the floor, FAIL if the whole interval misses it, else INCONCLUSIVE."""
    if estimate.low >= floor:
        return Verdict.PASS
    return Verdict.FAIL if estimate.high < floor else Verdict.INCONCLUSIVE


def worst(findings: Sequence[Finding]) -> Verdict:
    """The verdict of a check with several findings; UNSUPPORTED only if none of them has a floor."""
    verdicts = {finding.verdict for finding in findings}
    order = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS, Verdict.UNSUPPORTED)
    return next(verdict for verdict in order if verdict in verdicts)


def judge_run(run: Run) -> Judgement:
    """The judgement of a run; its sentence names every check that did not pass.

    A FAIL outranks an ERROR, because a FAIL remains after the cause of the ERROR is repaired.
    """
    rest = "; ".join(_phrases(run))
    if run.with_verdict(Verdict.FAIL):
        return Judgement(ExitCode.NOT_QUALIFIED, f"Not qualified: {rest}.")
    if run.with_verdict(Verdict.ERROR) or run.problems:
        return Judgement(ExitCode.INSTRUMENT, f"Not judged: {rest}.")
    if run.with_verdict(Verdict.INCONCLUSIVE):
        return Judgement(ExitCode.INCONCLUSIVE, f"Inconclusive: {rest}.")
    if len(run.with_verdict(Verdict.UNSUPPORTED)) == len(run.records):
        return Judgement(ExitCode.NOTHING, f"Nothing was inspected{': ' if rest else ''}{rest}.")
    if run.certify and (lacks := _missing_for_certificate(run)):
        return Judgement(ExitCode.NOT_QUALIFIED, f"Not certified: {'; '.join([*lacks, *_phrases(run)])}.")
    return Judgement(ExitCode.QUALIFIED, f"{_success(run)}{'; ' if rest else ''}{rest}.")


def _phrases(run: Run) -> list[str]:
    phrases = {
        Verdict.FAIL: "{} failed",
        Verdict.ERROR: "{} could not be judged",
        Verdict.INCONCLUSIVE: "more samples needed for {}",
        Verdict.UNSUPPORTED: "{} unsupported",
        Verdict.WAIVED: "{} waived",
    }
    measured = _checks_without_floor(run)
    named = {
        verdict: ", ".join(record.id for record in run.with_verdict(verdict) if record.id not in measured)
        for verdict in phrases
    }
    return [
        *(words.format(named[verdict]) for verdict, words in phrases.items() if named[verdict]),
        *([f"no floor for {', '.join(measured)}"] if measured else []),
        *(["the environment is unlocked"] if run.unlocked else []),
        *run.problems,
    ]


def _checks_without_floor(run: Run) -> list[str]:
    """The checks that measured something for which there is no floor."""
    unsupported = run.with_verdict(Verdict.UNSUPPORTED)
    return [each.id for each in unsupported if any(found.floor == NO_FLOOR for found in each.findings)]


def _success(run: Run) -> str:
    subject, ran, asked = f"{run.pair} on {run.hardware}", len(run.records), len(run.expected)
    if ran < asked:
        return f"Passed, but no qualification: only {ran} of the {asked} checks of level {run.level} ran for {subject}"
    passed = f"{len(run.with_verdict(Verdict.PASS))} of {asked} checks passed"
    if run.level in UNQUALIFYING:
        return f"Passed at level {run.level}, which is no qualification: {subject}, {passed}"
    if set(FLOORED) & set(_checks_without_floor(run)):
        return f"Passed, but no qualification without floors of acceptance and speed: {subject}, {passed}"
    return f"{'Certified' if run.certify else 'Qualified'}: {subject}, {passed}"


def _missing_for_certificate(run: Run) -> list[str]:
    """Why a run without a bad verdict gets no certificate, in addition to ``_phrases``."""
    missing = [id for id in run.expected if id not in {record.id for record in run.records}]
    lacks = [f"{', '.join(missing)} did not run"] if missing else []
    if run.level in UNQUALIFYING:
        lacks.append(f"level {run.level} is no qualification")
    if run.with_verdict(Verdict.UNSUPPORTED, Verdict.WAIVED):
        lacks.append("a certificate allows nothing unsupported, waived or without a floor")
    return lacks
