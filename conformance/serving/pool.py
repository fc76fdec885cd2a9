"""The servers of a session: started at first need, shared by all its processes, ended with it."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, ReadWriteLock

from conformance.errors import ObservationError, Unsupported
from conformance.evidence.folder import Evidence, write_atomically
from conformance.evidence.redaction import redact_command, redact_text
from conformance.profile.arms import MTP, PLAIN, SWEEP
from conformance.profile.profile import Profile
from conformance.serving.command import Launch, vllm_launch
from conformance.serving.executors import HERE, Executor
from conformance.serving.server import Progress, Server, Start, from_record, start_together
from conformance.serving.start_records import write_start
from conformance.serving.watchdog import end_recorded_servers, load, watch

NOT_INSTALLED = "this is asked of the vLLM that is installed here, which need not be the one that serves"

Launcher = Callable[[Profile, str, Path, Mapping[str, str]], Launch]


def silent(what: str) -> None:
    """Progress that nobody wants to see."""


@dataclass(frozen=True)
class Attempt:
    """How a start ended that was expected to fail."""

    came_up: bool
    exit_code: int | None  # null where it came up, or had to be stopped
    seconds: float
    log: Path


class ServerPool:
    """The server with MTP and the one without, each started once a session, whichever process needs it first.

    What runs is written down in a folder of the evidence, so that the workers of pytest-xdist find each other's
    servers. The process that ``owns`` the session ends them in ``close``; should it die without, a guard process does.
    """

    def __init__(
        self,
        profile: Profile,
        evidence: Evidence,
        progress: Progress = silent,
        *,
        owns: bool = True,
        together: bool = False,
        launcher: Launcher | None = None,
        place: Executor = HERE,
    ) -> None:
        """``together``: all servers will be needed, so start them at the same time where memory allows it.

        ``launcher`` says what is started, vLLM by default, and ``place`` where that is run.
        """
        self.place = place
        self._profile, self._evidence, self._progress = profile, evidence, progress
        self._owns, self._together = owns, together
        self._launcher: Launcher = launcher or partial(vllm_launch, installed=place.installed)
        self._folder = evidence.directory / ".servers"
        self._guard = watch(self._folder, self._grace) if owns and evidence.recording and profile.has_servers else None
        self._started: list[Server] = []
        self._own_locks = threading.local()
        if self._guard is not None:
            self._forget()

    def mtp(self) -> Server:
        """The running server with MTP; raises ObservationError when it could not be started or has died."""
        return self._running(MTP)

    def plain(self) -> Server:
        """The same server without MTP."""
        return self._running(PLAIN)

    def sweep(self) -> Server:
        """The server with MTP whose k can be changed; Unsupported where this vLLM has none.

        Asked for first, it is started at the same time as the others, where all fit.
        """
        if not self.place.installed().draft_schedule:
            raise Unsupported(
                "This vLLM has no drafts whose length changes while it runs (dynamic speculative decoding)."
            )
        return self._running(SWEEP)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody else's requests, and nothing ``beside``: held around everything that is counted or timed.

        Reentrant in one thread.
        """
        with self._work().write_lock():
            yield

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Held around what minds no company: it takes a core for seconds, or asks and neither counts nor times."""
        with self._work().read_lock():
            yield

    def tell(self, what: str) -> None:
        """Show the user how far a long observation has come."""
        self._progress(what)

    @property
    def attached(self) -> bool:
        """Whether somebody else runs them."""
        return False

    @property
    def here(self) -> bool:
        """Whether they run on this machine."""
        return self.place.same_machine

    @property
    def both(self) -> bool:
        """Whether there is a server without MTP at all."""
        return True

    def must_be_ours(self, why: str) -> None:
        """Unsupported, with ``why``, where somebody else runs them."""

    def attempt(self, arm: str) -> Attempt:
        """Start a server of its own that is expected to fail; it is stopped in any case.

        Where memory may be short the others are stopped first, so that nothing but the configuration refuses.
        """
        roomy = self._profile.hardware.roomy
        with self.beside() if roomy else self.exclusive(), nullcontext() if roomy else self._lock():
            if not roomy:
                self._stop_all()
            start = self._prepare(arm)
            outcome = start_together([start], self._grace, self._progress)[arm]
            seconds = start.seconds
            start.server.stop(self._grace)
            self._path(arm).unlink(missing_ok=True)
        return Attempt(isinstance(outcome, Server), start.exit_code, seconds, start.server.log)

    @contextmanager
    def extra(self, name: str, change: Callable[[Launch], Launch]) -> Iterator[Server]:
        """A server of its own, like the one with MTP but for ``change``; it is stopped at the end.

        Where memory may be short the others are stopped first. ObservationError where it does not come up.
        """
        with self.exclusive():
            with self._lock():
                if not self._profile.hardware.roomy:
                    self._stop_all()
                start = self._prepare(name, MTP, change)
                outcome = start_together([start], self._grace, self._progress)[name]
            try:
                if isinstance(outcome, ObservationError):
                    raise outcome
                yield outcome
            finally:
                start.server.stop(self._grace)
                self._path(name).unlink(missing_ok=True)

    def abandon(self) -> None:
        """End whatever is up or still loading, so that nobody waits for it any longer."""
        end_recorded_servers(self._folder, self._grace)

    def close(self) -> None:
        """End all servers, if this process owns the session."""
        if not self._owns or not self._evidence.recording:
            return
        with ExitStack() as every:  # one that survives keeps no other alive
            for server in self._started:
                every.callback(server.stop, self._grace)
        self._forget()
        if self._guard is not None:
            self._guard.communicate()

    @property
    def _grace(self) -> float:
        return self._profile.hardware.bounds.stop_seconds

    def _running(self, arm: str) -> Server:
        with self._lock():
            record = self._read(arm)
            if record is None:
                both = self._together and self._profile.hardware.two_servers
                self._start([MTP, PLAIN, arm] if both else [arm])
                record = self._read(arm)
            assert record is not None
            if "error" in record:
                raise ObservationError(record["error"], record["log_tail"])
            server = self._own(from_record(record["server"]))
            if not server.alive:
                server.stop(self._grace)  # what it left behind
                raise self._keep_failure(arm, server.failure("is gone"))
            return server

    def _start(self, arms: list[str]) -> None:
        missing = [arm for arm in dict.fromkeys(arms) if self._read(arm) is None]
        if not self._profile.hardware.two_servers:
            self._stop_all()
        at_once = [missing] if self._profile.hardware.starts_together else [[arm] for arm in missing]
        for arms in at_once:
            self._keep(start_together([self._prepare(arm) for arm in arms], self._grace, self._progress))

    def _keep(self, outcomes: Mapping[str, Server | ObservationError]) -> None:
        for arm, outcome in outcomes.items():
            if isinstance(outcome, ObservationError):
                self._keep_failure(arm, outcome)
            else:
                self._write(arm, {"ready": True, "server": _noted(outcome)})
                self._started.append(outcome)

    def _prepare(self, name: str, arm: str = "", change: Callable[[Launch], Launch] | None = None) -> Start:
        """A start of that name, which is also its arm unless told otherwise."""
        self._stop_leftover(name)
        evidence = self._evidence
        evidence.logs.mkdir(parents=True, exist_ok=True)
        snapshots = evidence.directory.absolute() / "snapshots" / name
        launch = self._launcher(self._profile, arm or name, snapshots, self.place.inherited)
        launch = change(launch) if change else launch
        log = _unused(evidence.logs, name)

        def keep(server: Server) -> None:
            if server.pid is None:
                write_start(evidence.directory, server, launch.environment)
            self._write(name, {"ready": False, "server": _noted(server)})

        return Start(launch, name, log, self._profile.hardware.bounds, keep, self.place)

    def _stop_leftover(self, arm: str) -> None:
        """End a start whose process died over it."""
        record = load(self._path(arm))
        if record is not None and "server" in record:
            from_record(record["server"]).stop(self._grace)

    def _stop_all(self) -> None:
        if survivors := end_recorded_servers(self._folder, self._grace):
            raise ObservationError(f"of earlier servers this survived: {'; '.join(survivors)}")

    def _forget(self) -> None:
        """End what is written down, by this session or by one that was killed with its guard, and start afresh."""
        self._stop_all()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _keep_failure(self, arm: str, failure: ObservationError) -> ObservationError:
        sentence, tail = redact_text(failure.sentence), redact_text(failure.log_tail)
        self._write(arm, {"ready": True, "error": sentence, "log_tail": tail})
        return failure

    def _own(self, server: Server) -> Server:
        return next((mine for mine in self._started if mine.model == server.model), server)

    def _work(self) -> ReadWriteLock:
        """This thread's own: one instance keeps processes apart, but not threads."""
        if not hasattr(self._own_locks, "work"):
            self._open_folder()
            self._own_locks.work = ReadWriteLock(self._folder / "work.lock", is_singleton=False)
        lock: ReadWriteLock = self._own_locks.work
        return lock

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self._open_folder()
        with FileLock(self._folder / "start.lock"):
            yield

    def _open_folder(self) -> None:
        if not self._evidence.recording:
            raise ObservationError("no server is started: this evidence is read, not recorded")
        self._folder.mkdir(parents=True, exist_ok=True)

    def _path(self, arm: str) -> Path:
        return self._folder / f"{arm}.json"

    def _read(self, arm: str) -> dict[str, Any] | None:
        """What is known of a server that is up or has failed for good."""
        record = load(self._path(arm))
        return record if record is not None and record["ready"] else None

    def _write(self, arm: str, record: dict[str, Any]) -> None:
        write_atomically(self._path(arm), json.dumps(record))


def _noted(server: Server) -> dict[str, Any]:
    """A server's record, without the secrets of its command."""
    return server.record() | {"command": redact_command(server.command)}


def _unused(logs: Path, arm: str) -> Path:
    """mtp.log, or mtp.2.log where a server was started before."""
    path, number = logs / f"{arm}.log", 1
    while path.exists():
        number += 1
        path = logs / f"{arm}.{number}.log"
    return path
