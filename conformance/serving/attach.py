"""Attached servers, which somebody else runs. The suite sends requests; it never starts, stops or changes them."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from conformance.errors import NotHere, ObservationError, Unsupported, UsageError
from conformance.evidence.folder import Evidence
from conformance.profile.arms import MTP, PLAIN
from conformance.profile.profile import Profile
from conformance.serving.command import Launch, vllm_command, vllm_environment
from conformance.serving.metrics import drafted_positions
from conformance.serving.pool import Attempt, ServerPool
from conformance.serving.server import NoJSON, Server, is_one_token, json_of, one_token

_LOOK_SECONDS = 5.0  # for a request to /v1/models or /version
_LARGEST = 1 << 26  # bytes in an answer
API_KEY = "OPENAI_API_KEY"  # the environment variable that holds the key
LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Attachment:
    """The addresses of the attached servers, without credentials, and the model to ask if they serve several."""

    url: str
    plain_url: str | None = None
    model: str | None = None

    @property
    def local(self) -> bool:
        """Whether the servers run on this machine and thus on its hardware."""
        return httpx.URL(self.url).host in LOCAL

    def version(self) -> str | None:
        """The version of the vLLM that serves, or None if the server does not tell it."""
        try:
            found = AttachedServer(MTP, "", 0, Path(), (), url=self.url).request("GET", "/version", _LOOK_SECONDS)
            return str(found.json()["version"]) if found.status_code == httpx.codes.OK else None
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return None


def attachment(url: str | None, plain_url: str | None, model: str | None) -> Attachment | None:
    """The attachment that the options name, or None without ``--attach``.

    Raises:
        UsageError: an option contradicts another one or holds no address.
    """
    if url is None:
        for option, value in (("--attach-plain", plain_url), ("--model", model)):
            if value is not None:
                raise UsageError(f"{option} {value} needs --attach URL, which is missing; add it.")
        return None
    if not os.environ.get(API_KEY, "").isascii():
        raise UsageError(f"The variable {API_KEY} holds a character that an HTTP header cannot carry; correct the key.")
    found = Attachment(_address("--attach", url), plain_url and _address("--attach-plain", plain_url), model)
    if found.url == found.plain_url:
        raise UsageError("--attach and --attach-plain name the same server; give --attach-plain a server without MTP.")
    return found


def _address(option: str, url: str) -> str:
    """The address without "/v1" and "/" at its end.

    Raises:
        UsageError: this is not a URL, or it holds more than an address, such as a password.
    """
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        raise UsageError(f"{option} is not a URL; write one such as http://127.0.0.1:8000.") from None
    if parts.userinfo or parts.query or parts.fragment:
        raise UsageError(f"{option} holds more than an address; put the API key into the variable {API_KEY}.")
    if parts.scheme not in ("http", "https") or not parts.host:
        raise UsageError(f"{option} {url} is not a URL; write one such as http://127.0.0.1:8000.")
    return str(parts).rstrip("/").removesuffix("/v1").rstrip("/")


@dataclass(frozen=True)
class AttachedServer(Server):
    """A server that somebody else runs. ``without_probe`` says why the probe cannot be asked; it is empty if it can."""

    url: str = ""
    without_probe: str = field(default="", repr=False)

    @property
    def names_itself(self) -> bool:
        """vLLM answers under the first of its names, whichever it is asked by."""
        return False

    @property
    def base_url(self) -> str:
        return self.url

    @property
    def key(self) -> str:
        return os.environ.get(API_KEY) or super().key

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if API_KEY in os.environ else {}

    @property
    def alive(self) -> bool:
        """Whether the server answers."""
        try:
            return self.request("GET", "/v1/models", _LOOK_SECONDS).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def members(self) -> None:
        """None: the suite cannot see the processes of an attached server."""

    def stop(self, grace: float) -> None:
        """Do nothing: the suite never stops an attached server."""

    def failure(self, what: str) -> ObservationError:
        return ObservationError(f"{self.name} server at {self.url}{'' if self.alive else ' no longer answers'}: {what}")

    def request(
        self, method: str, path: str, seconds: float, question: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        """One HTTP request. An answer that has no end is cut off after ``seconds``.

        Raises:
            httpx.ReadTimeout: the answer takes too long or is too large.
        """
        end, content = time.monotonic() + seconds, bytearray()
        with httpx.stream(
            method, self.url + path, json=question, headers=self.headers, timeout=seconds, trust_env=False
        ) as response:
            for part in response.iter_bytes():
                content += part
                if time.monotonic() > end or len(content) > _LARGEST:
                    raise httpx.ReadTimeout(f"the answer to {path} has no end after {len(content)} bytes")
            kept = {"content-type": response.headers.get("content-type", "")}
            return httpx.Response(response.status_code, headers=kept, content=bytes(content), request=response.request)

    def call(self, method: str, seconds: float, **arguments: Any) -> list[Any]:
        if self.without_probe:
            raise Unsupported(self.without_probe)
        return super().call(method, seconds, **arguments)

    def problem(self, what: str) -> ObservationError:
        """The error that says what is wrong with this server; ``what`` begins with a verb."""
        return ObservationError(f"{self.name} server at {self.url} {what}")


class AttachedServers(ServerPool):
    """The attached servers, with the interface of the pool of servers that the suite starts itself.

    Each server is verified before every observation. A server that fails once counts as failed until the end.
    """

    def __init__(self, profile: Profile, evidence: Evidence, attached: Attachment, *, owns: bool = True) -> None:
        super().__init__(profile, evidence, owns=False)  # it starts nothing, so it needs no watchdog
        self._attached, self._keeps_folder = attached, not owns
        self._proven: dict[str, AttachedServer] = {}
        self._failed: dict[str, ObservationError] = {}
        self._without_probe: dict[str, str] = {}

    @property
    def attached(self) -> bool:
        return True

    @property
    def on_this_machine(self) -> bool:
        return self._attached.local

    @property
    def has_plain_server(self) -> bool:
        return self._attached.plain_url is not None

    def mtp(self) -> Server:
        return self._verified(MTP, self._attached.url)

    def plain(self) -> Server:
        if self._attached.plain_url is None:
            raise Unsupported("There is no attached server without MTP to compare with: add --attach-plain URL.")
        return self._verified(PLAIN, self._attached.plain_url)

    def sweep(self) -> Server:
        raise self._not_ours("its draft length is not changed")

    def served(self) -> Server:
        raise self._not_ours("its configuration is not changed")

    def served_plain(self) -> Server:
        raise self._not_ours("its configuration is not changed")

    def require_own_servers(self, why: str) -> None:
        raise self._not_ours(why)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with super().exclusive():
            self._proven.clear()
            yield

    def attempt(self, arm: str) -> Attempt:
        raise self._not_ours(f"no other server ({arm}) is started beside it")

    @contextmanager
    def extra(self, name: str, change: Callable[[Launch], Launch], arm: str = MTP) -> Iterator[Server]:
        del change, arm
        raise self._not_ours(f"no other server ({name}) is started beside it")
        yield

    def extras(self, changes: Mapping[str, Callable[[Launch], Launch]], arm: str = MTP) -> Generator[Server]:
        del arm
        raise self._not_ours(f"no other servers ({', '.join(changes)}) are started beside it")
        yield

    def abandon(self) -> None:
        """Do nothing: nobody waits for an attached server longer than one request takes."""

    def close(self) -> None:
        """Remove the suite's own folder; the servers keep running."""
        if not self._keeps_folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _not_ours(self, why: str) -> Unsupported:
        return Unsupported(f"The suite did not start the server at {self._attached.url}: {why}.")

    def _verified(self, arm: str, url: str) -> AttachedServer:
        if arm in self._failed:
            raise self._failed[arm]
        if arm not in self._proven:
            try:
                self._proven[arm] = self._verify(arm, url)
            except ObservationError as failure:
                self._failed[arm] = failure
                raise
        return self._proven[arm]

    def _verify(self, arm: str, url: str) -> AttachedServer:
        seconds = self._profile.hardware.bounds.request_seconds
        log = self._evidence.logs / "attached.log"  # this file does not exist: the owner keeps the log elsewhere
        seen = AttachedServer(arm, "", 0, log, (), url=url)
        model = _model(seen, self._attached.model)
        _require_draft_length(seen, self._profile.pair.k if arm == MTP else 0)
        if arm not in self._without_probe:
            self._without_probe[arm] = "" if _has_probe(seen) else _advice(self._profile, url)
        server = AttachedServer(arm, model, 0, log, (), url=url, without_probe=self._without_probe[arm])
        _require_one_token(server, seconds)
        return server


