"""What one session of judging knows: the profile, the evidence, the waivers, and the verdicts so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

from conformance import FIXTURES
from conformance.errors import UsageError
from conformance.evidence.folder import (
    MANIFEST,
    Evidence,
    Header,
    is_finished,
    is_free,
    new_header,
    read_header,
    sha256,
    verify,
)
from conformance.evidence.journal import JOURNAL, read_journal
from conformance.evidence.redaction import redact_text
from conformance.judging import waivers as waiving
from conformance.judging.catalogue import at_level, catalogue
from conformance.judging.check import Check
from conformance.judging.diagnose import KnownFailure, diagnose, load_known_failures
from conformance.judging.verdict import Diagnosis, Finding, Outcome, Record, Run, Verdict
from conformance.judging.waivers import Waiver, load_waivers
from conformance.profile import gpus
from conformance.profile.profile import (
    UNLOCKED,
    Profile,
    every_hardware,
    load_profile,
    profile_to_json,
    read_profile,
    with_soak_minutes,
)
from conformance.serving.attach import Attachment, attachment
from conformance.serving.executor_options import (
    check_options,
    choose_executor,
    describe_executor,
    prepare_executor,
    record_executor,
    require_same_image,
)
from conformance.serving.executors import HERE, Executor
from conformance.serving.installed import installed_here
from conformance.workload.dataset import load_dataset, write_prompts
from conformance.workload.prompts import Prompt

DEFAULT_PAIR = "micro-26b-a4b-nvfp4"
DEFAULT_LEVEL = "qualify"


@dataclass(frozen=True)
class Options:
    """What was asked for; an absent answer is the evidence's own, or else the embedded default."""

    hardware: str | None = None
    pair: str | None = None
    level: str | None = None
    minutes: float | None = None  # how long a soak lasts
    evidence: Path | None = None
    resume: Path | None = None  # evidence that a run left unfinished
    recorded_only: bool = False
    certify: bool = False
    reports: bool = True
    dataset: Path | None = None
    environment: str | None = None
    attach: str | None = None
    attach_plain: str | None = None
    model: str | None = None
    image: str | None = None
    container: str | None = None
    ssh: str | None = None
    ssh_python: str | None = None


@dataclass(frozen=True)
class Session:
    """Everything that turns outcomes into records and records into a run."""

    profile: Profile
    evidence: Evidence
    header: Header
    certify: bool
    waivers: tuple[Waiver, ...]
    known_failures: tuple[KnownFailure, ...]
    checks: tuple[Check, ...]
    today: date
    dataset: tuple[Prompt, ...] = ()  # to be written down when the evidence begins
    attached: Attachment | None = None  # servers that somebody else runs; None where the suite starts its own
    place: Executor = HERE  # where the suite starts its own
    reports: bool = True  # whether judging writes them
    recorded: Run | None = None  # the run that recorded this evidence to its end

    def begin(self) -> None:
        """Make the evidence, with the prompts of the data set if there is one."""
        self.evidence.begin(self.header, profile_to_json(self.profile))
        if self.dataset:
            write_prompts(list(self.dataset), self.evidence.prompts, FIXTURES / "prompts")

    def asks_for(self, check: Check) -> bool:
        """Whether the session's level runs this check, and the run that recorded the evidence did not leave it out."""
        recorded = self.recorded
        if recorded and check.id in recorded.expected and check.id not in {record.id for record in recorded.records}:
            return False
        return check in at_level(self.checks, self.profile.level)

    def came_later(self, check: Check, outcome: Outcome) -> bool:
        """Whether the check asks for what was not observed when this evidence was recorded, since nobody knew it."""
        return not outcome.recorded and self.recorded is not None and check.id not in self.recorded.expected

    def record(self, check: Check, outcome: Outcome, seconds: float) -> Record:
        """An outcome as a row of the table: diagnosed where it did not pass, then waived where that is allowed."""
        diagnoses: tuple[Diagnosis, ...] = ()
        if outcome.verdict not in (Verdict.PASS, Verdict.UNSUPPORTED) and outcome.recorded:
            text = "\n".join([outcome.sentence, outcome.details, self.evidence.log_tails()])
            diagnoses = diagnose(check.id, text, self.known_failures, self.header.vllm)
        record = Record(
            id=check.id,
            claim=check.claim,
            level=check.level,
            verdict=outcome.verdict,
            sentence=redact_text(outcome.sentence),
            seconds=seconds,
            findings=tuple(self._publishable(finding) for finding in outcome.findings),
            details=redact_text(outcome.details),
            upstream=check.upstream,
            diagnoses=diagnoses,
        )
        return waiving.apply(record, self.waivers, self.today)

    def run(self, records: Sequence[Record] = (), problems: Sequence[str] = ()) -> Run:
        """The run so far, in the order of the catalogue, with the problems of its waivers and of its evidence."""
        known = {check.id for check in self.checks}
        places = {check.id: check.order for check in self.checks}
        stale, cut_short = waiving.problems(self.waivers, records, known, self.today), self._cut_short()
        return Run(
            hardware=self.profile.hardware.name,
            pair=self.profile.pair.name,
            level=self.profile.level,
            evidence=str(self.evidence.directory),
            expected=tuple(check.id for check in at_level(self.checks, self.profile.level)),
            records=tuple(sorted(records, key=lambda record: places.get(record.id, (len(places), record.id)))),
            problems=tuple(map(redact_text, (*problems, *cut_short, *stale))),
            certify=self.certify,
            complete=not cut_short,
            unlocked=self.profile.hardware.locked_environment == UNLOCKED,
        )

    def _publishable(self, finding: Finding) -> Finding:
        """Without secrets, and with its source as this evidence names it."""
        return replace(
            finding,
            sentence=redact_text(finding.sentence),
            value=redact_text(finding.value),
            floor=redact_text(finding.floor),
            source=self.evidence.recorded_as(finding.source),
            note=redact_text(finding.note),
        )

    def _cut_short(self) -> list[str]:
        """That the recording which is judged never came to its end; whatever its last steps would say is missing."""
        directory = self.evidence.directory
        if self.evidence.recording or is_finished(directory):
            return []
        mend = f"scripts/qualify --resume {directory} finishes it"
        return [f"the run did not finish: {directory} has no {MANIFEST} ({mend})"]


