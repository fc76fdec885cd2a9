"""Servers that somebody else runs: they are asked, and never started, stopped or changed."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
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

_LOOK_SECONDS = 5.0  # for /v1/models and /version
_LARGEST = 1 << 26  # bytes of an answer
API_KEY = "OPENAI_API_KEY"  # the environment variable that holds it
LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Attachment:
    """Where they answer, without credentials, and under which name where they serve several models."""

    url: str
    plain_url: str | None = None
    model: str | None = None

    @property
    def local(self) -> bool:
        """Whether they run on this machine, so that its hardware is theirs."""
        return httpx.URL(self.url).host in LOCAL

    def version(self) -> str | None:
        """The vLLM that serves, or None where it does not say."""
        try:
            found = AttachedServer(MTP, "", 0, Path(), (), url=self.url).request("GET", "/version", _LOOK_SECONDS)
            return str(found.json()["version"]) if found.status_code == httpx.codes.OK else None
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return None


def attachment(url: str | None, plain_url: str | None, model: str | None) -> Attachment | None:
    """What the options name; None without ``--attach``. UsageError for an address that is none."""
    if url is None:
        for option, value in (("--attach-plain", plain_url), ("--model", model)):
            if value is not None:
                raise UsageError(f"{option} {value} goes with --attach URL, which is missing; add it.")
        return None
    if not os.environ.get(API_KEY, "").isascii():
        raise UsageError(f"{API_KEY} holds a character that no HTTP header can carry; correct it.")
    found = Attachment(_address("--attach", url), plain_url and _address("--attach-plain", plain_url), model)
    if found.url == found.plain_url:
        raise UsageError("--attach and --attach-plain name the same server; the second one serves without MTP.")
    return found


def _address(option: str, url: str) -> str:
    """The address without "/v1" and "/" at its end; it must hold nothing that may be secret."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        raise UsageError(f"{option} is no URL; write one such as http://127.0.0.1:8000.") from None
    if parts.userinfo or parts.query or parts.fragment:
        raise UsageError(f"{option} holds more than an address; put the API key into the variable {API_KEY}.")
    if parts.scheme not in ("http", "https") or not parts.host:
        raise UsageError(f"{option} {url} is no URL; write one such as http://127.0.0.1:8000.")
    return str(parts).rstrip("/").removesuffix("/v1").rstrip("/")


