"""Signing and verifying: what is stated, whose word counts, and that no byte can be changed unseen."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support import judged_runs, pages, synthetic

from conformance.commands.main import main
from conformance.errors import UsageError
from conformance.evidence import attestation
from conformance.evidence.attestation import NotAuthentic, authenticate, result, sign
from conformance.evidence.folder import Evidence, sha256
from conformance.judging.verdict import Record, Run, Verdict, judge_run

ANN, BEN = "ann@example.org", "ben@example.org"
GOOD = tuple(replace(pages.PASSED, id=f"ENV-{number:02}") for number in range(1, 4))

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="OpenSSH is not installed")


def new_key(folder: Path, name: str, kind: str = "ed25519") -> Path:
    command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", folder / name]
    subprocess.run(command, check=True)
    return folder / name


def allow(file: Path, **keys: Path) -> Path:
    lines = [f"{name}@example.org {key.with_suffix('.pub').read_text()}" for name, key in keys.items()]
    file.write_text("".join(lines))
    return file


def recorded(folder: Path, *records: Record, finished: bool = True, **changes: object) -> Path:
    """Finished evidence with the journal of a run that has judged these records."""
    documents = {"environment": synthetic.environment(), "refusals": {"refusals": []}}
    synthetic.record(folder, documents, finished=False)
    run = pages.run_of(folder, *records, **changes)
    judged_runs.write_verdicts(folder, run, judge_run(run))
    if finished:
        Evidence(folder, recording=True).finish()
    return folder


class Desk:
    """Two people with keys, of whom only Ann is allowed to sign, and a run that she signed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ann, self.ben = new_key(folder, "ann"), new_key(folder, "ben")
        self.signers = allow(folder / "signers", ann=self.ann)
        self.evidence = recorded(folder / "run", *pages.EVERY)
        (self.evidence / "report.html").write_text("no evidence")
        sign(self.evidence, self.ann, None)

    def verified(self, identity: str | None = None) -> str:
        return authenticate(self.evidence, self.signers, identity).signer

    @property
    def signed_files(self) -> list[Path]:
        """Everything but the reports, which are no evidence."""
        every = (path for path in sorted(self.evidence.rglob("*")) if path.is_file())
        return [path for path in every if not path.name.startswith("report.")]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"))


@pytest.fixture
def desk(shared: Desk) -> Iterator[Desk]:
    """The same desk for each test, put in order after it."""
    kept = {path: path.read_bytes() for path in (*shared.evidence.rglob("*"), shared.signers) if path.is_file()}
    yield shared
    for path in shared.evidence.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()
    for path, content in kept.items():
        path.write_bytes(content)


def test_what_ann_signed_is_hers(desk: Desk) -> None:
    assert desk.verified() == desk.verified(ANN) == ANN


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_other_kinds_of_keys_sign_as_well(desk: Desk, tmp_path: Path, kind: str) -> None:
    key = new_key(tmp_path, "ben", kind)
    allow(desk.signers, ben=key)
    sign(desk.evidence, key, None)
    assert desk.verified() == BEN


def test_the_statement_says_what_was_found(desk: Desk) -> None:
    statement = json.loads((desk.evidence / "attestation.json").read_text())
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    (subject,) = statement["subject"]
    assert (subject["name"], subject["digest"]["sha256"]) == ("manifest.json", sha256(desk.evidence / "manifest.json"))
    predicate = statement["predicate"]
    assert predicate["result"] == "FAILED"
    assert predicate["passedTests"] == ["ACC-02"]
    assert predicate["warnedTests"] == ["API-07", "ENV-02"]
    assert predicate["failedTests"] == ["DRAFT-01", "ENV-01", "ENV-03"]
    digests = {each["name"]: each["digest"]["sha256"] for each in predicate["configuration"]}
    assert digests == {name: sha256(desk.evidence / name) for name in ("profile.json", "header.json")}
    assert "url" not in predicate