def open_session(options: Options, cwd: Path, fixtures: Path = FIXTURES) -> Session:
    """Resolve what was asked for; nothing is written yet.

    Raises UsageError for options that name nothing or contradict the evidence, and ObservationError for finished
    evidence that its manifest does not confirm.
    """
    options = _resumed(options) if options.resume else options
    options = replace(options, hardware=_absolute(options.hardware, cwd), pair=_absolute(options.pair, cwd))
    check_options(options, options.attach)
    asked = attachment(options.attach, options.attach_plain, options.model)
    recorded = _recorded(options, asked)
    header = recorded or _new_header(options, asked, fixtures)
    attached = attachment(header.attached, header.attached_plain, header.attached_model)
    prompts = tuple(load_dataset(options.dataset)) if options.dataset and not recorded else ()
    if prompts and options.dataset:
        header = replace(header, dataset=str(options.dataset), dataset_sha256=sha256(options.dataset))
    profile = _profile(options, header)
    if options.minutes is not None:
        profile = _held_for(profile, options.minutes, options.evidence if recorded else None)
    if header.environment:
        profile = replace(profile, hardware=replace(profile.hardware, locked_environment=header.environment))
    if asked and not profile.has_servers:
        raise UsageError(f"--level {profile.level} asks no server: leave out --attach, or choose another level.")
    if attached:
        profile = replace(profile, hardware=replace(profile.hardware, two_servers=attached.plain_url is not None))
    directory = options.evidence or cwd / "evidence" / _directory_name(header, profile)
    if header.dataset:
        profile = replace(profile, prompts=Evidence(directory, recording=False).prompts)
    recording = not (is_finished(directory) or options.recorded_only)
    place = choose_executor(header) if recording and not attached else HERE
    if recording and recorded:
        _must_be_the_same(directory, recorded, attached, place)
    if recording and not attached:
        place = prepare_executor(place, profile)  # a pair that is not here is bad input
    elif is_finished(directory):
        verify(directory)
    waivers = () if options.certify else load_waivers(fixtures / "waivers")
    return Session(
        profile=profile,
        evidence=Evidence(directory, recording=recording),
        header=header,
        certify=options.certify,
        waivers=tuple(w for w in waivers if w.applies(profile.hardware.name, profile.pair.name, header.vllm)),
        known_failures=load_known_failures(fixtures / "known_failures"),
        checks=catalogue(),
        today=datetime.now(UTC).date(),
        dataset=prompts,
        attached=attached,
        place=place,
        reports=options.reports,
        recorded=_recording_run(directory),
    )


def _recording_run(directory: Path) -> Run | None:
    """The run of a finished recording; None where it is not finished, or has no journal to tell."""
    path = directory / JOURNAL
    return read_journal(path) if is_finished(directory) and path.is_file() else None


def detect_hardware() -> str:
    """The hardware profile of this machine; UsageError where it is not clear."""
    return gpus.hardware_of(gpus.look(), every_hardware())


def new_header_here(hardware: str, pair: str, level: str, environment: str | None = None) -> Header:
    """The header of a run that starts now, with the vLLM and the suite that this Python has."""
    installed = installed_here()
    return new_header(hardware, pair, level, vllm=installed.vllm, suite=installed.suite, environment=environment)


