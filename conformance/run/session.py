"""One session: its profile, evidence, waivers and checks, and how it turns outcomes into a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from conformance.workload.prompts import MIXED, Prompt
from conformance.workload.questions import QUESTIONS, Question
from conformance.workload.task_set import load_task_set

DEFAULT_PAIR = "micro-26b-a4b-nvfp4"
DEFAULT_LEVEL = "qualify"


@dataclass(frozen=True)
class Options:
    """The options of a run. For a missing option, the recorded evidence or else a default decides."""

    hardware: str | None = None
    pair: str | None = None
    level: str | None = None
    minutes: float | None = None  # length of a soak
    evidence: Path | None = None
    resume: Path | None = None  # evidence of an unfinished run
    recorded_only: bool = False
    certify: bool = False
    reports: bool = True
    dataset: Path | None = None
    task_set: Path | None = None
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
    """Turns outcomes into records and records into a run."""

    profile: Profile
    evidence: Evidence
    header: Header
    certify: bool
    waivers: tuple[Waiver, ...]
    known_failures: tuple[KnownFailure, ...]
    checks: tuple[Check, ...]
    today: date
    prompts: Mapping[str, Sequence[Prompt | Question]] = field(default_factory=dict)  # the user's own, by file name
    attached: Attachment | None = None  # servers that somebody else runs; None if the suite starts its own
    executor: Executor = HERE  # it runs the servers that the suite starts
    reports: bool = True  # whether to write reports
    recorded: Run | None = None  # the run that recorded this evidence, if it finished

    @property
    def starts_servers_here(self) -> bool:
        """Whether this machine's own Python starts the servers."""
        return self.attached is None and self.executor is HERE

    def begin(self) -> None:
        """Create the evidence, with the user's own prompts if there are any."""
        self.evidence.begin(self.header, profile_to_json(self.profile))
        if self.prompts:
            write_prompts(self.prompts, self.evidence.prompts, FIXTURES / "prompts")

    def asks_for(self, check: Check) -> bool:
        """Whether the session's level runs this check and the recording run did not leave it out."""
        recorded = self.recorded
        if recorded and check.id in recorded.expected and check.id not in {record.id for record in recorded.records}:
            return False
        return check in at_level(self.checks, self.profile.level)

    def came_later(self, check: Check, outcome: Outcome) -> bool:
        """Whether the check is newer than the evidence and needs an observation that the evidence lacks."""
        return not outcome.recorded and self.recorded is not None and check.id not in self.recorded.expected

    def record(self, check: Check, outcome: Outcome, seconds: float) -> Record:
        """The record of an outcome: diagnosed by what no waiver allows if it did not pass, and waived if one does."""
        diagnoses: tuple[Diagnosis, ...] = ()
        if outcome.verdict not in (Verdict.PASS, Verdict.UNSUPPORTED) and outcome.recorded:
            fails = waiving.what_fails(outcome, check.id, self.waivers, self.today)
            text = "\n".join([fails, outcome.details, self.evidence.log_tails()])
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
            severity=check.severity,
            response=check.response,
        )
        return waiving.apply(record, self.waivers, self.today)

    def run(self, records: Sequence[Record] = (), problems: Sequence[str] = ()) -> Run:
        """The run so far in the order of the catalogue, with the problems of its waivers and its evidence."""
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
        """The finding without secrets, and with its source as the evidence names it."""
        return replace(
            finding,
            sentence=redact_text(finding.sentence),
            value=redact_text(finding.value),
            floor=redact_text(finding.floor),
            source=self.evidence.recorded_as(finding.source),
            note=redact_text(finding.note),
        )

    def _cut_short(self) -> list[str]:
        """The problem that the recording did not finish, or nothing if it did."""
        directory = self.evidence.directory
        if self.evidence.recording or is_finished(directory):
            return []
        mend = f"scripts/qualify --resume {directory} finishes it"
        return [f"the run did not finish: {directory} has no {MANIFEST} ({mend})"]


