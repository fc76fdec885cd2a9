"""The pytest hooks that judge: they turn a check into an outcome, and the outcome into a record.

Under pytest-xdist every worker has a ``Judge``, and the controller has the ``Recorder`` that collects the records.
Reports carry records in ``user_properties``.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from conformance.errors import ObservationError, UsageError
from conformance.evidence.journal import record_to_json
from conformance.judging.catalogue import catalogue
from conformance.judging.check import check_of, judge, outcome_of
from conformance.judging.verdict import ExitCode, Outcome, Record, Verdict
from conformance.observers.moe_oracle import ask_vllm
from conformance.profile.moe_facts import load_moe_facts
from conformance.profile.profile import UNLOCKED
from conformance.reports import checks_table, moe_table, plan
from conformance.reports.progress import Progress
from conformance.run.doctor import require_fit_machine
from conformance.run.options import add_to_pytest, check_values
from conformance.run.plan_run import plan_run
from conformance.run.prefetch import Prefetch
from conformance.run.recorder import PROPERTY, Recorder, record_of
from conformance.run.refusal import REFUSALS, report_refusal
from conformance.run.session import Options, Session, open_session
from conformance.serving.attach import AttachedServers
from conformance.serving.machine import look_at_machine
from conformance.serving.pool import ServerPool
from conformance.serving.processes import end_with
from conformance.views.moe_oracle import MoeOracle

QUIET = -2
PYTEST_OUTCOMES = {Verdict.PASS: "passed", Verdict.UNSUPPORTED: "skipped", Verdict.WAIVED: "skipped"}
LATER = "later than the evidence"
YELLOW = (Verdict.INCONCLUSIVE, Verdict.UNSUPPORTED, Verdict.WAIVED)

OUTCOME = pytest.StashKey[Outcome]()
SETUP_SECONDS = pytest.StashKey[float]()


class Judge:
    """Judges the checks that this process runs. The fixtures in conftest return its ``session`` and ``servers``."""

    def __init__(self, session: Session, servers: ServerPool) -> None:
        self.session = session
        self.servers = servers

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Sort the checks by cost; leave out those above the level and those that the recording run left out."""
        restarts = self.session.profile.hardware.sweep == "restart"

        def place(item: pytest.Item) -> tuple[bool, int, str]:
            check = check_of(item)
            return (restarts and check.swept, *check.order) if check else (False, -1, "")

        items.sort(key=place)
        others = [item for item in items if (check := check_of(item)) and not self.session.asks_for(check)]
        if others:
            config.hook.pytest_deselected(items=others)
            items[:] = [item for item in items if item not in others]

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        """Judge a check instead of only calling it; pytest calls all other tests."""
        if check_of(pyfuncitem) is None:
            return None
        names = pyfuncitem._fixtureinfo.argnames
        pyfuncitem.stash[OUTCOME] = judge(pyfuncitem.obj, {name: pyfuncitem.funcargs[name] for name in names})
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Turn the outcome of a check, or the exception that prevented it, into a record."""
        report = yield
        check = check_of(item)
        if check is None or call.when == "teardown":
            return report
        if call.when == "setup":
            item.stash[SETUP_SECONDS] = call.duration
            if call.excinfo is None:
                return report
            outcome, seconds = outcome_of(call.excinfo.value), call.duration
        else:
            outcome, seconds = item.stash[OUTCOME], call.duration + item.stash[SETUP_SECONDS]
        if self.session.came_later(check, outcome):
            report.outcome, report.longrepr = "skipped", _skipped(report, LATER)
            report.user_properties.append((LATER, True))
            return report
        record = self.session.record(check, outcome, seconds)
        report.outcome = PYTEST_OUTCOMES.get(record.verdict, "failed")  # type: ignore[assignment]
        report.longrepr = _longrepr(record, report)
        report.user_properties.append((PROPERTY, record_to_json(record)))
        return report


def pytest_addoption(parser: pytest.Parser) -> None:
    """Give pytest the options of a run."""
    add_to_pytest(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Refuse bad values; ``--list-checks``, ``--moe-table`` and ``--plan`` print their table and end pytest."""
    try:
        check_values(config.option)
    except UsageError as error:
        return report_refusal(error)
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "worksteal"  # checks take very different times: idle workers take checks from busy ones
    for wanted, show in (("list_checks", _show_checks), ("moe_table", _show_moe_table), ("plan", _show_plan)):
        if getattr(config.option, wanted):
            try:
                show(config)
            except REFUSALS as error:
                return report_refusal(error)
            return ExitCode.QUALIFIED
    return None


def _show_checks(_config: pytest.Config) -> None:
    print(checks_table.as_text(catalogue()), end="")


def _show_moe_table(_config: pytest.Config) -> None:
    print(moe_table.as_text(MoeOracle.of(ask_vllm(), load_moe_facts().expected)), end="")


