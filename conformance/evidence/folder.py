"""Evidence: the directory that holds the observations of one run.

::

    header.json          what was observed: hardware, pair, level, versions, start, data set
    profile.json         the resolved profile: hardware, pair and level
    prompts/             all prompts, if a file of the user replaced some
    observations/*.json  raw facts, one document for each observer, valid against observers/*.schema.json
    servers/*.json       the command and the environment of each server
    logs/                full server logs
    verdicts.jsonl       the verdicts of the recording run
    junit.xml            the same for continuous integration
    sbom.json            what served, as a CycloneDX document: packages, and the weights by SHA-256
    manifest.json        SHA-256 of every file above; written last, so that its presence means "finished"
    report.*             reports for readers (HTML, Markdown, JSON); not evidence: every judging writes them again
    attestation.json*    a signed statement about the manifest and the verdicts (evidence/attestation.py)

After a directory is finished, only the reports and the attestation are written to it. A directory without manifest
comes from a stopped run: the run can be resumed, which keeps the existing observations, or judged as far as it goes.
Only prompts may contain a secret that ``evidence/redaction.py`` recognises.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from conformance import PACKAGE
from conformance.errors import NotHere, NotRecorded, ObservationError, Unsupported, UsageError
from conformance.evidence.redaction import redact_document, redact_file, redact_text
from conformance.formats.json_files import parse_json
from conformance.formats.json_schema import first_violation

FORMAT = 1
SCHEMAS = PACKAGE / "observers"  # each schema lies beside the observer that writes the document
FORMER_NAMES = {"near_ties": "ties", "bad_requests": "misuse"}  # of observations that earlier versions recorded
HEADER = "header.json"
PROFILE = "profile.json"
MANIFEST = "manifest.json"
BILL = "sbom.json"
REPORTS = ("report.html", "report.md", "report.json")
ATTESTATION = ("attestation.json", "attestation.json.sig")
FOREIGN = ("logs", "bench", "snapshots")  # folders that servers and vLLM's own tools write into
TOLD_SECONDS = 10.0  # between two lines of one who waits
_making: ContextVar[str] = ContextVar("the observation that this thread makes", default="")


@dataclass(frozen=True)
class Header:
    """What was observed, and when; times are UTC in ISO 8601."""

    hardware: str
    pair: str
    level: str
    started: str
    vllm: str | None
    suite: str
    format: int = FORMAT
    dataset: str | None = None  # the file that replaced the mixed prompts
    dataset_sha256: str | None = None
    task_set: str | None = None  # the file that replaced the questions with checkable answers
    task_set_sha256: str | None = None
    hardware_asked: str | None = None  # the value of --hardware; None if the detected hardware is used
    hardware_detected: str | None = None  # the GPUs of this machine in words, or why there are none
    attached: str | None = None  # the address of a server that somebody else runs
    attached_plain: str | None = None  # and of the one without MTP
    attached_model: str | None = None  # the value of --model
    image: str | None = None  # the container image that served
    image_digest: str | None = None  # identifies the image
    container: str | None = None  # "docker" or "podman"
    ssh: str | None = None  # the host that served
    ssh_python: str | None = None  # and its Python
    environment: str | None = None  # the installed folder of envs/, or UNLOCKED; None means the hardware's own


class Evidence:
    """The directory of one run. With ``recording``, missing observations may be made; else they count as missing."""

    def __init__(self, directory: Path, recording: bool) -> None:
        self.directory = directory
        self.recording = recording
        self._owned: FileLock | None = None
        self._unkept: dict[str, ObservationError] = {}  # why an observation could not be written

    @property
    def logs(self) -> Path:
        """The folder of the servers' logs."""
        return self.directory / "logs"

    @property
    def begun(self) -> bool:
        """Whether the directory has a header; without a header it is not evidence."""
        return (self.directory / HEADER).is_file()

    def own(self) -> None:
        """Prevent every other session from recording here until ``release``.

        Raises:
            UsageError: another session records here, or the directory cannot be written.
        """
        lock = FileLock(self._locks / "owner.lock", timeout=0)
        try:
            self._locks.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            mend = "wait for its end, or record into another folder"
            raise UsageError(f"{self.directory} is still being recorded by another process: {mend}.") from None
        except OSError as error:
            raise UsageError(f"{self.directory} cannot be recorded into ({error}): choose another folder.") from None
        self._owned = lock

    def release(self) -> None:
        """Let others record here; remove the folder if the evidence was never begun."""
        if self._owned is None:
            return
        if not self.begun:
            with contextlib.suppress(OSError):  # the folder is not empty
                Path(self._owned.lock_file).unlink()
                self._locks.rmdir()
                self.directory.rmdir()
        self._owned.release()
        self._owned = None

    def begin(self, header: Header, profile: Mapping[str, Any]) -> Header:
        """Create the directory with header and profile, unless they exist; return the header in the directory."""
        self._locks.mkdir(parents=True, exist_ok=True)
        with FileLock(self._locks / "header.lock"):
            if not self.begun:  # first of all, because files without a header count as foreign
                write_atomically(self.profile, _json(redact_document(profile)))
                write_atomically(self.directory / HEADER, _json(redact_document(asdict(header))))
            for folder in (self.directory / "observations", self.logs):
                folder.mkdir(exist_ok=True)
            return read_header(self.directory)

    def observe(
        self, name: str, make: Callable[[], Mapping[str, Any]], tell: Callable[[str], None] = lambda _: None
    ) -> dict[str, Any]:
        """Read the observation ``name``, or make, validate and keep it if it does not exist.

        If several workers need the same observation, all but the first wait and ``tell`` so. An ObservationError or
        Unsupported that ``make`` raises is kept too and raised again at every later read, so that a server that cannot
        start is started once, not once for each check.

        Raises:
            NotRecorded: the evidence is only read and lacks the observation.
            ObservationError: the observation could not be made, or its file is damaged.
            Unsupported: this hardware or this vLLM does not support the observation.
        """
        path = self._observation(name)
        if not self.recording:
            if not path.exists():
                raise NotRecorded(f"the observation {name!r} was not recorded in {self.directory}")
            return _read_observation(name, path)
        with waiting(FileLock(self._locks / f"{name}.lock").acquire, lambda: f"the observation {name}", tell):
            if not path.exists():
                self._keep(name, path, make)
        return _read_observation(name, path)

    def _keep(self, name: str, path: Path, make: Callable[[], Mapping[str, Any]]) -> None:
        """Make an observation and write it down; where that fails, it is not made again for each check.

        Raises:
            ObservationError: it cannot be written.
        """
        if name in self._unkept:
            raise self._unkept[name]
        try:
            write_atomically(path, _json(_make_observation(name, make)))
        except ObservationError as error:
            self._unkept[name] = error
            raise

    def holds(self, name: str) -> bool:
        """Whether the observation exists."""
        return self._observation(name).exists()

    def recorded_as(self, source: str) -> str:
        """The file of this evidence that a finding names as its source; earlier versions used other file names."""
        folder, _, file = source.partition("/")
        if folder != "observations":
            return source
        return f"{folder}/{self._observation(file.removesuffix('.json')).name}"

    def log_tails(self, limit: int = 65536) -> str:
        """The last ``limit`` bytes of every server log, for matching the signatures of known failures."""
        return "\n".join(_tail(path, limit) for path in sorted(self.logs.glob("*.log")))

    def redact(self) -> None:
        """Remove secrets from the files of servers and of vLLM's tools, after they have been written."""
        for path in _files(self.directory):
            if path.relative_to(self.directory).parts[0] in FOREIGN:
                redact_file(path)

    def finish(self) -> None:
        """Write the manifest; after that the directory is only read."""
        files = {str(path.relative_to(self.directory)): sha256(path) for path in _files(self.directory)}
        document = {"format": FORMAT, "finished": now(), "files": files}
        write_atomically(self.directory / MANIFEST, _json(document))
        if self._locks.is_dir():  # nobody needs a lock any more
            for lock in self._locks.iterdir():
                lock.unlink()
            self._locks.rmdir()

    @property
    def prompts(self) -> Path:
        """The folder of a data set's prompts."""
        return self.directory / "prompts"

    @property
    def profile(self) -> Path:
        """The file of the profile that the recording run resolved."""
        return self.directory / PROFILE

    def _observation(self, name: str) -> Path:
        """The file of an observation, under its former name if an earlier version recorded it."""
        folder = self.directory / "observations"
        path, former = folder / f"{name}.json", folder / f"{FORMER_NAMES.get(name, name)}.json"
        return former if former.exists() and not path.exists() else path

    @property
    def _locks(self) -> Path:
        return self.directory / ".locks"


