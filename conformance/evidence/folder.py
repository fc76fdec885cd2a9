"""Evidence: the directory that holds what one run saw.

::

    header.json          who was observed: hardware, pair, level, versions, start, data set
    profile.json         hardware, pair and level as they were resolved
    prompts/             what was asked, where a data set took the place of the mixed prompts
    observations/*.json  raw facts, one document for each observer, valid against observers/*.schema.json
    servers/*.json       with which command and environment each server was started
    logs/                full server logs
    verdicts.jsonl       the verdicts of the recording run
    junit.xml            the same for continuous integration
    manifest.json        SHA-256 of every file above; written last, so that its presence means "finished"
    report.*             all of that for readers (HTML, Markdown, JSON); no evidence, so each judging makes them again
    attestation.json*    what was found, stated about the manifest and signed (evidence/attestation.py)

A finished directory is never written to again, but for the reports and the attestation. One without manifest is what a
stopped run left: it can be recorded further (what is there is kept) or judged as far as it goes. Nothing in it, but for
prompts, keeps a secret that ``evidence/redaction.py`` knows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from jsonschema import Draft202012Validator

from conformance import PACKAGE
from conformance.errors import NotHere, NotRecorded, ObservationError, Unsupported, UsageError
from conformance.evidence.redaction import redact_document, redact_file, redact_text
from conformance.formats.json_files import parse_json

FORMAT = 1
SCHEMAS = PACKAGE / "observers"  # each lies beside the observer that writes the document
FORMER_NAMES = {"near_ties": "ties", "bad_requests": "misuse"}  # of observations that earlier versions recorded
HEADER = "header.json"
PROFILE = "profile.json"
MANIFEST = "manifest.json"
REPORTS = ("report.html", "report.md", "report.json")
ATTESTATION = ("attestation.json", "attestation.json.sig")
FOREIGN = ("logs", "bench", "snapshots")  # folders that servers and vLLM's own tools write into


@dataclass(frozen=True)
class Header:
    """Who was observed, and when; times are UTC in ISO 8601."""

    hardware: str
    pair: str
    level: str
    started: str
    vllm: str | None
    suite: str
    format: int = FORMAT
    dataset: str | None = None  # the file that took the place of the mixed prompts
    dataset_sha256: str | None = None
    hardware_asked: str | None = None  # what --hardware said; None where the detected one was taken
    hardware_detected: str | None = None  # the GPUs of this machine in words, or why there are none
    attached: str | None = None  # the address of a server that somebody else runs
    attached_plain: str | None = None  # and of the same without MTP
    attached_model: str | None = None  # the name that was chosen where they serve several
    image: str | None = None  # the container image that served
    image_digest: str | None = None  # by which it is the same one
    container: str | None = None  # "docker" or "podman"
    ssh: str | None = None  # the host that served
    ssh_python: str | None = None  # and its Python
    environment: str | None = None  # the folder of envs/ that is installed, or UNLOCKED; None is the hardware's own


class Evidence:
    """One run's directory; ``recording`` says whether what is missing may be observed, or counts as missing."""

    def __init__(self, directory: Path, recording: bool) -> None:
        self.directory = directory
        self.recording = recording
        self._owned: FileLock | None = None

    @property
    def logs(self) -> Path:
        """Where servers put their logs."""
        return self.directory / "logs"

    @property
    def begun(self) -> bool:
        """Whether it says who is observed, without which it is no evidence."""
        return (self.directory / HEADER).is_file()

    def own(self) -> None:
        """Keep every other session from recording here until ``release``; UsageError where another one does."""
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
        """Let others record here; a folder that was never begun is gone again."""
        if self._owned is None:
            return
        if not self.begun:
            with contextlib.suppress(OSError):  # something else is in it
                Path(self._owned.lock_file).unlink()
                self._locks.rmdir()
                self.directory.rmdir()
        self._owned.release()
        self._owned = None

    def begin(self, header: Header, profile: Mapping[str, Any]) -> Header:
        """Make the directory with header and profile, unless they are there; the header that holds is returned."""
        self._locks.mkdir(parents=True, exist_ok=True)
        with FileLock(self._locks / "header.lock"):
            if not self.begun:  # before anything else, which without a header would be somebody else's
                write_atomically(self.profile, _json(redact_document(profile)))
                write_atomically(self.directory / HEADER, _json(redact_document(asdict(header))))
            for folder in (self.directory / "observations", self.logs):
                folder.mkdir(exist_ok=True)
            return read_header(self.directory)

    def observe(self, name: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The observation ``name``, read if it is there, else made, validated and kept.

        Workers that need the same observation at once wait for the first of them. An ObservationError or Unsupported
        raised by ``make`` is kept as well and raised again at every later read, so that a server that cannot start
        is started once and not once a check.
        """
        path = self._observation(name)
        if not self.recording:
            if not path.exists():
                raise NotRecorded(f"the observation {name!r} was not recorded in {self.directory}")
            return _facts(name, path)
        with FileLock(self._locks / f"{name}.lock"):
            if not path.exists():
                write_atomically(path, _json(_made(name, make)))
        return _facts(name, path)

    def holds(self, name: str) -> bool:
        """Whether the observation is there already."""
        return self._observation(name).exists()

    def recorded_as(self, source: str) -> str:
        """Where this evidence has what a finding names as its source; earlier versions used other names."""
        folder, _, file = source.partition("/")
        if folder != "observations":
            return source
        return f"{folder}/{self._observation(file.removesuffix('.json')).name}"

    def log_tails(self, limit: int = 65536) -> str:
        """The last ``limit`` bytes of every server log, for the signatures of known failures."""
        return "\n".join(_tail(path, limit) for path in sorted(self.logs.glob("*.log")))

    def redact(self) -> None:
        """Take the secrets out of what others wrote, when they are done with it."""
        for path in _files(self.directory):
            if path.relative_to(self.directory).parts[0] in FOREIGN:
                redact_file(path)

    def finish(self) -> None:
        """Write the manifest; from then on the directory is read and never written."""
        files = {str(path.relative_to(self.directory)): sha256(path) for path in _files(self.directory)}
        document = {"format": FORMAT, "finished": now(), "files": files}
        write_atomically(self.directory / MANIFEST, _json(document))
        if self._locks.is_dir():  # nobody asks for one any more
            for lock in self._locks.iterdir():
                lock.unlink()
            self._locks.rmdir()

    @property
    def prompts(self) -> Path:
        """Where the prompts of a data set are kept."""
        return self.directory / "prompts"

    @property
    def profile(self) -> Path:
        """What the recording run made of hardware, pair and level."""
        return self.directory / PROFILE

    def _observation(self, name: str) -> Path:
        """The file of an observation; that of its former name where an earlier version recorded it."""
        folder = self.directory / "observations"
        path, former = folder / f"{name}.json", folder / f"{FORMER_NAMES.get(name, name)}.json"
        return former if former.exists() and not path.exists() else path

    @property
    def _locks(self) -> Path:
        return self.directory / ".locks"


def is_finished(directory: Path) -> bool:
    """Whether a run recorded this directory to its end."""
    return (directory / MANIFEST).is_file()


def is_free(directory: Path) -> bool:
    """Whether a run may begin here: nothing is there, or what another left that ended before it had a header."""
    found = directory.iterdir() if directory.is_dir() else ()
    return all(path.name == PROFILE or path.name.startswith(".") for path in found)


def verify(directory: Path) -> None:
    """Compare every file with the manifest; raise ObservationError naming the first one that differs."""
    listed = _load(directory / MANIFEST).get("files")
    if not isinstance(listed, dict):
        raise ObservationError(f"{directory / MANIFEST} lists no files")
    present = {str(path.relative_to(directory)) for path in _files(directory)}
    for name in sorted(listed.keys() | present):
        if name not in present:
            raise ObservationError(f"{directory / name} is gone: manifest.json lists it")
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
    """Who a directory's evidence is about. Raises UsageError where it holds none."""
    path = directory / HEADER
    if not path.is_file():
        raise UsageError(f"{directory} holds no evidence: it has no {HEADER}.")
    try:
        return Header(**_load(path))
    except TypeError as error:
        raise UsageError(f"{path} is not a header that this version reads ({error}).") from error


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_atomically(path: Path, text: str) -> None:
    """Write beside the file and rename, so that no reader and no crash ever leaves half of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _made(name: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    try:
        facts = json.loads(
            _json(redact_document(dict(make())))
        )  # exactly what a later reader will get: string keys, lists, no NaN
        _validate(name, facts)
    except ObservationError as error:
        return _failure("ObservationError", error.sentence, error.log_tail)
    except (Unsupported, NotHere) as error:  # a server that somebody else runs needs no checkpoint here
        return _failure("Unsupported", str(error))
    except UsageError as error:
        return _failure("ObservationError", str(error))
    except Exception as error:  # a defect of the observer: kept too, so that no other check waits for it again
        sentence = f"the observer of {name!r} broke: {type(error).__name__}: {error}"
        return _failure("ObservationError", sentence, traceback.format_exc())
    return dict(facts)


def _failure(kind: str, sentence: str, log_tail: str = "") -> dict[str, Any]:
    return {"error": {"kind": kind, "sentence": redact_text(sentence), "log_tail": redact_text(log_tail)}}


def _facts(name: str, path: Path) -> dict[str, Any]:
    document = _load(path)
    error = document.get("error")
    if error is None:
        _validate(name, document)
        return document
    if error["kind"] == "Unsupported":
        raise Unsupported(error["sentence"])
    raise ObservationError(error["sentence"], error["log_tail"])


def _validate(name: str, facts: Any) -> None:
    path = SCHEMAS / f"{name.partition('-')[0]}.schema.json"  # a later look has the shape of the first
    if not path.is_file():
        raise ObservationError(f"there is no observation {name!r}: conformance/observers has no {path.name}")
    wrong = next(iter(Draft202012Validator(_load(path)).iter_errors(facts)), None)
    if wrong is not None:
        where = "/".join(str(part) for part in wrong.absolute_path) or "the document"
        raise ObservationError(f"the observation {name!r} is not in its agreed shape: {where}: {wrong.message[:300]}")


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
    """Every file of the evidence but the manifest, what is made from it, and what begins with a dot."""
    aside = {directory / name for name in (MANIFEST, *REPORTS, *ATTESTATION)}
    for path in sorted(directory.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
        if path.is_file() and not hidden and path not in aside:
            yield path


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tail(path: Path, limit: int) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - limit))
        return file.read().decode("utf-8", errors="replace")