def _show_plan(config: pytest.Config) -> None:
    print(plan.as_text(*plan_run(config.option)), end="")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Resolve the options; bad input ends the run with one sentence and exit code 2."""
    if config.option.collectonly:
        return
    if config.option.verbose <= 0:
        # Only the table is shown: no dots, no header, no line of counts, no warnings.
        config.option.verbose, config.option.disable_warnings = QUIET, True
    workerinput: dict[str, Any] | None = getattr(config, "workerinput", None)
    progress, owns = _progress(config, silent=workerinput is not None), workerinput is None
    if workerinput is not None:
        end_with(workerinput["owner"])  # else it would go on, and start servers that nobody ends
    try:
        session = open_session(_options(config, workerinput), config.invocation_params.dir)
        if owns and session.evidence.recording:
            if session.starts_servers_here:
                require_fit_machine(look_at_machine(session.evidence.directory), session.profile)
            session.evidence.own()
        servers = _servers(session, progress, owns)
    except UsageError as error:
        pytest.exit(str(error), ExitCode.USAGE)
    except ObservationError as error:
        pytest.exit(error.sentence, ExitCode.INSTRUMENT)
    config.pluginmanager.register(Judge(session, servers), "conformance-judge")
    if owns:
        config.pluginmanager.register(Prefetch(session, servers), "conformance-prefetch")
        config.pluginmanager.register(Recorder(session, servers, progress, config.option.show), "conformance-recorder")


def pytest_report_teststatus(
    report: pytest.TestReport, config: pytest.Config
) -> tuple[str, str, str | tuple[str, dict[str, bool]]] | None:
    """Count a check under its verdict; show single checks only if pytest is verbose."""
    if (LATER, True) in report.user_properties:
        return LATER, "", "" if config.option.verbose == QUIET else LATER.upper()
    record = record_of(report)
    if record is None:
        return None
    if config.option.verbose == QUIET:
        return record.verdict, "", ""
    return record.verdict, record.verdict[0], (record.verdict, {_colour(record.verdict): True})


def _colour(verdict: Verdict) -> str:
    if verdict is Verdict.PASS:
        return "green"
    return "yellow" if verdict in YELLOW else "red"


def _options(config: pytest.Config, workerinput: dict[str, Any] | None) -> Options:
    option = config.option
    directory = workerinput["evidence"] if workerinput else option.evidence
    return Options(
        hardware=option.hardware,
        pair=option.pair,
        level=option.level,
        minutes=option.minutes,
        evidence=config.invocation_params.dir / Path(directory) if directory else None,
        resume=config.invocation_params.dir / option.resume if option.resume and not workerinput else None,
        recorded_only=option.recorded_only,
        certify=option.certify,
        attach=option.attach,
        attach_plain=option.attach_plain,
        model=option.model,
        image=option.image,
        container=option.container,
        ssh=option.ssh,
        ssh_python=option.ssh_python,
        reports=not option.no_reports,
        environment=UNLOCKED if option.unlocked else os.environ.get("CONFORMANCE_ENV"),
        dataset=config.invocation_params.dir / option.dataset if option.dataset else None,
        task_set=config.invocation_params.dir / option.task_set if option.task_set else None,
    )


def _servers(session: Session, progress: Progress, owns: bool) -> ServerPool:
    """The attached servers, or the pool of servers that the suite starts."""
    profile, evidence = session.profile, session.evidence
    if session.attached:
        return AttachedServers(profile, evidence, session.attached, owns=owns)
    together = profile.level == "qualify"
    return ServerPool(profile, evidence, progress, owns=owns, together=together, executor=session.executor)


def _longrepr(record: Record, report: pytest.TestReport) -> Any:
    """What pytest itself shows for a verdict, for example in its own ``--junitxml``; it has no traceback."""
    message = f"{record.verdict} {record.id}: {record.sentence}"
    if report.outcome == "skipped":
        return _skipped(report, message)
    return None if report.outcome == "passed" else message


def _skipped(report: pytest.TestReport, message: str) -> tuple[str, int, str]:
    return report.location[0], report.location[1] or 0, f"Skipped: {message}"


def _progress(config: pytest.Config, silent: bool) -> Progress:
    """A status line on pytest's uncaptured output; workers and a verbose pytest have none."""
    if silent or config.option.verbose > 0 or getattr(config.option, "quiet", 0):
        return Progress(lambda _: None, terminal=False)
    manager = config.pluginmanager

    def write(text: str) -> None:
        reporter, capture = manager.get_plugin("terminalreporter"), manager.get_plugin("capturemanager")
        if reporter is not None and capture is not None:
            with capture.global_and_fixture_disabled():
                reporter.write(text, flush=True)

    return Progress(write, terminal=sys.stdout.isatty(), width=shutil.get_terminal_size().columns)