def _model(server: AttachedServer, wanted: str | None) -> str:
    """The name of the model to ask.

    Raises:
        ObservationError: the server does not serve the wanted model, or it serves several and none is wanted.
    """
    answer = _ask_json(server, "GET", "/v1/models", _LOOK_SECONDS)
    try:
        served = [str(entry["id"]) for entry in answer["data"]]
    except (KeyError, TypeError):
        raise server.problem(f"gives no list of models at /v1/models: {str(answer)[:200]}") from None
    if wanted in served:
        return str(wanted)
    if wanted is None and len(served) == 1:
        return served[0]
    mend = "choose one by --model NAME" if served else "wait until it has loaded one"
    lacks = f"does not serve the model {wanted}; it " if wanted else ""
    raise server.problem(f"{lacks}serves {', '.join(served) or 'no model'}; {mend}")


def _require_draft_length(server: AttachedServer, k: int) -> None:
    """Require that the server drafts k tokens a step, as its counters show; 0 means that it does not draft.

    Raises:
        ObservationError: the server drafts another number of tokens.
    """
    positions = drafted_positions(server)
    if k and not positions:
        raise server.problem("does not draft: its /metrics counts no drafts; start it with --speculative-config")
    if positions and not k:
        raise server.problem(f"drafts {positions} tokens a step, but --attach-plain needs a server without MTP")
    if positions != k:
        raise server.problem(f"drafts {positions} tokens a step, but the pair's k is {k}; correct one of them")


