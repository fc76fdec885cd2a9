"""One server: started in its own process session, verified, and stopped with every process that it spawned.

The life of a server::

    named ──spawn──► loading ──/health answers──► healthy ──own model, one token──► ready ──close──► stopping
      │                │                            │                                 │                 │
      │ no port,       │ exits, is killed,          │ another model, no JSON,         │ a request       │ SIGTERM, and
      │ no program     │ says nothing new,          │ no token                        │ fails, and it   │ SIGKILL after
      │                │ is not ready in time       │                                 │ is dead         │ the grace
      ▼                ▼                            ▼                                 ▼                 ▼
    failed ◄───────────┴────────────────────────────┴─────────────────────────────── died             stopped

``Start`` is the way from named to ready; every step that fails raises ObservationError, and whoever waits stops the
server. From named on, a record in the evidence names it. So its pool, another process, or the watchdog of a killed run
can stop it in any state. Whatever its end, its processes end, its temporary folder is removed, and secrets are removed
from its log.
"""

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
from conformance.serving import logs, processes, remains
from conformance.serving.command import Launch
from conformance.serving.executors import HERE, HOST, Executor

_LOOK_SECONDS = 0.1  # between two checks of a loading server
_LOOKS_A_REPORT = 10
_ANSWER_SECONDS = 5.0  # for /health and /v1/models
_DEATH_SECONDS = 5.0  # until the API server ends after its engine has died
_EXIT_SECONDS = 0.5  # the kernel closes the connections of a process before anybody sees that it has ended

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Server:
    """A started server: its port, its model name, its process and its log."""

    name: str
    model: str  # the name of the served model; it is unique, so that no other server is mistaken for this one
    port: int
    log: Path
    command: tuple[str, ...]
    pid: int | None = None
    created: float | None = None
    folder: str = ""  # its own temporary folder, which is removed after its end
    end: tuple[str, ...] = ()  # a command that ends the server if it is not a process of this machine
    process: subprocess.Popen[bytes] | None = field(default=None, compare=False, repr=False)  # only in its parent

    @property
    def base_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def key(self) -> str:
        """The API key for clients; "none" if the server needs no key."""
        return "none"

    @property
    def headers(self) -> dict[str, str]:
        """The headers of requests that do not go through the official client."""
        return {}

    @property
    def names_itself(self) -> bool:
        """Whether its answers bear the name by which it was asked."""
        return True

    @property
    def alive(self) -> bool:
        """Whether the server's first process still runs."""
        if self.process is not None:
            self.process.poll()
        return self.pid is not None and self.created is not None and processes.created(self.pid) == self.created

    def members(self) -> list[psutil.Process] | None:
        """All living processes of the server; None if they are on another machine or in a container."""
        return None if self.end else processes.members(self.model, self.pid, self.created)

    def stop(self, grace: float) -> None:
        """Stop every process of the server by SIGTERM, and SIGKILL after ``grace`` seconds; redact its log.

        Raises:
            ObservationError: a process survived, or nobody knows whether the server has ended.
        """
        left = processes.end_all(self.model, self.pid, self.created, grace)
        if self.process is not None:
            self.process.poll()  # reaps the process, but does not wait for one that survived
        problem = processes.run_end(self.end, grace) if self.end else ""
        if left:
            raise ObservationError(f"{self.name} server: processes {left} survived SIGKILL", self.log_tail())
        if problem:
            raise ObservationError(f"{self.name} server may still run: {problem}", self.log_tail())
        remains.remove(self.folder, self.created)
        redact_file(self.log)

    def log_tail(self) -> str:
        """The last lines of the server's log."""
        return logs.tail(logs.read_end(self.log))

    def failure(self, what: str) -> ObservationError:
        """The error for a request that failed. If the server is dead, its death is the cause that the error names."""
        allowed = _DEATH_SECONDS if logs.ENGINE_DIED in self.log_tail() else _EXIT_SECONDS
        deadline = time.monotonic() + allowed
        while self.alive and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        if self.alive:
            return ObservationError(f"{self.name} server: {what}", self.log_tail())
        text = logs.read(self.log)
        reason = logs.telling_line(text) or logs.last_line(text) or "its log is empty"
        return ObservationError(f"{self.name} server died: {reason}", logs.tail(text))

    def request(
        self, method: str, path: str, seconds: float, question: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        """Send one HTTP request to the server, without a proxy.

        Raises:
            httpx.HTTPError: the server does not answer.
        """
        url = self.base_url + path
        return httpx.request(method, url, json=question, timeout=seconds, trust_env=False, verify=False)

    def call(self, method: str, seconds: float, **arguments: Any) -> list[Any]:
        """Call ``method`` of the worker extension by ``POST /collective_rpc``; one result for each worker.

        Raises:
            ObservationError: the request failed.
            Unsupported: the server has no probe or no /collective_rpc.
        """
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
        """The server as a JSON object, for other processes."""
        return asdict(replace(self, process=None)) | {"log": str(self.log)}


def from_record(document: Mapping[str, Any]) -> Server:
    """The server that a record describes."""
    words = {name: tuple(document[name]) for name in ("command", "end")}
    return Server(**{**document, **words, "log": Path(document["log"]), "process": None})


class Start:
    """A start in progress: call ``spawn``, then ``ready`` until it is true. To give up, stop ``server``."""

    def __init__(
        self,
        launch: Launch,
        name: str,
        log: Path,
        bounds: Bounds,
        keep: Callable[[Server], None],
        executor: Executor = HERE,
    ) -> None:
        """``keep`` is called with the server just before its process starts, and again with its pid."""
        model = f"conformance-{name}-{secrets.token_hex(8)}"
        self.server = Server(name, model, 0, log, launch.command)
        self._launch, self._bounds, self._keep, self._executor = launch, bounds, keep, executor
        self.environment: Mapping[str, str] = launch.environment  # ``spawn`` adds the server's own temporary folder
        self._begin = self._grown = time.monotonic()
        self._news = logs.News(log)
        self.exit_code: int | None = None  # of a process that ended by itself

    def spawn(self) -> None:
        """Start the process on a free port.

        Raises:
            ObservationError: the process could not be started.
        """
        try:
            ports = self._executor.ports()
        except OSError as error:
            raise self._failed(f"could not be started: no port is free ({error})") from None
        own = ("--host", HOST, "--port", str(ports[1]), "--served-model-name", self.server.model)
        launch = replace(self._launch, command=(*self._launch.command, *own))
        launch = self._executor.adapt_launch(launch, self.server.model, ports)
        folder = self._executor.private_folder(launch.environment)
        own_folder = remains.settings(folder, launch.environment) if folder else {}
        self.environment = {**launch.environment, **own_folder}
        self.server = replace(
            self.server, port=ports[0], command=launch.command, end=launch.end, folder=str(folder or "")
        )
        self._keep(self.server)
        self._begin = self._grown = time.monotonic()
        try:
            if folder:
                folder.mkdir(mode=0o700)
            with self.server.log.open("wb") as sink:
                process = subprocess.Popen(
                    self.server.command,
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    env={**self.environment, processes.MARK: self.server.model},
                    start_new_session=True,
                )
        except OSError as error:
            raise self._failed(f"could not be started: {error}") from None
        created = psutil.Process(process.pid).create_time()
        self.server = replace(self.server, pid=process.pid, created=created, process=process)
        self._keep(self.server)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._begin

    def status(self) -> str:
        """A line for the user that says what the server is doing."""
        line = logs.last_line(logs.read_end(self.server.log)) or "no output yet"
        return f"loading {self.server.name} … {self.seconds:.0f} s: {line}"

    def ready(self) -> bool:
        """Whether the server is healthy; a healthy server is then verified.

        Raises:
            ObservationError: the server died, took too long, or is not the expected server.
        """
        self._require_alive()
        self._require_in_time()
        if not self._healthy():
            return False
        self._require_own_model()
        self._require_one_token()
        return True

    def _require_alive(self) -> None:
        process = self.server.process
        code = self.exit_code = process.poll() if process else None
        if code is None:
            return
        text = logs.read(self.server.log)
        how = f"exited with code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
        reason = logs.telling_line(text) or logs.last_line(text) or "its log is empty"
        raise self._failed(f"{how} after {self.seconds:.0f} s: {reason}")

    def _require_in_time(self) -> None:
        now = time.monotonic()
        if self._news.any():
            self._grown = now
        allowed, silent = self._bounds.load_seconds, self._bounds.silence_seconds
        if now - self._begin > allowed:
            raise self._failed(f"was not ready after {allowed:g} s; {self._last_words()}")
        if now - self._grown > silent:
            raise self._failed(f"wrote nothing new for {silent:g} s while loading; {self._last_words()}")

    def _last_words(self) -> str:
        line = logs.last_line(logs.read_end(self.server.log))
        return f"the last line of its log is: {line}" if line else "its log is empty"

    def _failed(self, what: str) -> ObservationError:
        return ObservationError(f"{self.server.name} server {what}", self.server.log_tail())

    def _healthy(self) -> bool:
        try:
            answer = self.server.request("GET", "/health", _ANSWER_SECONDS)
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK

    def _require_own_model(self) -> None:
        answer = self._ask("GET", "/v1/models", _ANSWER_SECONDS)
        try:
            served = [str(entry["id"]) for entry in answer["data"]]
        except (KeyError, TypeError):
            raise self._failed(f"gives no list of models at /v1/models: {str(answer)[:200]}") from None
        if served != [self.server.model]:
            raise self._failed(
                f"does not answer on its port {self.server.port}: another server there serves "
                f"{', '.join(served) or 'no model'}"
            )

    def _require_one_token(self) -> None:
        left = max(_ANSWER_SECONDS, self._bounds.load_seconds - self.seconds)
        answer = self._ask("POST", "/v1/chat/completions", left, one_token(self.server.model))
        if not is_one_token(answer):
            raise self._failed(f"did not answer a request for one token with one token: {str(answer)[:200]}")

    def _ask(self, method: str, path: str, seconds: float, question: dict[str, Any] | None = None) -> Any:
        try:
            return json_of(self.server, method, path, seconds, question)
        except NoJSON as problem:
            self._require_alive()
            raise self._failed(str(problem)) from None


def start_together(starts: Sequence[Start], grace: float, progress: Progress) -> dict[str, Server | ObservationError]:
    """Start all servers and wait for all of them. A server that fails is stopped and does not disturb the others.

    On any other exception, such as a keyboard interrupt, all servers are stopped.
    """
    outcome: dict[str, Server | ObservationError] = {}
    try:
        for start in starts:
            _advance(start, outcome, grace, start.spawn)
        looks = 0
        while pending := [start for start in starts if start.server.name not in outcome]:
            for start in pending:
                _advance(start, outcome, grace, start.ready)
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


def _advance(
    start: Start, outcome: dict[str, Server | ObservationError], grace: float, step: Callable[[], bool | None]
) -> None:
    """Do one step of a start; put its result into ``outcome`` if it is ready or has failed."""
    try:
        if step():
            outcome[start.server.name] = start.server
    except ObservationError as failure:
        start.server.stop(grace)
        outcome[start.server.name] = failure


class NoJSON(Exception):
    """A server gave no JSON. The message says what it did instead, ``status`` is the HTTP status of its answer."""

    def __init__(self, what: str, status: int | None = None) -> None:
        super().__init__(what)
        self.status = status


def json_of(server: Server, method: str, path: str, seconds: float, question: Mapping[str, Any] | None = None) -> Any:
    """The answer of a server, parsed as JSON.

    Raises:
        NoJSON: the server does not answer, answers with another status than 200, or with text that is not JSON.
    """
    try:
        answer = server.request(method, path, seconds, question)
    except httpx.HTTPError as error:
        raise NoJSON(f"did not answer {path} ({type(error).__name__}: {error})") from None
    if answer.status_code != httpx.codes.OK:
        raise NoJSON(f"answered {path} with status {answer.status_code}: {answer.text[:200]}", answer.status_code)
    try:
        return answer.json()
    except ValueError:
        raise NoJSON(f"answers {path} with text that is not JSON: {answer.text[:200]!r}") from None


def one_token(model: str) -> dict[str, Any]:
    """A request for one token. It is greedy, because sampling ends the engine on a CPU with MTP (vllm#55005)."""
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "temperature": 0}


def is_one_token(answer: Any) -> bool:
    """Whether an answer has exactly one token."""
    try:
        return bool(answer["usage"]["completion_tokens"] == 1)
    except (KeyError, TypeError):
        return False