@dataclass(frozen=True)
class AttachedServer(Server):
    """A server that somebody else runs. ``without_probe`` says why it cannot be looked into; empty where it can."""

    url: str = ""
    without_probe: str = field(default="", repr=False)

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
        """Whether it answers at all."""
        try:
            return self.request("GET", "/v1/models", _LOOK_SECONDS).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def members(self) -> None:
        """Its processes are somebody else's."""

    def stop(self, grace: float) -> None:
        """Never: it is not ours."""

    def failure(self, what: str) -> ObservationError:
        return ObservationError(f"{self.name} server at {self.url}{'' if self.alive else ' is gone'}: {what}")

    def request(
        self, method: str, path: str, seconds: float, question: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        """One HTTP request; whoever sends byte after byte for ever is cut off after ``seconds`` too."""
        end, content = time.monotonic() + seconds, bytearray()
        with httpx.stream(
            method, self.url + path, json=question, headers=self.headers, timeout=seconds, trust_env=False
        ) as response:
            for part in response.iter_bytes():
                content += part
                if time.monotonic() > end or len(content) > _LARGEST:
                    raise httpx.ReadTimeout(f"{path} has no end after {len(content)} bytes")
            kept = {"content-type": response.headers.get("content-type", "")}
            return httpx.Response(response.status_code, headers=kept, content=bytes(content), request=response.request)

    def call(self, method: str, seconds: float, **arguments: Any) -> list[Any]:
        if self.without_probe:
            raise Unsupported(self.without_probe)
        return super().call(method, seconds, **arguments)


class AttachedServers(ServerPool):
    """The servers of an attachment, by the interface of those that the suite starts itself.

    Each is proven to be what it should be before every observation, until it fails to: then it has failed for good.
    """

    def __init__(self, profile: Profile, evidence: Evidence, attached: Attachment, *, owns: bool = True) -> None:
        super().__init__(profile, evidence, owns=False)  # nothing is started, so nobody has to guard it
        self._attached, self._keeps_folder = attached, not owns
        self._proven: dict[str, AttachedServer] = {}
        self._failed: dict[str, ObservationError] = {}
        self._without_probe: dict[str, str] = {}

    @property
    def attached(self) -> bool:
        return True

    @property
    def here(self) -> bool:
        return self._attached.local

    @property
    def both(self) -> bool:
        return self._attached.plain_url is not None

    def mtp(self) -> Server:
        return self._proof(MTP, self._attached.url)

    def plain(self) -> Server:
        if self._attached.plain_url is None:
            raise Unsupported("No server without MTP is attached to compare with: add --attach-plain URL.")
        return self._proof(PLAIN, self._attached.plain_url)

    def sweep(self) -> Server:
        raise self._not_ours("its draft length is left as it is")

    def must_be_ours(self, why: str) -> None:
        raise self._not_ours(why)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with super().exclusive():
            self._proven.clear()
            yield

    def attempt(self, arm: str) -> Attempt:
        raise self._not_ours(f"no other ({arm}) is started beside it")

    @contextmanager
    def extra(self, name: str, change: Callable[[Launch], Launch]) -> Iterator[Server]:
        del change
        raise self._not_ours(f"no other ({name}) is started beside it")
        yield

    def abandon(self) -> None:
        """Whoever waits for an answer of theirs waits no longer than for one request."""

    def close(self) -> None:
        """Let go of them; they run on."""
        if not self._keeps_folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _not_ours(self, why: str) -> Unsupported:
        return Unsupported(f"The server at {self._attached.url} is somebody else's: {why}.")

    def _proof(self, arm: str, url: str) -> AttachedServer:
        if arm in self._failed:
            raise self._failed[arm]
        if arm not in self._proven:
            try:
                self._proven[arm] = self._proved(arm, url)
            except ObservationError as failure:
                self._failed[arm] = failure
                raise
        return self._proven[arm]

    def _proved(self, arm: str, url: str) -> AttachedServer:
        seconds = self._profile.hardware.bounds.request_seconds
        log = self._evidence.logs / "attached.log"  # there is none: it is where its owner keeps it
        seen = AttachedServer(arm, "", 0, log, (), url=url)
        model = _model(seen, self._attached.model)
        _must_draft(seen, self._profile.pair.k if arm == MTP else 0)
        if arm not in self._without_probe:
            self._without_probe[arm] = "" if _has_probe(seen) else _advice(self._profile, url)
        server = AttachedServer(arm, model, 0, log, (), url=url, without_probe=self._without_probe[arm])
        _must_generate(server, seconds)
        return server


def _model(server: AttachedServer, wanted: str | None) -> str:
    """The model that is asked; ObservationError where it is not clear which one."""
    answer = _asked(server, "GET", "/v1/models", _LOOK_SECONDS)
    try:
        served = [str(entry["id"]) for entry in answer["data"]]
    except (KeyError, TypeError):
        raise _not(server, f"answers rubbish at /v1/models: {str(answer)[:200]}") from None
    if wanted in served:
        return str(wanted)
    if wanted is None and len(served) == 1:
        return served[0]
    mend = "choose one by --model NAME" if served else "it has not loaded one"
    lacks = f"no model {wanted}, but " if wanted else ""
    raise _not(server, f"serves {lacks}{', '.join(served) or 'nothing'}; {mend}")


def _must_draft(server: AttachedServer, k: int) -> None:
    """ObservationError unless it drafts k tokens a step, by the counters that it has; 0 is for no draft at all."""
    positions = drafted_positions(server)
    if k and not positions:
        raise _not(server, "does not draft: its /metrics counts no drafts; it wants --speculative-config")
    if positions and not k:
        raise _not(server, f"drafts {positions} tokens a step, so it is no server without MTP")
    if positions != k:
        raise _not(server, f"drafts {positions} tokens a step where the pair's k is {k}; correct the one or the other")


def _has_probe(server: AttachedServer) -> bool:
    question = {"method": "conformance_describe", "kwargs": {}}
    try:
        return server.request("POST", "/collective_rpc", _LOOK_SECONDS, question).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _must_generate(server: AttachedServer, seconds: float) -> None:
    answer = _asked(server, "POST", "/v1/chat/completions", seconds, one_token(server.model))
    if not is_one_token(answer):
        raise _not(server, f"was asked for one token and answered: {str(answer)[:200]}")


def _asked(
    server: AttachedServer, method: str, path: str, seconds: float, question: Mapping[str, Any] | None = None
) -> Any:
    """The JSON of an answer; ObservationError where there is none."""
    try:
        return json_of(server, method, path, seconds, question)
    except NoJSON as problem:
        if problem.status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise _not(server, f"refused {path} with status {problem.status}; put its API key into {API_KEY}") from None
        raise _not(server, str(problem)) from None


def _not(server: AttachedServer, what: str) -> ObservationError:
    return ObservationError(f"{server.name} server at {server.url} {what}")


def _advice(profile: Profile, url: str) -> str:
    """Why there is no looking into a server, with the command that starts it so that there is."""
    try:
        return f"The server at {url} has no probe; this starts it with one: {start_command(profile, url)}"
    except NotHere as error:
        return f"The server at {url} has no probe, and how to start it with one depends on a checkpoint: {error}"


def start_command(profile: Profile, url: str) -> str:
    """A line for a shell that starts the profile's server with MTP as the suite itself does, with its probe."""
    snapshots = Path(tempfile.gettempdir()) / "conformance-snapshots"
    place = ("--host", LOCAL[0], "--port", str(httpx.URL(url).port or 8000))
    environment = vllm_environment(profile, snapshots, {})
    settings = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    return " ".join([*settings, shlex.join((*vllm_command(profile, MTP), *place))])
