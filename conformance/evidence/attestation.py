"""An attestation: what a run found, stated about its evidence and signed, so that both can be sent and trusted.

The statement is in-toto's, with the predicate test-result: https://github.com/in-toto/attestation, spec/predicates. Its
subject is manifest.json, which lists the SHA-256 of every other file. OpenSSH signs it and OpenSSH verifies it, because
whoever runs servers has it, with keys and with a way to say whose they are.
"""

from __future__ import annotations

import base64
import binascii
import json
import shutil
import subprocess
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from conformance.errors import ObservationError, UsageError
from conformance.evidence.folder import (
    ATTESTATION,
    MANIFEST,
    is_finished,
    read_header,
    sha256,
    verify,
    write_atomically,
)
from conformance.evidence.journal import JOURNAL, read_journal
from conformance.formats.json_files import parse_json
from conformance.judging.verdict import ExitCode, Run, Verdict, judge_run

NAMESPACE = "gemma4-mtp-conformance"  # a signature made for anything else does not count
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
SCHEMA = Path(__file__).parent / "attestation.schema.json"
CONFIGURATION = ("profile.json", "header.json")  # the first as far as the recording suite wrote one
PASSED, WARNED, FAILED = "PASSED", "WARNED", "FAILED"
# What was not settled did not pass: whoever asks only for an empty failedTests must not be told otherwise.
TESTS = {
    "passedTests": (Verdict.PASS,),
    "warnedTests": (Verdict.WAIVED, Verdict.UNSUPPORTED),
    "failedTests": (Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE),
}
BEGIN, END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
PREAMBLE = b"SSHSIG\0\0\0\1"  # with the version, which the signature itself does not cover
COLUMNS = 70  # of the lines that ssh-keygen writes


@dataclass(frozen=True)
class Signed:
    """A statement, and whose signature it was found to carry."""

    statement: Mapping[str, Any]
    signer: str


class NotAuthentic(Exception):
    """Evidence, statement or signature is not what was signed; the message is one sentence that names the file."""


def sign(directory: Path, key: Path, identity: str | None) -> dict[str, Any]:
    """Write statement and signature into finished evidence; ``identity`` becomes part of what is stated.

    Raises UsageError for evidence that is not worth a signature and for a key that gives none.
    """
    read_header(directory)
    if not is_finished(directory):
        raise UsageError(f"{directory} is unfinished: it has no {MANIFEST}; go on with qualify --resume {directory}.")
    try:
        verify(directory)
        statement = state(directory, identity)
    except ObservationError as error:
        raise UsageError(f"{error}: record a new run, since this one is not worth a signature.") from error
    text = json.dumps(statement, indent=1, ensure_ascii=False) + "\n"
    made = _ssh_keygen("sign", "-f", key, "-n", NAMESPACE, message=text.encode())
    if made.returncode:
        raise UsageError(f"{key} does not sign: {_said(made)}; give --key an SSH key that ssh-keygen can use.")
    try:
        for name, content in zip(ATTESTATION, (text, made.stdout.decode()), strict=True):
            write_atomically(directory / name, content)
    except OSError as error:
        raise UsageError(f"{directory} cannot be written to ({error}): sign a copy of it.") from error
    return statement


def state(directory: Path, identity: str | None) -> dict[str, Any]:
    """The statement about finished evidence, from its recorded verdicts alone: judging again would be another run.

    Raises ObservationError where a file that it is made from is missing or unreadable.
    """
    run = read_journal(directory / JOURNAL)
    about = {"hardware": run.hardware, "pair": run.pair, "level": run.level, "vllm": read_header(directory).vllm}
    signed_by = {} if not identity else {"signer": identity}
    return {
        "_type": STATEMENT,
        "subject": [_resource(directory, MANIFEST) | {"annotations": about | signed_by}],
        "predicateType": PREDICATE,
        "predicate": {
            "result": result(run),
            "configuration": [_resource(directory, name) for name in CONFIGURATION if (directory / name).is_file()],
            **{name: [record.id for record in run.with_verdict(*verdicts)] for name, verdicts in TESTS.items()},
        },
    }


def result(run: Run) -> str:
    """PASSED for what would be certified, WARNED for what passed with less than that, FAILED for the rest."""
    if not run.complete or judge_run(run).exit_code is not ExitCode.QUALIFIED:
        return FAILED
    certified = judge_run(replace(run, certify=True)).exit_code is ExitCode.QUALIFIED
    return PASSED if certified and not run.unlocked else WARNED