def _has_probe(server: AttachedServer) -> bool:
    question = {"method": "conformance_describe", "kwargs": {}}
    try:
        return server.request("POST", "/collective_rpc", _LOOK_SECONDS, question).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _require_one_token(server: AttachedServer, seconds: float) -> None:
    answer = _ask_json(server, "POST", "/v1/chat/completions", seconds, one_token(server.model))
    if not is_one_token(answer):
        raise server.problem(f"did not answer a request for one token with one token: {str(answer)[:200]}")


def _ask_json(
    server: AttachedServer, method: str, path: str, seconds: float, question: Mapping[str, Any] | None = None
) -> Any:
    """The answer of the server, parsed as JSON.

    Raises:
        ObservationError: the server refuses the request or its answer is not JSON.
    """
    try:
        return json_of(server, method, path, seconds, question)
    except NoJSON as problem:
        if problem.status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            what = f"refused {path} with status {problem.status}; put its API key into {API_KEY}"
            raise server.problem(what) from None
        raise server.problem(str(problem)) from None


def _advice(profile: Profile, url: str) -> str:
    """Why the probe cannot be asked, with the command that starts the server with its probe."""
    try:
        return f"The server at {url} has no probe; this command starts it with the probe: {start_command(profile, url)}"
    except NotHere as error:
        return f"The server at {url} has no probe, and the command that starts it with one needs a checkpoint: {error}"


def start_command(profile: Profile, url: str) -> str:
    """The shell command that starts the profile's server with MTP and with the probe, as the suite itself does."""
    snapshots = Path(tempfile.gettempdir()) / "conformance-snapshots"
    address = ("--host", LOCAL[0], "--port", str(httpx.URL(url).port or 8000))
    environment = vllm_environment(profile, snapshots, {})
    settings = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    return " ".join([*settings, shlex.join((*vllm_command(profile, MTP), *address))])