def is_finished(directory: Path) -> bool:
    """Whether the run that recorded this directory finished."""
    return (directory / MANIFEST).is_file()


def is_free(directory: Path) -> bool:
    """Whether a run may begin here: the directory is empty, or another run ended here before it wrote a header."""
    found = directory.iterdir() if directory.is_dir() else ()
    return all(path.name == PROFILE or path.name.startswith(".") for path in found)


def verify(directory: Path) -> None:
    """Compare every file with the manifest.

    Raises:
        ObservationError: a file differs; the sentence names the first one.
    """
    listed = _load(directory / MANIFEST).get("files")
    if not isinstance(listed, dict):
        raise ObservationError(f"{directory / MANIFEST} lists no files")
    present = {str(path.relative_to(directory)) for path in _files(directory)}
    for name in sorted(listed.keys() | present):
        if name not in present:
            raise ObservationError(f"{directory / name} is missing: manifest.json lists it")
        if name not in listed:
            raise ObservationError(f"{directory / name} was added after recording: manifest.json does not list it")
        if sha256(directory / name) != listed[name]:
            raise ObservationError(f"{directory / name} was changed after recording: its SHA-256 is not the manifest's")


def new_header(
    hardware: str, pair: str, level: str, *, vllm: str | None, suite: str | None, environment: str | None = None
) -> Header:
    """The header of a run that starts now; ``vllm`` and ``suite`` are the installed versions, None for none."""
    return Header(hardware, pair, level, now(), vllm, suite or "not installed", environment=environment)


