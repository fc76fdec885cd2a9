"""Attestations: a signed statement of what a run found in its evidence, so that others can trust both.

The statement is in-toto's, with the predicate test-result: https://github.com/in-toto/attestation, spec/predicates. Its
subject is manifest.json, which lists the SHA-256 of every other file. OpenSSH signs and verifies it, because people who
run servers have OpenSSH, keys, and files that say whose keys they are.
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
from conformance.formats.json_schema import first_violation
from conformance.judging.verdict import ExitCode, Run, Verdict, judge_run

NAMESPACE = "gemma4-mtp-conformance"  # a signature for another namespace does not count
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
SCHEMA = Path(__file__).parent / "attestation.schema.json"
CONFIGURATION = ("profile.json", "header.json")  # early versions of the suite wrote no profile.json
PASSED, WARNED, FAILED = "PASSED", "WARNED", "FAILED"
# An undecided check did not pass, because a reader may only look whether failedTests is empty.
TESTS = {
    "passedTests": (Verdict.PASS,),
    "warnedTests": (Verdict.WAIVED, Verdict.UNSUPPORTED),
    "failedTests": (Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE),
}
BEGIN, END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
PREAMBLE = b"SSHSIG\0\0\0\1"  # with the version, which the signature itself does not cover
COLUMNS = 70  # in the lines that ssh-keygen writes


@dataclass(frozen=True)
class Signed:
    """A statement whose signature was verified, and its signer."""

    statement: Mapping[str, Any]
    signer: str


class NotAuthentic(Exception):
    """The evidence, the statement or the signature is not the signed one. The message names the file."""


def sign(directory: Path, key: Path, identity: str | None) -> dict[str, Any]:
    """Write statement and signature into finished evidence; ``identity`` becomes part of the statement.

    Raises:
        UsageError: the evidence is unfinished, damaged or read-only, or ssh-keygen cannot sign with the key.
    """
    read_header(directory)
    if not is_finished(directory):
        raise UsageError(f"{directory} is unfinished: it has no {MANIFEST}; finish it by qualify --resume {directory}.")
    try:
        verify(directory)
        statement = state(directory, identity)
    except ObservationError as error:
        raise UsageError(f"{error}: this evidence cannot be signed; record a new run.") from error
    text = json.dumps(statement, indent=1, ensure_ascii=False) + "\n"
    made = _ssh_keygen("sign", "-f", key, "-n", NAMESPACE, message=text.encode())
    if made.returncode:
        raise UsageError(f"{key} does not sign: {_error_of(made)}; give --key an SSH key that ssh-keygen can use.")
    try:
        for name, content in zip(ATTESTATION, (text, made.stdout.decode()), strict=True):
            write_atomically(directory / name, content)
    except OSError as error:
        raise UsageError(f"{directory} cannot be written to ({error}): sign a copy of it.") from error
    return statement


def state(directory: Path, identity: str | None) -> dict[str, Any]:
    """The statement about finished evidence. It uses the recorded verdicts, because judging again is another run.

    Raises:
        ObservationError: a file of the evidence is missing or unreadable.
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
    """PASSED for a run that would be certified, WARNED for any other run that passed, FAILED for the rest."""
    if not run.complete or judge_run(run).exit_code is not ExitCode.QUALIFIED:
        return FAILED
    certified = judge_run(replace(run, certify=True)).exit_code is ExitCode.QUALIFIED
    return PASSED if certified and not run.unlocked else WARNED


def authenticate(directory: Path, signers: Path, identity: str | None) -> Signed:
    """Verify the signature, the manifest, every file and every verdict; return the statement.

    With ``identity``, only that signer counts; without it, any of ``signers`` does.

    Raises:
        NotAuthentic: the evidence, the statement or the signature is not the signed one.
        UsageError: the directory or the file of signers does not exist, or ssh-keygen is missing.
    """
    if not directory.is_dir():
        raise UsageError(f"{directory} is not a folder: name one that qualify has recorded and signed.")
    if not signers.is_file():
        raise UsageError(f"{signers} is not a file: give --signers an allowed-signers file as in ssh-keygen's manual.")
    found = _verify_signature(directory, signers, identity)
    try:
        _require_agreement(directory, found.statement)
    except ObservationError as error:
        raise NotAuthentic(f"{error}.") from error
    return found


