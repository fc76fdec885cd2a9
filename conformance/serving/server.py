"""One server with a lifetime: started in its own session, proven to be itself, ended with everything it spawned."""

from __future__ import annotations

import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import psutil

from conformance.errors import ObservationError, Unsupported
from conformance.evidence.redaction import redact_file
from conformance.profile.profile import Bounds
from conformance.serving import logs, processes
from conformance.serving.command import Launch
from conformance.serving.executors import HERE, HOST, Executor

_LOOK_SECONDS = 0.1  # between two looks at a server that loads
_LOOKS_A_REPORT = 10
_ANSWER_SECONDS = 5.0  # for /health and /v1/models

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Server:
    """A server that was started: where it answers, under which name, which process it is, where its log is."""

    name: str
    model: str  # what it serves; unique, so that no other server can be taken for it
    port: int
    log: Path
    command: tuple[str, ...]
    pid: int | None = None
    created: float | None = None
    end: tuple[str, ...] = ()  # a command that ends it where it is no process of this machine
    process: subprocess.Popen[bytes] | None = field(default=None, compare=False, repr=False)  # in its parent only

    @property
    def base_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def key(self) -> str:
        """What it asks its clients for; "none" where it asks for nothing."""
        return "none"

    @property
    def headers(self) -> dict[str, str]:
        """What a request carries that is not made by the official client."""
        return {}

    @property
    def alive(self) -> bool:
        """Whether its first process still runs."""
        if self.process is not None:
            self.process.poll()
        return self.pid is not None and self.created is not None and processes.created(self.pid) == self.created

    def members(self) -> list[psutil.Process] | None:
        """All its living processes; None where they cannot be seen."""
        return None if self.end else processes.members(self.model, self.pid, self.created)

    def stop(self, grace: float) -> None:
        """End it and everything that belongs to it: SIGTERM, after ``grace`` seconds SIGKILL; its log loses secrets."""
        left = processes.end_all(self.model, self.pid, self.created, grace)
        if self.process is not None:
            self.process.poll()  # reaps it, and waits for none that survived
        problem = processes.run_end(self.end, grace) if self.end else ""
        if left:
            raise ObservationError(f"{self.name} server: processes {left} survived SIGKILL", self.log_tail())
        if problem:
            raise ObservationError(f"{self.name} server may still run: {problem}", self.log_tail())
        redact_file(self.log)

    def log_tail(self) -> str:
        """The last lines of its log."""
        return logs.tail(logs.read(self.log))

    def failure(self, what: str) -> ObservationError:
        """The error for a request that failed: with the server's death as its cause if it is dead."""
        if self.alive:
            return ObservationError(f"{self.name} server: {what}", self.log_tail())
        text = logs.read(self.log)
        reason = logs.telling_line(text) or logs.last_line(text) or "its log is empty"
        return ObservationError(f"{self.name} server died: {reason}", logs.tail(text))

    def request(
        self, method: str, path: str, seconds: float, question: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        """One HTTP request to it, past any proxy; raises httpx.HTTPError."""
        url = self.base_url + path
        return httpx.request(method, url, json=question, timeout=seconds, trust_env=False, verify=False)

    def call(self, method: str, seconds: float, **arguments: Any) -> list[Any]:
        """``POST /collective_rpc``: what ``method`` of the worker extension returns, one entry for each worker."""
        try:
            question = {"method": method, "kwargs": arguments}
            answer = self.request("POST", "/collective_rpc", seconds, question)
            if answer.status_code == httpx.codes.NOT_FOUND:
                raise Unsupported(f"{self.name} server has no /collective_rpc; it needs VLLM_SERVER_DEV_MODE=1.")
            answer.raise_for_status()
            results: list[Any] = answer.json()["results"]
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise self.failure(f"asking its workers for {method} failed ({type(error).__name__}: {error})") from None
        return results

    def record(self) -> dict[str, Any]:
        """The server as JSON, for other processes."""
        return asdict(replace(self, process=None)) | {"log": str(self.log)}


def from_record(document: Mapping[str, Any]) -> Server:
    """The server of a record."""
    words = {name: tuple(document[name]) for name in ("command", "end")}
    return Server(**{**document, **words, "log": Path(document["log"]), "process": None})


class Start:
    """A start in progress: ``spawn`` it, look at ``ready`` until it is; whoever gives up on it stops ``server``."""

    def __init__(
        self,
        launch: Launch,
        name: str,
        log: Path,
        bounds: Bounds,
        keep: Callable[[Server], None],
        place: Executor = HERE,
    ) -> None:
        """``keep`` is told of the server just before there is a process, and again with its pid."""
        model = f"conformance-{name}-{secrets.token_hex(8)}"
        self.server = Server(name, model, 0, log, launch.command)
        self._launch, self._bounds, self._keep, self._place = launch, bounds, keep, place
        self._begin = self._grown = time.monotonic()
        self._size = 0
        self.exit_code: int | None = None  # of a process that ended by itself

    def spawn(self) -> None:
        """Start the process on a port that is free now."""
        ports = self._place.ports()
        own = ("--host", HOST, "--port", str(ports[1]), "--served-model-name", self.server.model)
        launch = replace(self._launch, command=(*self._launch.command, *own))
        launch = self._place.placed(launch, self.server.model, ports)
        self.server = replace(self.server, port=ports[0], command=launch.command, end=launch.end)
        self._keep(self.server)
        self._begin = self._grown = time.monotonic()
        try:
            with self.server.log.open("wb") as sink:
                process = subprocess.Popen(
                    self.server.command,
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    env={**launch.environment, processes.MARK: self.server.model},
                    start_new_session=True,
                )
        except OSError as error:
            raise self._failed(f"could not be started: {error}") from None
        created = psutil.Process(process.pid).create_time()
        self.server = replace(self.server, pid=process.pid, created=created, process=process)
        self._keep(self.server)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._begin

    def status(self) -> str:
        """What it is doing, for the user."""
        line = logs.last_line(logs.read(self.server.log)) or "no output yet"
        return f"loading {self.server.name} … {self.seconds:.0f} s: {line}"

    def ready(self) -> bool:
        """Whether it is healthy, is who it should be, and generates. Raises ObservationError when it has failed."""
        self._must_live()
        self._must_keep_time()
        if not self._healthy():
            return False
        self._must_be_itself()
        self._must_generate()
        return True

    def _must_live(self) -> None:
        process = self.server.process
        code = self.exit_code = process.poll() if process else None
        if code is None:
            return
        text = logs.read(self.server.log)
        how = f"exited with code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
        reason = logs.telling_line(text) or logs.last_line(text) or "its log is empty"
        raise self._failed(f"{how} after {self.seconds:.0f} s: {reason}")

    def _must_keep_time(self) -> None:
        now, size = time.monotonic(), self.server.log.stat().st_size
        if size != self._size:
            self._grown, self._size = now, size
        allowed, silent = self._bounds.load_seconds, self._bounds.silence_seconds
        if now - self._begin > allowed:
            raise self._failed(f"was not ready after {allowed:g} s; {self._last_words()}")
        if now - self._grown > silent:
            raise self._failed(f"wrote nothing for {silent:g} s while loading; {self._last_words()}")

    def _last_words(self) -> str:
        line = logs.last_line(logs.read(self.server.log))
        return f"the last line of its log is: {line}" if line else "its log is empty"

    def _failed(self, what: str) -> ObservationError:
        return ObservationError(f"{self.server.name} server {what}", self.server.log_tail())

    def _healthy(self) -> bool:
        try:
            answer = self.server.request("GET", "/health", _ANSWER_SECONDS)
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK

    def _must_be_itself(self) -> None:
        answer = self._ask("GET", "/v1/models", _ANSWER_SECONDS)
        try:
            served = [str(entry["id"]) for entry in answer["data"]]
        except (KeyError, TypeError):
            raise self._failed(f"answers rubbish at /v1/models: {str(answer)[:200]}") from None
        if served != [self.server.model]:
            raise self._failed(
                f"is not what answers on port {self.server.port}: that one serves {', '.join(served) or 'nothing'}"
            )

    def _must_generate(self) -> None:
        left = max(_ANSWER_SECONDS, self._bounds.load_seconds - self.seconds)
        answer = self._ask("POST", "/v1/chat/completions", left, one_token(self.server.model))
        if not is_one_token(answer):
            raise self._failed(f"was asked for one token and answered: {str(answer)[:200]}")

    def _ask(self, method: str, path: str, seconds: float, question: dict[str, Any] | None = None) -> Any:
        try:
            return json_of(self.server, method, path, seconds, question)
        except NoJSON as problem:
            self._must_live()
            raise self._failed(str(problem)) from None


def start_together(starts: Sequence[Start], grace: float, progress: Progress) -> dict[str, Server | ObservationError]:
    """Start them all and wait for all; one that fails is stopped and does not disturb the others.

    On any other exception, a keyboard interrupt for instance, all of them are stopped.
    """
    outcome: dict[str, Server | ObservationError] = {}
    try:
        for start in starts:
            _settle(start, outcome, grace, start.spawn)
        looks = 0
        while pending := [start for start in starts if start.server.name not in outcome]:
            for start in pending:
                _settle(start, outcome, grace, start.ready)
            if looks % _LOOKS_A_REPORT == 0:
                progress(pending[looks // _LOOKS_A_REPORT % len(pending)].status())
            looks += 1
            time.sleep(_LOOK_SECONDS)
    except BaseException:
        with ExitStack() as every:  # one that survives keeps no other alive
            for start in starts:
                every.callback(start.server.stop, grace)
        raise
    return outcome


def _settle(
    start: Start, outcome: dict[str, Server | ObservationError], grace: float, step: Callable[[], bool | None]
) -> None:
    """One step of a start; its end, good or bad, goes into ``outcome``."""
    try:
        if step():
            outcome[start.server.name] = start.server
    except ObservationError as failure:
        start.server.stop(grace)
        outcome[start.server.name] = failure


class NoJSON(Exception):
    """A server's answer is none that can be read; the message says what it did, ``status`` with which HTTP status."""

    def __init__(self, what: str, status: int | None = None) -> None:
        super().__init__(what)
        self.status = status


def json_of(server: Server, method: str, path: str, seconds: float, question: Mapping[str, Any] | None = None) -> Any:
    """The JSON that a server answers with; raises NoJSON."""
    try:
        answer = server.request(method, path, seconds, question)
    except httpx.HTTPError as error:
        raise NoJSON(f"did not answer {path} ({type(error).__name__}: {error})") from None
    if answer.status_code != httpx.codes.OK:
        raise NoJSON(f"answered {path} with status {answer.status_code}: {answer.text[:200]}", answer.status_code)
    try:
        return answer.json()
    except ValueError:
        raise NoJSON(f"answers rubbish at {path}: {answer.text[:200]!r}") from None


def one_token(model: str) -> dict[str, Any]:
    """The question for one token; greedy, as a sampled one ends the engine of a CPU with MTP (vllm#55005)."""
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "temperature": 0}


def is_one_token(answer: Any) -> bool:
    """Whether this answers it."""
    try:
        return bool(answer["usage"]["completion_tokens"] == 1)
    except (KeyError, TypeError):
        return False