def authenticate(directory: Path, signers: Path, identity: str | None) -> Signed:
    """The statement, once signature, manifest, every file and every verdict are found to be what was signed.

    ``identity`` asks for that signer; without it any of ``signers`` will do. Raises NotAuthentic, and UsageError for
    input that names nothing.
    """
    if not directory.is_dir():
        raise UsageError(f"{directory} is no folder: name one that qualify has recorded and signed.")
    if not signers.is_file():
        raise UsageError(f"{signers} is no file: give --signers an allowed-signers file as in ssh-keygen's manual.")
    found = _signed(directory, signers, identity)
    try:
        _must_agree(directory, found.statement)
    except ObservationError as error:
        raise NotAuthentic(f"{error}.") from error
    return found


def stated_signer(statement: Mapping[str, Any]) -> str | None:
    """Who the statement says has signed it, if it does."""
    found: str | None = statement["subject"][0]["annotations"].get("signer")
    return found


def _signed(directory: Path, signers: Path, identity: str | None) -> Signed:
    """The statement, if its signature is by one of the signers, and by the one that was asked for and is stated."""
    path, signature = (directory / name for name in ATTESTATION)
    for each in (path, signature):
        if not each.is_file():
            raise NotAuthentic(f"{each} is missing: this evidence was never signed, or its signature was taken away.")
    if not _is_canonical(signature.read_bytes()):
        raise NotAuthentic(f"{signature} is not in the form in which ssh-keygen writes a signature.")
    message = path.read_bytes()
    statement = _parsed(path, message)
    stated = stated_signer(statement)
    if identity and stated not in (None, identity):
        raise NotAuthentic(f"{path} says that {stated} signed it, where {identity} is asked for.")
    who = identity or stated or _principal(signature, signers)
    checked = _ssh_keygen("verify", "-f", signers, "-I", who, "-n", NAMESPACE, "-s", signature, message=message)
    if checked.returncode:
        raise NotAuthentic(f"{path} is not what {who} signed in {signature.name}: {_said(checked)}.")
    return Signed(statement, who)


def _parsed(path: Path, message: bytes) -> dict[str, Any]:
    """The statement of a file; it may be anybody's until its signature is verified."""
    try:
        statement: dict[str, Any] = parse_json(message)
    except ValueError as error:
        raise NotAuthentic(f"{path} is no statement: {error}.") from error
    schema = Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    wrong = next(schema.iter_errors(statement), None)
    if wrong is not None:
        raise NotAuthentic(f"{path} is no statement that this version reads: {wrong.json_path}: {wrong.message[:300]}.")
    return statement


def _principal(signature: Path, signers: Path) -> str:
    """Whose signature it is, among the allowed ones; whether it is a good one is still to be verified."""
    found = _ssh_keygen("find-principals", "-s", signature, "-f", signers)
    if found.returncode:
        raise NotAuthentic(f"{signature} was made with a key that is not in {signers}.")
    return found.stdout.decode().splitlines()[0].partition(",")[0]


def _must_agree(directory: Path, statement: Mapping[str, Any]) -> None:
    """The evidence is the one that the statement is about, and says the same."""
    path = directory / MANIFEST
    if not path.is_file() or sha256(path) != statement["subject"][0]["digest"]["sha256"]:
        raise NotAuthentic(f"{path} is not the manifest that was signed: its SHA-256 is not the statement's.")
    verify(directory)
    stated, found = _claims(statement), _claims(state(directory, stated_signer(statement)))
    for name, claim in stated.items():
        if claim != found[name]:
            raise NotAuthentic(
                f"{directory / ATTESTATION[0]} is at odds with the evidence: {name} is {claim}, not {found[name]}."
            )


def _claims(statement: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that is stated, each claim under its own name."""
    return {**statement["subject"][0], **statement["predicate"]}


def _resource(directory: Path, name: str) -> dict[str, Any]:
    """What in-toto calls a ResourceDescriptor."""
    return {"name": name, "digest": {"sha256": sha256(directory / name)}}


def _is_canonical(signature: bytes) -> bool:
    """Whether these are the very bytes that ssh-keygen would write; it reads many others as the same signature."""
    try:
        first, *lines, last, end = signature.decode("ascii").split("\n")
        blob = base64.b64decode("".join(lines), validate=True)
    except (ValueError, binascii.Error):
        return False
    wrapped = textwrap.wrap(base64.b64encode(blob).decode(), COLUMNS)
    return (first, last, end, lines) == (BEGIN, END, "", wrapped) and blob.startswith(PREAMBLE)


def _ssh_keygen(action: str, *words: str | Path, message: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise UsageError("ssh-keygen is not on PATH: install OpenSSH 8.2 or later, which signs and verifies here.")
    return subprocess.run([program, "-Y", action, *words], input=message, capture_output=True, check=False)


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    """What ssh-keygen complained of, as the end of a sentence."""
    lines = (done.stderr + done.stdout).decode("utf-8", errors="replace").split("\n")
    return "; ".join(line.strip() for line in lines if line.strip()).rstrip(".") or f"exit code {done.returncode}"