@pytest.mark.parametrize(
    ("records", "changes", "expected"),
    [
        (GOOD, {}, "PASSED"),
        ((*GOOD, pages.WAIVED), {}, "WARNED"),
        ((*GOOD, pages.OTHERS[1]), {}, "WARNED"),
        (GOOD, {"expected": ("ENV-01", "ENV-02", "ENV-03", "ENV-04")}, "WARNED"),
        (GOOD, {"level": "smoke"}, "WARNED"),
        (GOOD, {"unlocked": True}, "WARNED"),
        (GOOD, {"problems": ("a server survived",)}, "FAILED"),
        (GOOD, {"complete": False}, "FAILED"),
        ((*GOOD, pages.OTHERS[0]), {}, "FAILED"),
        ((*GOOD, pages.OTHERS[2]), {}, "FAILED"),
        ((*GOOD, pages.FAILED), {}, "FAILED"),
        ((pages.OTHERS[1],), {}, "FAILED"),
        ((), {}, "FAILED"),
    ],
)
def test_only_what_would_be_certified_is_called_passed(
    records: tuple[Record, ...], changes: dict[str, object], expected: str
) -> None:
    assert result(pages.run_of(Path("run"), *records, **changes)) == expected


def test_every_verdict_has_its_list() -> None:
    listed = [verdict for verdicts in attestation.TESTS.values() for verdict in verdicts]
    assert sorted(listed) == sorted(Verdict)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


FILES = (
    "attestation.json",
    "attestation.json.sig",
    "header.json",
    "logs/mtp.log",
    "manifest.json",
    "observations/environment.json",
    "observations/refusals.json",
    "profile.json",
    "servers/mtp.json",
    "verdicts.jsonl",
)


def test_the_files_below_are_all_there_are(desk: Desk) -> None:
    assert [str(path.relative_to(desk.evidence)) for path in desk.signed_files] == sorted(FILES)


