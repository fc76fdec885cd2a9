"""The servers of a session: started when first needed, shared by all its processes, stopped at its end."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, ReadWriteLock

from conformance.errors import ObservationError, Unsupported
from conformance.evidence.folder import Evidence, waiting, write_atomically
from conformance.evidence.redaction import redact_command, redact_text
from conformance.profile.arms import MTP, PLAIN, SERVED, SERVED_PLAIN, SWEEP
from conformance.profile.gpus import sensors
from conformance.profile.profile import Profile
from conformance.serving.command import Launch, vllm_launch
from conformance.serving.executors import HERE, Executor
from conformance.serving.holders import Holders
from conformance.serving.json_subprocess import Together
from conformance.serving.line_process import Beside
from conformance.serving.server import Progress, Server, Start, from_record, start_together
from conformance.serving.start_records import write_start
from conformance.serving.watchdog import end_recorded_servers, load, watch

NOT_INSTALLED = "this check needs the vLLM that is installed here, and the server may run another one"

AS_SERVED = (SERVED, SERVED_PLAIN)

TIMING_LOCK = "CONFORMANCE_TIMING_LOCK"  # a file: runs that name the same one never time anything at the same time

Launcher = Callable[[Profile, str, Path, Mapping[str, str]], Launch]


def silent(what: str) -> None:
    """Progress that shows nothing."""


@dataclass(frozen=True)
class Attempt:
    """The outcome of a start that is expected to fail."""

    came_up: bool
    exit_code: int | None  # None if the server came up or had to be stopped
    seconds: float
    log: Path


class ServerPool:
    """The servers with and without MTP. The first process that needs a server starts it, once in a session.

    A folder of the evidence records the running servers, so that pytest-xdist's workers find each other's servers. The
    process that ``owns`` the session stops them in ``close``. If that process dies, a watchdog process stops them.
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
        executor: Executor = HERE,
    ) -> None:
        """With ``together``, servers start at the same time where memory allows it, because all will be needed.

        ``launcher`` makes the launches, of vLLM by default, and ``executor`` runs them.
        """
        self.executor = executor
        self.together: Together | None = None  # modules that already run, see ``run_together``
        self.beside = Beside()
        self._profile, self._evidence, self._progress = profile, evidence, progress
        self._owns, self._together = owns, together
        self._launcher: Launcher = launcher or partial(vllm_launch, installed=executor.installed)
        self._folder = evidence.directory / ".servers"
        watched = owns and evidence.recording and profile.has_servers
        self._watchdog = watch(self._folder, self._grace) if watched else None
        self._started: list[Server] = []
        self._own_locks = threading.local()
        if self._watchdog is not None:
            self._reset()

    def mtp(self) -> Server:
        """The running server with MTP.

        Raises:
            ObservationError: the server could not be started or has died.
        """
        return self._running(MTP)

    def plain(self) -> Server:
        """The same server without MTP.

        Raises:
            ObservationError: the server could not be started or has died.
            Unsupported: no server without MTP is attached.
        """
        return self._running(PLAIN)

    def sweep(self) -> Server:
        """The server with MTP whose k can be changed while it runs.

        If this is the first server needed, it starts at the same time as the others, where all fit.

        Raises:
            ObservationError: the server could not be started or has died.
            Unsupported: this vLLM cannot change k, or the servers are attached.
        """
        if not self.executor.installed().draft_schedule:
            raise Unsupported("This vLLM cannot change the draft length while it runs (dynamic speculative decoding).")
        return self._running(SWEEP)

    def served(self) -> Server:
        """The server with MTP in the configuration that people serve. Hold ``exclusive`` while you use it.

        Its twin without MTP starts at the same time, where both fit.

        Raises:
            ObservationError: the server could not be started or has died.
            Unsupported: the hardware has no such configuration, or the servers are attached.
        """
        self._profile.hardware.as_served()
        return self._running(SERVED)

    def served_plain(self) -> Server:
        """The same server without MTP. Hold ``exclusive`` while you use it.

        Raises:
            ObservationError: the server could not be started or has died.
            Unsupported: the hardware has no such configuration, or the servers are attached.
        """
        self._profile.hardware.as_served()
        return self._running(SERVED_PLAIN)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold this lock while something is counted or timed: no other process holds it or ``shared`` meanwhile.

        It is reentrant in one thread. Who waits for long says for what.
        """
        with self._holders().held(self._work_lock().acquire_write):
            yield

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold this lock for work that may run in parallel: it uses a core, or nothing counts or times its requests."""
        with self._holders().held(self._work_lock().acquire_read):
            yield

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Hold ``exclusive`` while something is timed: no server of this run loads meanwhile either.

        Several runs on one machine take turns if the environment variable ``CONFORMANCE_TIMING_LOCK`` names one file.
        """
        with self.exclusive():
            with self._start_lock():  # wait for what loads ahead
                pass
            self.beside.wait_until_ready()
            with self._machine_lock():
                yield

    def load_ahead(self) -> None:
        """Start the servers that people serve before they are needed, if they fit beside the others.

        Raises:
            ObservationError: a server could not be started.
            Unsupported: the hardware has no such configuration, or the servers are attached.
        """
        self._profile.hardware.as_served()
        if self._profile.hardware.two_servers and self._four_fit():
            self.served()

    def run_together(self, questions: Mapping[str, Any]) -> None:
        """Run modules of the serving Python after one import of vLLM; ``questions`` has the standard input of each."""
        self.together = Together(questions, self.executor)

    def tell(self, what: str) -> None:
        """Show the user the progress of a long observation."""
        self._progress(what)

    @property
    def attached(self) -> bool:
        """Whether somebody else runs the servers."""
        return False

    @property
    def on_this_machine(self) -> bool:
        """Whether the servers run on this machine."""
        return self.executor.same_machine

    @property
    def has_plain_server(self) -> bool:
        """Whether there is a server without MTP."""
        return True

    def require_own_servers(self, why: str) -> None:
        """Require that the suite started the servers itself; ``why`` completes the sentence of the error.

        Raises:
            Unsupported: the servers are attached.
        """

    def attempt(self, arm: str) -> Attempt:
        """Start an extra server that is expected to fail, and stop it in any case.

        If memory may be short, all other servers are stopped first, so that only the configuration can make it fail.

        Raises:
            ObservationError: a server could not be stopped.
            Unsupported: the servers are attached.
        """
        roomy = self._profile.hardware.roomy
        with self.shared() if roomy else self.exclusive(), nullcontext() if roomy else self._start_lock():
            if not roomy:
                self._stop_all()
            start = self._prepare(arm)
            outcome = start_together([start], self._grace, self._progress)[arm]
            seconds = start.seconds
            start.server.stop(self._grace)
            self._path(arm).unlink(missing_ok=True)
        return Attempt(isinstance(outcome, Server), start.exit_code, seconds, start.server.log)

    @contextmanager
    def extra(self, name: str, change: Callable[[Launch], Launch], arm: str = MTP) -> Iterator[Server]:
        """An extra server, which is the one of this arm after ``change``. It is stopped at the end.

        Nobody else uses a server while this one may be asked. Where one more server can load beside the others, nothing
        is held while it loads. If memory may be short, all other servers are stopped first.

        Raises:
            ObservationError: the server does not come up.
            Unsupported: the servers are attached.
        """
        with closing(self.extras({name: change}, arm)) as servers:
            yield next(servers)

    def extras(self, changes: Mapping[str, Callable[[Launch], Launch]], arm: str = MTP) -> Generator[Server]:
        """Extra servers one after another, as ``extra`` gives one; close the generator to stop early.

        As many load at the same time as have room on the GPU.

        Raises:
            ObservationError: a server does not come up.
        """
        left = list(changes.items())
        while left:
            room = self._room()
            group, left = left[:room], left[room:]
            with self._loaded(dict(group), arm) as outcomes:
                for name, _ in group:
                    outcome = outcomes[name]
                    if isinstance(outcome, ObservationError):
                        raise outcome
                    with self.quiet():
                        yield outcome

    def _room(self) -> int:
        """How many more servers may load at the same time: vLLM wants its share of the GPU's memory to be free."""
        hardware = self._profile.hardware
        if not (hardware.loads_beside and self.on_this_machine):
            return 1
        with sensors() as read:
            used = [gpu.memory_mib for gpu in read()]
        share = hardware.memory_share * (hardware.memory_gb or 0.0)
        if not used or None in used or not share:
            return 1
        free = (hardware.memory_gb or 0.0) - max(each or 0.0 for each in used) * (1 << 20) / 1e9
        return max(1, int(free // share))

    @contextmanager
    def _loaded(
        self, changes: Mapping[str, Callable[[Launch], Launch]], arm: str
    ) -> Iterator[Mapping[str, Server | ObservationError]]:
        """The outcomes of the starts of extra servers, which are stopped at the end."""
        hardware = self._profile.hardware
        beside = hardware.loads_beside
        self._open_folder()
        with nullcontext() if beside else self.exclusive():
            with nullcontext() if beside else self._start_lock():
                if not hardware.roomy:
                    self._stop_all()
                starts = [self._prepare(name, arm, change) for name, change in changes.items()]
                outcomes = start_together(starts, self._grace, self._progress)
            try:
                yield outcomes
            finally:
                with ExitStack() as every:  # if one cannot be stopped, the others still are
                    for start in starts:
                        every.callback(self._path(start.server.name).unlink, missing_ok=True)
                        every.callback(start.server.stop, self._grace)

    def abandon(self) -> None:
        """Stop every server that runs or loads, and modules that run, so that nobody waits for them any longer."""
        if self.together is not None:
            self.together.stop()
        self.beside.end()
        end_recorded_servers(self._folder, self._grace)

    def close(self) -> None:
        """Stop all servers, if this process owns the session.

        Raises:
            ObservationError: a server could not be stopped.
        """
        self.beside.end()
        if not self._owns or not self._evidence.recording:
            return
        with ExitStack() as every:  # if one cannot be stopped, the others still are
            for server in self._started:
                every.callback(server.stop, self._grace)
        self._reset()
        if self._watchdog is not None:
            self._watchdog.communicate()

    @property
    def _grace(self) -> float:
        return self._profile.hardware.bounds.stop_seconds

    def _running(self, arm: str) -> Server:
        """The server; who needs one that runs does not wait for one that loads.

        Raises:
            ObservationError: the server could not be started or has died.
        """
        record = self._read(arm) or self._started_now(arm)
        if "error" in record:
            raise ObservationError(record["error"], record["log_tail"])
        server = self._with_process(from_record(record["server"]))
        if not server.alive:
            server.stop(self._grace)  # the processes that it left
            raise self._keep_failure(arm, server.failure("it has ended"))
        return server

    def _started_now(self, arm: str) -> dict[str, Any]:
        with self._start_lock():
            record = self._read(arm)
            if record is None:
                self._start(self._with_arm(arm))
                record = self._read(arm)
            assert record is not None
            return record

    def _with_arm(self, arm: str) -> list[str]:
        """The servers that start together with this one."""
        if not self._profile.hardware.two_servers:
            return [arm]
        if arm in AS_SERVED:
            return list(AS_SERVED)
        return [MTP, PLAIN, arm] if self._together else [arm]

    def _start(self, arms: list[str]) -> None:
        missing = [arm for arm in dict.fromkeys(arms) if self._read(arm) is None]
        hardware = self._profile.hardware
        others = {record.stem for record in self._folder.glob("*.json")} - set(arms)
        changes = any((other in AS_SERVED) != (arms[0] in AS_SERVED) for other in others)
        if not hardware.two_servers or (changes and not self._four_fit()):
            self._stop_all()
        at_once = [missing] if hardware.starts_together else [[arm] for arm in missing]
        for arms in at_once:
            self._keep(start_together([self._prepare(arm) for arm in arms], self._grace, self._progress))

    def _four_fit(self) -> bool:
        """Whether the servers of both configurations fit into memory."""
        hardware = self._profile.hardware
        if hardware.memory != "host":
            return hardware.loads_beside and self._room() >= len(AS_SERVED)
        return psutil.virtual_memory().available / 1e9 >= hardware.as_served().needs_gb

    def _keep(self, outcomes: Mapping[str, Server | ObservationError]) -> None:
        for arm, outcome in outcomes.items():
            if isinstance(outcome, ObservationError):
                self._keep_failure(arm, outcome)
            else:
                self._write(arm, {"ready": True, "server": _public_record(outcome)})
                self._started.append(outcome)

    def _prepare(self, name: str, arm: str = "", change: Callable[[Launch], Launch] | None = None) -> Start:
        """A start with that name, which is also its arm if ``arm`` is empty."""
        self._stop_leftover(name)
        evidence = self._evidence
        evidence.logs.mkdir(parents=True, exist_ok=True)
        snapshots = evidence.directory.absolute() / "snapshots" / name
        launch = self._launcher(self._profile, arm or name, snapshots, self.executor.inherited)
        launch = change(launch) if change else launch
        log = _new_log(evidence.logs, name)

        def keep(server: Server) -> None:
            if server.pid is None:
                write_start(evidence.directory, server, start.environment)
            self._write(name, {"ready": False, "server": _public_record(server)})

        start = Start(launch, name, log, self._profile.hardware.bounds, keep, self.executor)
        return start

    def _stop_leftover(self, arm: str) -> None:
        """Stop a server that a process began to start before it died."""
        record = load(self._path(arm))
        if record is not None and "server" in record:
            from_record(record["server"]).stop(self._grace)

    def _stop_all(self) -> None:
        if survivors := end_recorded_servers(self._folder, self._grace):
            raise ObservationError(f"earlier servers could not be stopped: {'; '.join(survivors)}")

    def _reset(self) -> None:
        """Stop all recorded servers, also those of a session that was killed with its watchdog; clear the records."""
        self._stop_all()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _keep_failure(self, arm: str, failure: ObservationError) -> ObservationError:
        sentence, tail = redact_text(failure.sentence), redact_text(failure.log_tail)
        self._write(arm, {"ready": True, "error": sentence, "log_tail": tail})
        return failure

    def _with_process(self, server: Server) -> Server:
        """The same server with its process, if this process started it."""
        return next((mine for mine in self._started if mine.model == server.model), server)

    def _holders(self) -> Holders:
        return Holders(self._folder / "holders", self._progress)

    def _work_lock(self) -> ReadWriteLock:
        """The lock object of this thread: one object locks out other processes, but not other threads."""
        if not hasattr(self._own_locks, "work"):
            self._open_folder()
            self._own_locks.work = ReadWriteLock(self._folder / "work.lock", is_singleton=False)
        lock: ReadWriteLock = self._own_locks.work
        return lock

    def _machine_lock(self) -> AbstractContextManager[Any]:
        """The lock that runs on one machine share, if the user names one; a process that has it gets it again."""
        if not (path := os.environ.get(TIMING_LOCK)):
            return nullcontext()
        lock = FileLock(path, thread_local=False, is_singleton=True)
        return waiting(lock.acquire, lambda: f"another run that holds {path}", self._progress)

    @contextmanager
    def _start_lock(self) -> Iterator[None]:
        self._open_folder()
        with FileLock(self._folder / "start.lock"):
            yield

    def _open_folder(self) -> None:
        if not self._evidence.recording:
            raise ObservationError("no server is started, because the evidence is only read, not recorded")
        self._folder.mkdir(parents=True, exist_ok=True)

    def _path(self, arm: str) -> Path:
        return self._folder / f"{arm}.json"

    def _read(self, arm: str) -> dict[str, Any] | None:
        """The record of a server that runs or has failed for good."""
        record = load(self._path(arm))
        return record if record is not None and record["ready"] else None

    def _write(self, arm: str, record: dict[str, Any]) -> None:
        write_atomically(self._path(arm), json.dumps(record))


def _public_record(server: Server) -> dict[str, Any]:
    """The record of a server, without the secrets in its command."""
    return server.record() | {"command": redact_command(server.command)}


def _new_log(logs: Path, arm: str) -> Path:
    """mtp.log, or mtp.2.log if there is already a log of an earlier server."""
    path, number = logs / f"{arm}.log", 1
    while path.exists():
        number += 1
        path = logs / f"{arm}.{number}.log"
    return path