def open_session(options: Options, cwd: Path, fixtures: Path = FIXTURES) -> Session:
    """Resolve the options into a session, without writing anything.

    Raises:
        UsageError: an option names something that does not exist, or contradicts the evidence.
        ObservationError: finished evidence does not match its manifest.
    """
    options = _resume(options) if options.resume else options
    options = replace(options, hardware=_absolute(options.hardware, cwd), pair=_absolute(options.pair, cwd))
    check_options(options, options.attach)
    asked = attachment(options.attach, options.attach_plain, options.model)
    recorded = _recorded(options, asked)
    header = recorded or _new_header(options, asked, fixtures)
    attached = attachment(header.attached, header.attached_plain, header.attached_model)
    prompts = {} if recorded else _own_prompts(options)
    header = header if recorded else _with_files(header, options)
    profile = _resolve_profile(options, header, attached, recorded is not None)
    if asked and not profile.has_servers:
        raise UsageError(f"--level {profile.level} needs no server: leave out --attach, or choose another level.")
    directory = options.evidence or cwd / "evidence" / _directory_name(header, profile)
    if header.dataset or header.task_set:
        profile = replace(profile, prompts=Evidence(directory, recording=False).prompts)
    recording = not (is_finished(directory) or options.recorded_only)
    executor = _open_executor(directory, header, attached, profile, resumed=recorded is not None) if recording else HERE
    if is_finished(directory):
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
        prompts=prompts,
        attached=attached,
        executor=executor,
        reports=options.reports,
        recorded=_recording_run(directory),
    )


def _own_prompts(options: Options) -> dict[str, Sequence[Prompt | Question]]:
    """The prompts of the user's files, by the names of the files that they replace.

    Raises:
        UsageError: a file is wrong.
    """
    found: dict[str, Sequence[Prompt | Question]] = {}
    if options.dataset:
        found[MIXED] = load_dataset(options.dataset)
    if options.task_set:
        found[QUESTIONS] = load_task_set(options.task_set)
    return found


def _with_files(header: Header, options: Options) -> Header:
    """The header with the user's files and their hashes."""
    if path := options.dataset:
        header = replace(header, dataset=str(path), dataset_sha256=sha256(path))
    if path := options.task_set:
        header = replace(header, task_set=str(path), task_set_sha256=sha256(path))
    return header


def _resolve_profile(options: Options, header: Header, attached: Attachment | None, recorded: bool) -> Profile:
    """The profile of the options, as the header and attached servers change it."""
    profile = _profile(options, header)
    if options.minutes is not None:
        profile = _with_soak(profile, options.minutes, options.evidence if recorded else None)
    hardware = profile.hardware
    if header.environment:
        hardware = replace(hardware, locked_environment=header.environment)
    if attached:
        hardware = replace(hardware, two_servers=attached.plain_url is not None)
    return replace(profile, hardware=hardware)


def _open_executor(
    directory: Path, header: Header, attached: Attachment | None, profile: Profile, *, resumed: bool
) -> Executor:
    """Where a run that records starts its servers; a resumed run must find the software that it began with."""
    executor = HERE if attached else choose_executor(header)
    if resumed:
        _require_same_software(directory, header, attached, executor)
    return (
        executor if attached else prepare_executor(executor, profile)
    )  # a pair without local checkpoints is bad input


def _recording_run(directory: Path) -> Run | None:
    """The run that recorded finished evidence; None if it is not finished or has no journal."""
    path = directory / JOURNAL
    return read_journal(path) if is_finished(directory) and path.is_file() else None


def detect_hardware() -> str:
    """The hardware profile of this machine.

    Raises:
        UsageError: no profile matches, or several do.
    """
    return gpus.hardware_of(gpus.look(), every_hardware())


def new_header_here(hardware: str, pair: str, level: str, environment: str | None = None) -> Header:
    """The header of a run that starts now, with the vLLM and the suite of this Python."""
    installed = installed_here()
    return new_header(hardware, pair, level, vllm=installed.vllm, suite=installed.suite, environment=environment)