@pytest.mark.parametrize("tamper", [flip, grow, cut, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_tampering_with_any_file_is_caught_and_named(desk: Desk, name: str, tamper: Callable[[Path], None]) -> None:
    tamper(desk.evidence / name)
    with pytest.raises(NotAuthentic) as caught:
        desk.verified()
    assert name in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_file_that_was_added_is_caught(desk: Desk) -> None:
    (desk.evidence / "observations/moe.json").write_text("{}")
    with pytest.raises(NotAuthentic, match=r"moe\.json was added"):
        desk.verified()


@pytest.mark.parametrize("name", ["header.json", "logs/mtp.log", "manifest.json", "verdicts.jsonl"])
def test_no_byte_of_the_evidence_is_left_open(desk: Desk, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature still holds, so only what comes after it is tried again and again."""
    statement = authenticate(desk.evidence, desk.signers, None).statement
    monkeypatch.setattr(attestation, "_verify_signature", lambda *_: attestation.Signed(statement, ANN))
    path = desk.evidence / name
    content = path.read_bytes()
    for place in range(0, len(content), max(1, len(content) // 500)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(NotAuthentic):
            desk.verified()


def test_no_byte_of_the_signature_is_left_open(desk: Desk) -> None:
    """Not even those that ssh-keygen would read over: line ends, the last bits of base64, the version."""
    path = desk.evidence / "attestation.json.sig"
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(NotAuthentic):
            desk.verified()


def test_no_byte_of_the_statement_is_left_open(desk: Desk) -> None:
    path = desk.evidence / "attestation.json"
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(NotAuthentic):
            desk.verified()


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", " \n", 2),
        lambda text: text + "more\n",
        str.strip,
        lambda text: text.partition("\n")[0],
    ],
)
def test_a_signature_in_other_words_is_no_signature(desk: Desk, rewrite: Callable[[str], str]) -> None:
    path = desk.evidence / "attestation.json.sig"
    path.write_bytes(rewrite(path.read_text()).encode())
    with pytest.raises(NotAuthentic, match="not in the form"):
        desk.verified()


def test_the_version_of_the_signature_is_not_left_open(desk: Desk) -> None:
    """ssh-keygen takes a version 0 for the same signature."""
    path = desk.evidence / "attestation.json.sig"
    first, *lines, last, _ = path.read_text().split("\n")
    blob = base64.b64decode("".join(lines)).replace(b"SSHSIG\0\0\0\1", b"SSHSIG\0\0\0\0", 1)
    path.write_text("\n".join([first, *textwrap.wrap(base64.b64encode(blob).decode(), 70), last, ""]))
    with pytest.raises(NotAuthentic, match="not in the form"):
        desk.verified()


def test_a_better_verdict_under_a_new_manifest_is_caught(desk: Desk) -> None:
    """Whoever changes evidence and manifest alike still has no key."""
    path = desk.evidence / "verdicts.jsonl"
    path.write_text(path.read_text().replace('"FAIL"', '"PASS"'))
    Evidence(desk.evidence, recording=True).finish()
    with pytest.raises(NotAuthentic, match=r"manifest\.json is not the manifest that was signed"):
        desk.verified()


@pytest.mark.parametrize("claim", ["result", "passedTests", "failedTests", "configuration", "annotations"])
def test_a_signed_statement_that_is_at_odds_with_its_evidence_is_caught(
    desk: Desk, claim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Ann's own hand: a signature does not make a statement true."""
    honest = attestation.state

    def state(directory: Path, identity: str | None) -> dict[str, object]:
        statement = honest(directory, identity)
        lies = {"result": "PASSED", "passedTests": ["ACC-01"], "failedTests": [], "configuration": []}
        if claim == "annotations":
            statement["subject"][0]["annotations"]["level"] = "soak"
        else:
            statement["predicate"][claim] = lies[claim]
        return statement

    with monkeypatch.context() as patch:
        patch.setattr(attestation, "state", state)
        sign(desk.evidence, desk.ann, None)
    with pytest.raises(NotAuthentic, match=rf"attestation\.json contradicts the evidence: {claim} is "):
        desk.verified()


def test_a_key_of_nobody_allowed_is_refused(desk: Desk) -> None:
    sign(desk.evidence, desk.ben, None)
    with pytest.raises(NotAuthentic, match=r"attestation\.json\.sig was made with a key that is not in .*signers"):
        desk.verified()
    with pytest.raises(NotAuthentic, match=r"attestation\.json is not what ann@example\.org signed"):
        desk.verified(ANN)


def test_one_allowed_signer_cannot_sign_for_another(desk: Desk) -> None:
    allow(desk.signers, ann=desk.ann, ben=desk.ben)
    sign(desk.evidence, desk.ben, ANN)
    with pytest.raises(NotAuthentic, match=r"is not what ann@example\.org signed"):
        desk.verified()
    sign(desk.evidence, desk.ben, BEN)
    assert desk.verified() == desk.verified(BEN) == BEN
    with pytest.raises(NotAuthentic, match=r"says that ben@\S+ signed it, but --identity asks for ann@"):
        desk.verified(ANN)


def test_a_signature_for_another_purpose_does_not_count(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(attestation, "NAMESPACE", "git")
        sign(desk.evidence, desk.ann, None)
    with pytest.raises(NotAuthentic, match="is not what"):
        desk.verified()


@pytest.mark.parametrize("text", ["[]", "{}", '{"_type": 1}', "not JSON"])
def test_anything_else_signed_is_no_statement(desk: Desk, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(attestation.json, "dumps", lambda *_, **__: text)
        sign(desk.evidence, desk.ann, None)
    with pytest.raises(NotAuthentic, match=r"attestation\.json is not a statement"):
        desk.verified()


def test_reports_may_be_made_again_after_signing(desk: Desk) -> None:
    (desk.evidence / "report.html").write_text("of another day")
    assert desk.verified() == ANN


def test_the_command_signs_and_verifies(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    folder = str(desk.evidence)
    assert main(["sign", folder, "--key", str(desk.ann), "--identity", ANN]) == 0
    assert main(["verify", folder, "--signers", str(desk.signers)]) == 0
    out, err = capfd.readouterr()
    assert out == (
        f"Signed: {folder}/attestation.json says FAILED\nAuthentic: {folder}, signed by {ANN}, says FAILED\n"
        f"Not covered: report.html; qualify rejudge {folder} makes them again\n"
    )
    assert err == ""
    flip(desk.evidence / "profile.json")
    assert main(["verify", folder, "--signers", str(desk.signers)]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"Not authentic: {folder}/profile.json was changed")
    assert err.count("\n") == 1


def test_the_command_tells_programs_too(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    folder = str(desk.evidence)
    assert main(["sign", folder, "--key", str(desk.ann), "--identity", ANN, "--json"]) == 0
    out, err = capfd.readouterr()
    assert out == (desk.evidence / "attestation.json").read_text()
    assert err == ""
    verify = ["verify", folder, "--signers", str(desk.signers), "--json"]
    assert main(verify) == 0
    good = {"format": 1, "evidence": folder, "authentic": True, "signer": ANN, "result": "FAILED"}
    assert json.loads(capfd.readouterr().out) == good | {"not_covered": ["report.html"]}
    flip(desk.evidence / "profile.json")
    assert main(verify) == 1
    out, err = capfd.readouterr()
    bad = json.loads(out)
    assert err == f"Not authentic: {bad.pop('reason')}\n"
    assert bad == {"format": 1, "evidence": folder, "authentic": False}


def test_a_stranger_s_words_are_no_commands_to_a_terminal(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    sign(desk.evidence, desk.ben, "\x1b[31mben")
    assert main(["verify", str(desk.evidence), "--signers", str(desk.signers)]) == 1
    assert "what ?[31mben signed" in capfd.readouterr().err


@pytest.mark.parametrize("text", ["[" * 100_000, "\ud800", "{"])
def test_a_stranger_s_rubbish_is_not_authentic(desk: Desk, text: str) -> None:
    (desk.evidence / "attestation.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(NotAuthentic, match=r"attestation\.json is not a statement"):
        desk.verified()


def refused(capfd: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main([str(word) for word in words]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("qualify: ")
    assert err.count("\n") == 1
    return err


def test_bad_input_is_one_sentence_and_exit_code_2(
    desk: Desk, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    part = recorded(tmp_path / "part", *GOOD, finished=False)
    assert "is unfinished: it has no manifest.json" in refused(capfd, "sign", part, "--key", desk.ann)
    assert "holds no evidence" in refused(capfd, "sign", tmp_path, "--key", desk.ann)
    said = refused(capfd, "sign", desk.evidence, "--key", tmp_path / "nokey")
    assert "nokey does not sign" in said
    assert "give --key" in said
    assert "is not a folder" in refused(capfd, "verify", tmp_path / "nowhere", "--signers", desk.signers)
    assert "is not a file" in refused(capfd, "verify", desk.evidence, "--signers", tmp_path / "nobody")
    assert not list(part.glob("attestation*"))


@pytest.mark.parametrize("name", ["manifest.json", "verdicts.jsonl", "profile.json"])
@pytest.mark.parametrize("content", ["{}", "[", '{"files": 1}'])
def test_changed_evidence_is_not_signed(desk: Desk, name: str, content: str, capfd: pytest.CaptureFixture[str]) -> None:
    (desk.evidence / name).write_text(content)
    assert name in refused(capfd, "sign", desk.evidence, "--key", desk.ann)


@pytest.mark.parametrize("journal", [None, "", "{}", '{"kind": "header"}', '{"kind": "header"'])
def test_evidence_without_a_journal_of_verdicts_is_not_signed(
    desk: Desk, tmp_path: Path, journal: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    evidence = synthetic.record(tmp_path / "run", {}, finished=False)
    if journal is not None:
        (evidence / "verdicts.jsonl").write_text(journal)
    Evidence(evidence, recording=True).finish()
    assert "verdicts.jsonl" in refused(capfd, "sign", evidence, "--key", desk.ann)


def test_evidence_of_before_profiles_were_kept_is_signed_without_one(desk: Desk, tmp_path: Path) -> None:
    evidence = recorded(tmp_path / "run", *GOOD, finished=False)
    (evidence / "profile.json").unlink()
    Evidence(evidence, recording=True).finish()
    statement = sign(evidence, desk.ann, None)
    assert [each["name"] for each in statement["predicate"]["configuration"]] == ["header.json"]
    assert authenticate(evidence, desk.signers, None).signer == ANN


def test_without_openssh_one_sentence_says_so(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(desk.folder))
    for words in (["sign", desk.evidence, "--key", desk.ann], ["verify", desk.evidence, "--signers", desk.signers]):
        assert "ssh-keygen is not on PATH: install OpenSSH" in refused(capfd, *words)


def test_a_key_with_a_passphrase_and_nobody_to_ask_is_refused(desk: Desk, tmp_path: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", tmp_path / "locked"]
    subprocess.run(command, check=True)
    before = (desk.evidence / "attestation.json").read_bytes()
    with pytest.raises(UsageError, match="locked does not sign"):
        sign(desk.evidence, tmp_path / "locked", None)
    assert (desk.evidence / "attestation.json").read_bytes() == before


def test_a_run_that_was_cut_short_is_no_pass() -> None:
    run: Run = pages.run_of(Path("run"), *GOOD)
    assert result(replace(run, complete=False)) == "FAILED"
