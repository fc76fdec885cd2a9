"""A run that is killed leaves no process, evidence that is judged as far as it goes, and can be resumed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support import synthetic
from support.killed_runs import Runner

from conformance.commands.main import main
from conformance.evidence.folder import Evidence, is_finished, verify
from conformance.run.session import new_header_here
from conformance.serving import processes

pytestmark = pytest.mark.usefixtures("no_waivers")

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("phase", "sentence"),
    [
        ("loading", "the observation 'draft_load' was not recorded"),
        ("observing", "the observation 'draft_load' was not recorded"),
        ("judging", "the run did not finish: "),  # the background may have recorded everything by then
        ("stopping", "Not judged: the run did not finish: "),
        ("closing", "Not judged: the run did not finish: "),
    ],
)
def test_killed_in_any_phase(tmp_path: Path, capfd: Capture, phase: str, sentence: str) -> None:
    runner = Runner(tmp_path)
    runner.kill_in(phase, f"--pair={runner.pair}", "--level=smoke", f"--evidence={runner.evidence}")
    assert runner.left() == []
    assert not is_finished(runner.evidence)
    kept = {path.name for path in (runner.evidence / "observations").glob("*.json")}

    assert main(["rejudge", str(runner.evidence)]) == 4
    said = capfd.readouterr()
    assert sentence in said.out
    mend = f"scripts/qualify --resume {runner.evidence} finishes it"
    assert f"the run did not finish: {runner.evidence} has no manifest.json ({mend})" in said.out
    assert "Traceback" not in said.out + said.err

    resumed, output = runner.run("nowhere", f"--resume={runner.evidence}")
    assert resumed == 0, output
    assert runner.left() == []
    verify(runner.evidence)
    made = Counter(runner.made())
    again = {name for name, times in made.items() if times > 1}
    assert {f"{name}.json" for name in again}.isdisjoint(kept), "what was kept is not observed again"
    assert kept <= {path.name for path in (runner.evidence / "observations").glob("*.json")}


@pytest.mark.parametrize("option", ["--resume", "--evidence"])
def test_what_is_still_recorded_is_nobody_elses(tmp_path: Path, capfd: Capture, option: str) -> None:
    runner = Runner(tmp_path)
    with runner.hanging_in("observing", f"--pair={runner.pair}", "--level=smoke", f"--evidence={runner.evidence}"):
        journal = (runner.evidence / "verdicts.jsonl").read_text()
        assert journal
        up = json.loads((runner.evidence / ".servers/mtp.json").read_text())["server"]
        assert main([f"{option}={runner.evidence}"]) == 2
        said = capfd.readouterr().err
        assert f"{runner.evidence} is still being recorded by another process: wait for its end" in said
        assert "Traceback" not in said
        assert processes.created(up["pid"]) == up["created"]
        assert (runner.evidence / "verdicts.jsonl").read_text().startswith(journal)  # its owner may have gone on
    assert runner.left() == []
    resumed, output = runner.run("nowhere", f"{option}={runner.evidence}")
    assert resumed == 0, output
    verify(runner.evidence)
    assert not any(path.name.startswith(".") for path in runner.evidence.iterdir())


def test_evidence_that_lacks_its_end_alone_qualifies_nobody(tmp_path: Path, capfd: Capture) -> None:
    directory = synthetic.record(tmp_path / "run", synthetic.healthy(), finished=False)
    assert main(["rejudge", str(directory), "--json"]) == 4
    document = json.loads(capfd.readouterr().out)
    assert {row["verdict"] for row in document["verdicts"]} == {"PASS"}
    assert document["complete"] is False
    (problem,) = document["problems"]
    assert problem.startswith(f"the run did not finish: {directory} has no manifest.json (scripts/qualify --resume ")
    assert document["sentence"] == f"Not judged: {problem}."
    assert "**ERROR** of the run: the run did not finish" in (directory / "report.md").read_text()
    page = (directory / "report.html").read_text()
    assert "This run did not finish" in page
    assert "the run did not finish" in page


def finished(directory: Path) -> None:
    synthetic.record(directory, {})


def empty(directory: Path) -> None:
    directory.mkdir()


def foreign(directory: Path) -> None:
    directory.mkdir()
    (directory / "thesis.txt").write_text("years of work")


def of_another_vllm(directory: Path) -> None:
    synthetic.record(directory, {}, finished=False)
    synthetic.header(directory, vllm="0.1.0")


def of_another_suite(directory: Path) -> None:
    synthetic.record(directory, {}, finished=False)
    synthetic.header(directory, suite="2020.1.0")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (finished, 'is finished, so there is nothing to resume: judge it with "rejudge {}".'),
        (empty, "holds no evidence: it has no header.json."),
        (foreign, "holds no evidence: it has no header.json."),
        (Path, "holds no evidence: it has no header.json."),
        (of_another_vllm, "was recorded with vLLM 0.1.0, but {vllm} is installed: install 0.1.0, or start a new run."),
        (of_another_suite, "was recorded with suite 2020.1.0, but {suite} is installed: install 2020.1.0, or start"),
    ],
)
def test_what_cannot_be_resumed_is_said(
    tmp_path: Path, capfd: Capture, make: Callable[[Path], None], sentence: str
) -> None:
    directory, installed = tmp_path / "run", new_header_here("cpu", "some-pair", "smoke")
    make(directory)
    before = sorted(tmp_path.rglob("*"))
    assert main([f"--resume={directory}"]) == 2
    said = capfd.readouterr().err
    assert f"{directory} {sentence.format(directory, vllm=installed.vllm, suite=installed.suite)}" in said
    assert "Traceback" not in said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("word", ["--evidence=other", "--pair=micro-26b-a4b-bf16", "--level=static", "--dataset=x"])
def test_what_is_gone_on_with_knows_what_it_is(tmp_path: Path, capfd: Capture, word: str) -> None:
    directory = synthetic.record(tmp_path / "run", {}, finished=False)
    assert main([f"--resume={directory}", word]) == 2
    assert f"leave out {word.partition('=')[0]}" in capfd.readouterr().err


def test_a_header_that_names_no_engine_goes_with_none(tmp_path: Path, capfd: Capture) -> None:
    directory = synthetic.record(tmp_path / "run", {}, finished=False)
    header = json.loads((directory / "header.json").read_text())
    (directory / "header.json").write_text(json.dumps(header | {"vllm": None}))
    assert main([f"--resume={directory}"]) == 2
    assert "was recorded with no vLLM" in capfd.readouterr().err
    assert not Evidence(directory, recording=False).holds("environment")