def stated_signer(statement: Mapping[str, Any]) -> str | None:
    """The signer that the statement names, or None."""
    found: str | None = statement["subject"][0]["annotations"].get("signer")
    return found


def _verify_signature(directory: Path, signers: Path, identity: str | None) -> Signed:
    """The statement, after its signature is verified to be by an allowed signer, the wanted one and the stated one.

    Raises:
        NotAuthentic: the signature is missing, wrong, or by another signer.
    """
    path, signature = (directory / name for name in ATTESTATION)
    for each in (path, signature):
        if not each.is_file():
            raise NotAuthentic(f"{each} is missing: this evidence was never signed, or its signature was removed.")
    if not _is_canonical(signature.read_bytes()):
        raise NotAuthentic(f"{signature} is not in the form in which ssh-keygen writes a signature.")
    message = path.read_bytes()
    statement = _parse_statement(path, message)
    stated = stated_signer(statement)
    if identity and stated not in (None, identity):
        raise NotAuthentic(f"{path} says that {stated} signed it, but --identity asks for {identity}.")
    who = identity or stated or _principal(signature, signers)
    checked = _ssh_keygen("verify", "-f", signers, "-I", who, "-n", NAMESPACE, "-s", signature, message=message)
    if checked.returncode:
        raise NotAuthentic(f"{path} is not what {who} signed in {signature.name}: {_error_of(checked)}.")
    return Signed(statement, who)


def _parse_statement(path: Path, message: bytes) -> dict[str, Any]:
    """The statement in a file; it cannot be trusted until its signature is verified.

    Raises:
        NotAuthentic: the file is not a statement, or not one that this version reads.
    """
    try:
        statement: dict[str, Any] = parse_json(message)
    except ValueError as error:
        raise NotAuthentic(f"{path} is not a statement: {error}.") from error
    wrong = first_violation(SCHEMA, statement)
    if wrong is not None:
        raise NotAuthentic(
            f"{path} is not a statement that this version reads: {wrong.json_path}: {wrong.message[:300]}."
        )
    return statement


def _principal(signature: Path, signers: Path) -> str:
    """The allowed signer to whom the key of this signature belongs; the signature itself is not verified yet.

    Raises:
        NotAuthentic: the key belongs to none of the allowed signers.
    """
    found = _ssh_keygen("find-principals", "-s", signature, "-f", signers)
    if found.returncode:
        raise NotAuthentic(f"{signature} was made with a key that is not in {signers}.")
    return found.stdout.decode().splitlines()[0].partition(",")[0]


def _require_agreement(directory: Path, statement: Mapping[str, Any]) -> None:
    """Require that the statement is about this evidence and agrees with it.

    Raises:
        NotAuthentic: the manifest is another one, or a claim differs from the evidence.
        ObservationError: a file of the evidence was changed.
    """
    path = directory / MANIFEST
    if not path.is_file() or sha256(path) != statement["subject"][0]["digest"]["sha256"]:
        raise NotAuthentic(f"{path} is not the manifest that was signed: its SHA-256 is not the statement's.")
    verify(directory)
    stated, found = _claims(statement), _claims(state(directory, stated_signer(statement)))
    for name, claim in stated.items():
        if claim != found[name]:
            raise NotAuthentic(
                f"{directory / ATTESTATION[0]} contradicts the evidence: {name} is {claim}, not {found[name]}."
            )


def _claims(statement: Mapping[str, Any]) -> dict[str, Any]:
    """All claims of the statement, by name."""
    return {**statement["subject"][0], **statement["predicate"]}


def _resource(directory: Path, name: str) -> dict[str, Any]:
    """A ResourceDescriptor of in-toto."""
    return {"name": name, "digest": {"sha256": sha256(directory / name)}}


def _is_canonical(signature: bytes) -> bool:
    """Whether ssh-keygen writes exactly these bytes. It reads many other forms as the same signature."""
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
        raise UsageError("ssh-keygen is not on PATH: install OpenSSH 8.2 or later, which signs and verifies evidence.")
    return subprocess.run([program, "-Y", action, *words], input=message, capture_output=True, check=False)


def _error_of(done: subprocess.CompletedProcess[bytes]) -> str:
    """The error that ssh-keygen printed, as the end of a sentence."""
    lines = (done.stderr + done.stdout).decode("utf-8", errors="replace").split("\n")
    return "; ".join(line.strip() for line in lines if line.strip()).rstrip(".") or f"exit code {done.returncode}"