def _new_header(options: Options, attached: Attachment | None, fixtures: Path) -> Header:
    """The header of a run that starts now; of attached servers it has the address, and their own version of vLLM."""
    if options.ssh and not options.hardware:
        raise UsageError(f"--ssh {options.ssh} is another machine: say by --hardware NAME which, as floors want.")
    seen = gpus.ELSEWHERE if options.ssh else gpus.look()
    if attached and not attached.local and not options.hardware:
        raise UsageError(f"--attach {attached.url} is another machine: say by --hardware NAME which, as floors want.")
    header = replace(
        new_header_here(
            options.hardware or gpus.hardware_of(seen, every_hardware(fixtures)),
            options.pair or DEFAULT_PAIR,
            options.level or DEFAULT_LEVEL,
            options.environment,
        ),
        hardware_asked=options.hardware,
        hardware_detected=str(seen),
    )
    if attached is None:
        return record_executor(header, choose_executor(options), options.environment)
    return replace(
        header,
        vllm=attached.version(),
        attached=attached.url,
        attached_plain=attached.plain_url,
        attached_model=attached.model,
    )


def _resumed(options: Options) -> Options:
    """The same with the evidence to go on with; UsageError where there is nothing to go on with."""
    directory = options.resume
    assert directory
    for name in ("evidence", "hardware", "pair", "level", "minutes", "dataset"):
        if getattr(options, name) is not None:
            raise UsageError(f"{directory} is gone on with as it was begun: leave out --{name}.")
    read_header(directory)
    if is_finished(directory):
        raise UsageError(
            f'{directory} is finished, so nothing is left to observe: judge it with "rejudge {directory}".'
        )
    return replace(options, evidence=directory)


def _must_be_the_same(directory: Path, header: Header, attached: Attachment | None, place: Executor) -> None:
    """What one run sees is of one vLLM and one suite, or its header would be wrong; raises UsageError."""
    require_same_image(header, place)
    # An attached server that does not answer is no other.
    vllm = (attached.version() or header.vllm) if attached else place.installed().vllm
    suite = installed_here().suite or "not installed"
    for word, recorded, present in (("vLLM", header.vllm, vllm), ("suite", header.suite, suite)):
        if recorded != present:
            mend = f"install {recorded}, or record anew" if recorded else "record anew"
            was = f"{word} {recorded}" if recorded else f"no {word}"
            raise UsageError(f"{directory} was recorded with {was}, and {present or 'none'} is installed: {mend}.")


def _profile(options: Options, header: Header) -> Profile:
    """What the evidence keeps of its profile, wherever its files are by now; else what fixtures say."""
    level = options.level or header.level
    if options.evidence and (kept := Evidence(options.evidence, recording=False).profile).is_file():
        return read_profile(kept, level)
    return load_profile(header.hardware, header.pair, level)


def _held_for(profile: Profile, minutes: float, recorded: Path | None) -> Profile:
    """The soak of so many minutes; what is recorded is as long as it is."""
    asked = with_soak_minutes(profile, minutes)
    if recorded and asked != profile:
        lasted = f"--minutes {profile.sizes.soak_minutes:g}"
        raise UsageError(f"{recorded} was recorded with {lasted}: leave out --minutes {minutes:g}.")
    return asked


def _absolute(name: str | None, cwd: Path) -> str | None:
    """A TOML file by its full path, so that the evidence can be judged from anywhere; names stay as they are."""
    return str((cwd / name).resolve()) if name and name.endswith(".toml") else name


def _recorded(options: Options, attached: Attachment | None) -> Header | None:
    """The header of the evidence that was named, if it holds any; options must not contradict it."""
    if options.evidence is None:
        return None
    if not options.recorded_only and is_free(options.evidence):
        return None
    header = read_header(options.evidence)
    for name in ("hardware", "pair"):
        asked, seen = getattr(options, name), getattr(header, name)
        if asked not in (None, seen):
            raise UsageError(f"{options.evidence} was recorded with --{name} {seen}: leave out --{name} {asked}.")
    where = attachment(header.attached, header.attached_plain, header.attached_model)
    if attached not in (None, where):
        seen = f"--attach {header.attached}" if where else describe_executor(header)
        raise UsageError(f"{options.evidence} was recorded with {seen}: leave out --attach {options.attach}.")
    if describe_executor(options) not in (describe_executor(header), describe_executor(Options())):
        raise UsageError(
            f"{options.evidence} was recorded with {describe_executor(header)}: leave out {describe_executor(options)}."
        )
    if options.dataset and _another_dataset(options.dataset, header):
        raise UsageError(
            f"{options.evidence} was recorded with {_dataset(header)}: leave out --dataset {options.dataset}."
        )
    return header


def _another_dataset(asked: Path, header: Header) -> bool:
    return not asked.is_file() or sha256(asked) != header.dataset_sha256


def _dataset(header: Header) -> str:
    return f"--dataset {header.dataset}" if header.dataset else "the suite's own prompts"


def _directory_name(header: Header, profile: Profile) -> str:
    stamp = header.started.replace("-", "").replace(":", "")
    return f"{stamp}-{profile.hardware.name}-{profile.pair.name}"
