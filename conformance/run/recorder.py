"""The recorder of a session: collects records, stops the servers, closes the evidence, sets the exit code."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from conformance.errors import ObservationError
from conformance.evidence.folder import BILL, read_header, write_atomically
from conformance.evidence.journal import JOURNAL, Journal, record_from_json
from conformance.judging.verdict import Judgement, Record, Run, judge_run
from conformance.reports.bill_of_materials import bill_of_materials
from conformance.reports.charts import Row
from conformance.reports.junit import junit
from conformance.reports.progress import Progress
from conformance.reports.report import gather
from conformance.reports.report_files import write_reports
from conformance.reports.terminal import SUMMARY, render, screen
from conformance.run import durations
from conformance.run.session import Session
from conformance.serving.pool import ServerPool

PROPERTY = "verdict"


class Recorder:
    """Used in the process that the user started: the only process, or pytest-xdist's controller."""

    def __init__(self, session: Session, servers: ServerPool, progress: Progress, show: str = SUMMARY) -> None:
        self.session = session
        self.servers = servers
        self.progress = progress
        self.show = show
        self.records: list[Record] = []
        self.problems: list[str] = []
        self.journal: Journal | None = None
        self.result: tuple[Run, Judgement] | None = None
        self.figures: tuple[Row, ...] = ()
        self._begin, self._moments = time.monotonic(), list[float]()
        self._resumed = self._interrupted = False
        if session.evidence.recording and (last := durations.load(session.profile)):
            progress.left = lambda elapsed: last.left(len(self.records), elapsed)
        self.where = ""  # the path of the report, or why there is none

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker of pytest-xdist the directory of the evidence, and the process with which it ends."""
        node.workerinput["evidence"], node.workerinput["owner"] = str(self.session.evidence.directory), os.getpid()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Begin the evidence before the first check, and keep whether the checks were interrupted."""
        self._begin_evidence()
        with ExitStack() as stack:
            stack.push(self._keep_interrupt)
            return (yield)

    def _keep_interrupt(self, kind: type[BaseException] | None, *_: object) -> None:
        """Keep an interrupt: a second one may come before pytest has told the exit status of the first.

        pytest renders a traceback first, and ends the session with the exit status 0 if that is interrupted.
        """
        self._interrupted = kind is not None and issubclass(kind, KeyboardInterrupt | pytest.exit.Exception)

    @staticmethod
    def pytest_keyboard_interrupt() -> None:
        """Hide what a second interrupt breaks in objects that are being deleted: pytest would print its traceback."""
        warnings.simplefilter("ignore", pytest.PytestUnraisableExceptionWarning)

    def _begin_evidence(self) -> None:
        evidence = self.session.evidence
        if evidence.recording and not self.problems:
            self._resumed = evidence.begun
            with self._written():
                self.session.begin()
                self.journal = Journal(evidence.directory / JOURNAL)
                self.journal.header(self.session.run())

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Record a problem of the instrument if a check file cannot be imported."""
        if report.failed:
            self.problems.append(f"{report.nodeid} cannot be collected")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect the record of a check; a failed report without a record is a problem of the instrument."""
        record = record_of(report)
        if record is None:
            if report.failed:
                self.problems.append(f"{report.nodeid} failed in its {report.when} phase")
            return
        self.records.append(record)
        self._moments.append(time.monotonic() - self._begin)
        if self.journal:
            with self._written():
                self.journal.verdict(record)
        asked = len(self.session.run().expected)
        self.progress.judged(record.verdict, asked)
        self.progress(f"{record.verdict} {record.id}, {len(self.records)} of {asked} checks judged")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Stop the servers, then close the evidence, unless the run was interrupted and can be resumed."""
        self.progress("stopping servers")
        try:
            self.servers.close()
        except ObservationError as error:
            self.problems.append(error.sentence)
        self.progress.clear()
        stopped = (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR)
        whole = not self._interrupted and exitstatus not in stopped
        if not whole:
            self.problems.append(f"stopped after {len(self.records)} checks{self._how_to_go_on()}")
        run, judgement = self._judge(whole)
        if self.journal:
            try:
                self._close_evidence(self.journal, run, judgement)
            except (ObservationError, OSError) as error:
                self.problems.append(str(error))
                run, judgement = self._judge(whole=False)
        self.result = run, judgement
        session.exitstatus = judgement.exit_code
        if self.session.reports and self.session.evidence.begun:
            report = gather(run, judgement, self.session.profile)
            self.figures = tuple(row for _, row in report.figures)
            self.where = write_reports(report)

    def pytest_unconfigure(self) -> None:
        """Release the evidence, so that another process can record into it."""
        self.session.evidence.release()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the end of the run."""
        if self.result is None:
            return
        form = screen(terminalreporter.hasmarkup)
        terminalreporter.write(render(*self.result, self.figures, show=self.show, **form))
        if self.where:
            terminalreporter.write_line(self.where)

    def _how_to_go_on(self) -> str:
        evidence = self.session.evidence
        return f" (qualify --resume {evidence.directory} goes on)" if evidence.recording and evidence.begun else ""

    def _judge(self, whole: bool) -> tuple[Run, Judgement]:
        run = self.session.run(self.records, self.problems)
        run = replace(run, complete=run.complete and whole)
        return run, judge_run(run)

    @contextmanager
    def _written(self) -> Iterator[None]:
        """End the run if evidence cannot be written: it could not be finished."""
        try:
            yield
        except (ObservationError, OSError) as error:
            self.problems.append(str(error))
            pytest.exit(str(error))

    def _close_evidence(self, journal: Journal, run: Run, judgement: Judgement) -> None:
        self.session.evidence.redact()
        if run.complete:
            journal.footer(run, judgement)
        journal.close()
        write_atomically(self.session.evidence.directory / "junit.xml", junit(run, judgement))
        if run.complete:
            evidence = self.session.evidence
            write_atomically(evidence.directory / BILL, bill_of_materials(evidence, read_header(evidence.directory)))
            evidence.finish()
            if not self._resumed:
                seconds = time.monotonic() - self._begin
                durations.save(self.session.profile, durations.Durations(tuple(self._moments), seconds))


def record_of(report: pytest.TestReport) -> Record | None:
    """The record in the report of a check, if there is one."""
    found = [value for name, value in report.user_properties if name == PROPERTY]
    return record_from_json(dict(found[0])) if found else None  # type: ignore[call-overload]