def _new_header(options: Options, attached: Attachment | None, fixtures: Path) -> Header:
    """The header of a run that starts now; for attached servers it has their address and their version of vLLM.

    Raises:
        UsageError: the hardware is not clear.
    """
    if options.ssh and not options.hardware:
        raise UsageError(f"--ssh {options.ssh} is another machine: name its hardware by --hardware NAME.")
    seen = gpus.ELSEWHERE if options.ssh else gpus.look()
    if attached and not attached.local and not options.hardware:
        raise UsageError(f"--attach {attached.url} is another machine: name its hardware by --hardware NAME.")
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


def _resume(options: Options) -> Options:
    """The options with the evidence to resume.

    Raises:
        UsageError: the evidence is finished, or an option contradicts it.
    """
    directory = options.resume
    assert directory
    for name in ("evidence", "hardware", "pair", "level", "minutes", "dataset", "task_set"):
        if getattr(options, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"--resume {directory} keeps the options of the first run: leave out {flag}.")
    read_header(directory)
    if is_finished(directory):
        raise UsageError(
            f'{directory} is finished, so there is nothing to resume: judge it with "rejudge {directory}".'
        )
    return replace(options, evidence=directory)


def _require_same_software(directory: Path, header: Header, attached: Attachment | None, executor: Executor) -> None:
    """Require the vLLM and the suite that the header names, because one run uses only one version of each.

    Raises:
        UsageError: another vLLM, suite or image is installed now.
    """
    require_same_image(header, executor)
    # An attached server that does not answer counts as unchanged.
    vllm = (attached.version() or header.vllm) if attached else executor.installed().vllm
    suite = installed_here().suite or "not installed"
    for word, recorded, present in (("vLLM", header.vllm, vllm), ("suite", header.suite, suite)):
        if recorded != present:
            mend = f"install {recorded}, or start a new run" if recorded else "start a new run"
            was = f"{word} {recorded}" if recorded else f"no {word}"
            raise UsageError(f"{directory} was recorded with {was}, but {present or 'none'} is installed: {mend}.")


def _profile(options: Options, header: Header) -> Profile:
    """The profile that the evidence keeps, or else the one in the fixtures or TOML files."""
    level = options.level or header.level
    if options.evidence and (kept := Evidence(options.evidence, recording=False).profile).is_file():
        return read_profile(kept, level)
    return load_profile(header.hardware, header.pair, level)


def _with_soak(profile: Profile, minutes: float, recorded: Path | None) -> Profile:
    """The profile with a soak of so many minutes.

    Raises:
        UsageError: the evidence was recorded with another length.
    """
    asked = with_soak_minutes(profile, minutes)
    if recorded and asked != profile:
        lasted = f"--minutes {profile.sizes.soak_minutes:g}"
        raise UsageError(f"{recorded} was recorded with {lasted}: leave out --minutes {minutes:g}.")
    return asked


def _absolute(name: str | None, cwd: Path) -> str | None:
    """The full path of a TOML file, so that the evidence can be judged from any folder; a name stays as it is."""
    return str((cwd / name).resolve()) if name and name.endswith(".toml") else name


def _recorded(options: Options, attached: Attachment | None) -> Header | None:
    """The header of the evidence that the options name, if there is one.

    Raises:
        UsageError: an option contradicts the header.
    """
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
    for flag, asked_file, file, digest in (
        ("--dataset", options.dataset, header.dataset, header.dataset_sha256),
        ("--task-set", options.task_set, header.task_set, header.task_set_sha256),
    ):
        if asked_file and (not asked_file.is_file() or sha256(asked_file) != digest):
            seen = f"{flag} {file}" if file else "the suite's own prompts"
            raise UsageError(f"{options.evidence} was recorded with {seen}: leave out {flag} {asked_file}.")
    return header


def _directory_name(header: Header, profile: Profile) -> str:
    stamp = header.started.replace("-", "").replace(":", "")
    return f"{stamp}-{profile.hardware.name}-{profile.pair.name}"