def read_header(directory: Path) -> Header:
    """The header of a directory's evidence.

    Raises:
        UsageError: the directory holds no evidence that this version reads.
        ObservationError: the header is damaged.
    """
    path = directory / HEADER
    if not path.is_file():
        raise UsageError(f"{directory} holds no evidence: it has no {HEADER}.")
    try:
        return Header(**_load(path))
    except TypeError as error:
        raise UsageError(f"{path} is not a header that this version reads ({error}).") from error


def now() -> str:
    """The current time in UTC and ISO 8601, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_atomically(path: Path, text: str) -> None:
    """Write another file and rename it, so that a reader or a crash never meets an incomplete file.

    Raises:
        ObservationError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise ObservationError(f"{path} cannot be written ({error.strerror})") from None


def making() -> str:
    """The name of the observation that this thread makes; empty if it makes none."""
    return _making.get()


def waiting(
    acquire: Callable[[float], AbstractContextManager[Any]], for_what: Callable[[], str], tell: Callable[[str], None]
) -> AbstractContextManager[Any]:
    """The acquired lock; every few seconds until then, ``tell`` gets a line that says who waits, for what, how long."""
    begin, who = time.monotonic(), making() or "a check"
    while True:
        try:
            return acquire(TOLD_SECONDS)
        except Timeout:
            tell(f"{who} waits for {for_what()}, {time.monotonic() - begin:.0f} s so far")


def _make_observation(name: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    token = _making.set(name)
    try:
        # The round trip through JSON gives exactly what a later reader gets: string keys, lists, no NaN.
        facts = json.loads(json.dumps(redact_document(dict(make())), allow_nan=False))
        _validate(name, facts)
    except ObservationError as error:
        return _failure("ObservationError", error.sentence, error.log_tail)
    except (Unsupported, NotHere) as error:  # an attached server needs no checkpoint here
        return _failure("Unsupported", str(error))
    except UsageError as error:
        return _failure("ObservationError", str(error))
    except Exception as error:  # a defect of the observer, also kept, so that no other check repeats it
        sentence = f"the observer of {name!r} failed: {type(error).__name__}: {error}"
        return _failure("ObservationError", sentence, traceback.format_exc())
    finally:
        _making.reset(token)
    return dict(facts)


def _failure(kind: str, sentence: str, log_tail: str = "") -> dict[str, Any]:
    return {"error": {"kind": kind, "sentence": redact_text(sentence), "log_tail": redact_text(log_tail)}}


def _read_observation(name: str, path: Path) -> dict[str, Any]:
    document = _load(path)
    error = document.get("error")
    if error is None:
        _validate(name, document)
        return document
    if error["kind"] == "Unsupported":
        raise Unsupported(error["sentence"])
    raise ObservationError(error["sentence"], error["log_tail"])


def _validate(name: str, facts: Any) -> None:
    path = SCHEMAS / f"{name.partition('-')[0]}.schema.json"  # all looks have the schema of the first
    if not path.is_file():
        raise ObservationError(f"there is no observation {name!r}: conformance/observers has no {path.name}")
    wrong = first_violation(path, facts)
    if wrong is not None:
        where = "/".join(map(str, wrong.path)) or "the document"
        raise ObservationError(f"the observation {name!r} does not match its schema: {where}: {wrong.message[:300]}")


def _load(path: Path) -> dict[str, Any]:
    try:
        document = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ObservationError(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ObservationError(f"{path} holds no JSON object")
    return document


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _files(directory: Path) -> Iterator[Path]:
    """Every file of the evidence except manifest, reports, attestation and hidden files."""
    aside = {directory / name for name in (MANIFEST, *REPORTS, *ATTESTATION)}
    for path in sorted(directory.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
        if path.is_file() and not hidden and path not in aside:
            yield path


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tail(path: Path, limit: int) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - limit))
        return file.read().decode("utf-8", errors="replace")
