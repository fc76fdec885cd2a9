"""Secrets in the environment, in a server's log, in facts and in failures: no byte of evidence or reports has them."""

from __future__ import annotations

import html
import json
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree as ET

import pytest
from negative_controls.faux_servers.run import SECRETS
from support import synthetic
from support.killed_runs import Runner

from conformance.commands.main import main
from conformance.evidence.folder import verify
from conformance.serving.start_records import read_starts

IN_THE_LOG = ("c2VjcmV0", "secret-word")  # what the leaking server says beside the values of variables


def ways(secret: str) -> set[str]:
    return {secret, json.dumps(secret)[1:-1], html.escape(secret), quote(secret, safe="")}


def found(folder: Path) -> list[str]:
    """Where a secret is, in which of its ways."""
    wanted = [(way, name) for name, secret in SECRETS.items() for way in ways(secret)]
    wanted += [(said, said) for said in IN_THE_LOG]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    return [f"{path}: {name}" for path in files for way, name in wanted if way.encode() in path.read_bytes()]


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path, SECRETS)


def words(runner: Runner) -> tuple[str, ...]:
    return f"--pair={runner.pair}", "--level=smoke", f"--evidence={runner.evidence}"


def test_a_whole_run_keeps_no_secret(runner: Runner) -> None:
    code, said = runner.run("leaking", *words(runner))
    assert code == 4, said  # one observation failed, with secrets in its sentence
    evidence = runner.evidence
    verify(evidence)
    assert found(evidence) == []
    assert not any(way in said for secret in SECRETS.values() for way in ways(secret))
    log = (evidence / "logs/mtp.log").read_text()
    clean = "<redacted> <redacted> <redacted> Authorization: Basic <redacted> http://<redacted>@hub/"
    assert log.splitlines()[0] == clean
    assert json.loads((evidence / "observations/moe.json").read_text())["log_lines"][-1] == "<redacted>"
    failure = json.loads((evidence / "observations/tools.json").read_text())["error"]
    assert failure["sentence"] == "<redacted> <redacted> <redacted> was refused"
    assert failure["log_tail"] == "<redacted>\n<redacted>\n<redacted>"
    for name in ("report.html", "report.md"):
        assert "&lt;redacted&gt;" in (evidence / name).read_text()
    ET.parse(evidence / "junit.xml")
    (start,) = [start for start in read_starts(evidence) if start.name == "mtp"]
    assert start.command[-2] == "--served-model-name"
    assert start.environment["HF_TOKEN"] == "<redacted>"
    report = json.loads((evidence / "report.json").read_text())
    assert report["servers"][0]["command"] == list(start.command)
    assert "--served-model-name conformance-mtp-" in (evidence / "report.html").read_text()


def test_a_killed_run_keeps_and_shows_no_secret(runner: Runner, capfd: pytest.CaptureFixture[str]) -> None:
    runner.kill_in("loading and leaking", *words(runner))
    assert runner.left() == []
    assert found(runner.evidence) == []
    assert main(["rejudge", str(runner.evidence)]) == 4
    said = "".join(capfd.readouterr())
    assert found(runner.evidence) == []
    assert not any(way in said for secret in SECRETS.values() for way in ways(secret))


def test_what_nobody_cleaned_is_shown_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Even the guard was killed, and the log is as the server left it."""
    secret = SECRETS["HF_TOKEN"]
    monkeypatch.setenv("HF_TOKEN", secret)
    evidence = synthetic.record(tmp_path / "run", {}, finished=False)
    (evidence / "logs/mtp.log").write_text(f"non-default args: {{'x': '{secret}'}}\n")
    failure = {"kind": "ObservationError", "sentence": f"{secret} was refused", "log_tail": secret}
    (evidence / "observations/moe.json").write_text(json.dumps({"error": failure}))
    assert main(["rejudge", str(evidence)]) == 4
    said = "".join(capfd.readouterr()) + "".join(path.read_text() for path in evidence.glob("report.*"))
    assert "{&#39;x&#39;: &#39;&lt;redacted&gt;&#39;}" in said
    assert "<redacted> was refused" in said
    assert secret not in said
