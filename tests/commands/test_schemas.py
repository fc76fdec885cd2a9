"""The ``--json`` of each command is valid against a schema that is in the package and named in the documents."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
from commands.test_runs import recorded
from support import pages, synthetic
from support.paths import ROOT

from conformance import PACKAGE
from conformance.commands import bisect, calibrate, keep_regressions, qualify
from conformance.commands import graph_table as graph_command
from conformance.commands import moe_table as moe_command
from conformance.commands.main import main, make_parser
from conformance.profile.known_rates import load_plan
from conformance.run import doctor
from conformance.run.bisection import Step
from conformance.run.judge_evidence import Result, judge_again
from conformance.views.calibration import Calibration, Coverage

PAGE = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
# command -> its schema, as the page says
SCHEMAS = dict(re.findall(r"^\| `qualify ([^`]+)` \| `conformance/([^`]+)` \|$", PAGE, re.MULTILINE))


def validator(command: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((PACKAGE / SCHEMAS[command]).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_page_names_every_command_that_has_json() -> None:
    with_json = {
        name
        for name, parser in make_parser()[1].choices.items()
        if any("--json" in action.option_strings for action in parser._actions)
    }
    assert {command.partition(" ")[0] for command in SCHEMAS} == with_json
    assert [path for path in SCHEMAS.values() if not (PACKAGE / path).is_file()] == []


@pytest.mark.parametrize("level", ["static", "qualify", "soak"])
@pytest.mark.parametrize("hardware", ["cpu", "gb10"])
def test_a_plan(hardware: str, level: str, capsys: pytest.CaptureFixture[str]) -> None:
    pair = "micro-26b-a4b-nvfp4" if hardware == "cpu" else "gemma-4-26b-a4b-nvfp4"
    assert main(["--plan", "--hardware", hardware, "--pair", pair, "--level", level, "--json"]) == 0
    validator("qualify --plan").validate(json.loads(capsys.readouterr().out))


def test_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalogue", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    validator("catalogue").validate(document)
    del document[0]["severity"]
    assert list(validator("catalogue").iter_errors(document))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evidence of two runs, a key, and a recipe with its files."""
    folder = tmp_path_factory.mktemp("shared")
    for name in ("a", "b"):
        synthetic.record(folder / name, synthetic.healthy())
    recorded(folder / "signed", "2026-11-29T12:00:00Z", pages.PASSED)
    shutil.copy2(ROOT / "tests/support/gemma-recipe.yaml", folder / "recipe.yaml")
    for name in ("signers", "a.jinja"):
        (folder / name).touch()
    if shutil.which("ssh-keygen"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    return folder


@pytest.fixture(scope="module")
def judged(shared: Path) -> Result:
    """What judging the first run gives."""
    result = Result()
    result.found = judge_again(shared / "a")
    return result


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return Calibration.of(synthetic.healthy()["calibration"], load_plan())


@pytest.fixture
def without_servers(
    calibration: Calibration, shared: Path, judged: Result, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A machine on which what would take a server, a release or vLLM's import is there already."""
    monkeypatch.chdir(shared)
    for each in ("run.judge_fleet", "commands.show", "commands.compare"):
        monkeypatch.setattr(f"conformance.{each}.judge_again", lambda _: judged.found)
    monkeypatch.setattr(qualify, "run_checks", lambda _: (0, judged))
    monkeypatch.setattr(doctor, "ask_interpreter", lambda _: {"imported": {"vllm": "0.32.0"}, "installed": {}})
    monkeypatch.setattr(
        bisect, "judge_release", lambda _, release, *__: Step(release, VERDICTS[release], "so", "there")
    )
    monkeypatch.setattr(moe_command, "ask_vllm", synthetic.moe_oracle)
    monkeypatch.setattr(graph_command, "ask_vllm", lambda _: synthetic.cuda_graphs())
    about = {"imported": {"vllm": "0.32.0"}, "machine": "x86_64", "cpu_count": 2, "python": "3.11.7"}
    monkeypatch.setattr(
        calibrate, "published_coverage", lambda profile, _: Coverage(profile, about, "coins", calibration)
    )
    monkeypatch.setattr(keep_regressions, "FIXTURES", tmp_path)
    (tmp_path / "prompts").mkdir()


VERDICTS = {"0.30.0": "PASS", "0.31.0": "FAIL"}
# row of the page -> the words of the command, without --json
WORDS = {
    "qualify": ["--level", "static"],
    "qualify --plan": ["--plan", "--hardware", "cpu"],
    "rejudge": ["rejudge", "a"],
    "recipe": ["recipe", "recipe.yaml", "--hardware", "gb10"],
    "doctor": ["doctor", "--hardware", "cpu"],
    "show": ["show", "a", "LOSS-01"],
    "list": ["list", "a", "b"],
    "history": ["history", "a", "b"],
    "bisect": ["bisect", "--good", "0.30.0", "--bad", "0.31.0", "--check", "LOSS-04"],
    "compare": ["compare", "a", "b"],
    "combine": ["combine", "a", "b"],
    "sign": ["sign", "signed", "--key", "key"],
    "verify": ["verify", "b", "--signers", "signers"],
    "catalogue": ["catalogue"],
    "moe-table": ["moe-table"],
    "graph-table": ["graph-table"],
    "releases": ["releases"],
    "advise": ["advise", "--vllm", "0.30.0", "--hardware", "cpu"],
    "calibrate": ["calibrate", "--hardware", "cpu"],
    "keep-regressions": ["keep-regressions", "a"],
}


@pytest.mark.usefixtures("without_servers")
@pytest.mark.parametrize("row", SCHEMAS)
def test_every_document_is_valid(row: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every row of the page; a command that is not in WORDS fails, so that none is forgotten."""
    assert main([*WORDS[row], "--json"]) in (0, 1, 3, 4)
    document = json.loads(capsys.readouterr().out)
    validator(row).validate(document)
    first = next(iter(document)) if isinstance(document, dict) else 0
    del document[first]
    if isinstance(document, dict):
        assert list(validator(row).iter_errors(document)), f"{first} may be missing"


def test_releases_and_what_to_expect_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["releases", "--json"]) == 0
    validator("releases").validate(json.loads(capsys.readouterr().out))
    assert main(["advise", "--json", "--vllm", "0.30.0", "--hardware", "cpu"]) == 0
    document = json.loads(capsys.readouterr().out)
    validator("advise").validate(document)
    assert [each["hardware"] for each in document["judged"]] == ["cpu"]
    del document["judged"][0]["sentence"]
    assert list(validator("advise").iter_errors(document))
