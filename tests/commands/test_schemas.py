"""The ``--json`` of each command is valid against a schema that is in the package and named in the documents."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
from support import synthetic
from support.paths import ROOT

from conformance import PACKAGE
from conformance.commands import moe_table as moe_command
from conformance.commands.main import main, make_parser
from conformance.reports import graph_table, moe_table
from conformance.views.cuda_graphs import CudaGraphs
from conformance.views.moe_oracle import MoeOracle

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


def test_what_vllm_chooses(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    oracle, seen = synthetic.moe_oracle(), synthetic.cuda_graphs()
    validator("moe-table").validate(json.loads(moe_table.as_json(MoeOracle.of(oracle, ()))))
    validator("graph-table").validate(json.loads(graph_table.as_json(CudaGraphs.of(seen))))
    monkeypatch.setattr(moe_command, "ask_vllm", lambda: oracle)
    assert main(["moe-table", "--json"]) == 0
    validator("moe-table").validate(json.loads(capsys.readouterr().out))


def test_regressions_and_signatures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    validator("keep-regressions").validate({"format": 1, "file": "a", "new": 0})
    evidence = synthetic.record(tmp_path / "run", {})
    (tmp_path / "signers").write_text("")
    assert main(["verify", str(evidence), "--signers", str(tmp_path / "signers"), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    validator("verify").validate(document)
    assert not document["authentic"]


def test_releases_and_what_to_expect_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["releases", "--json"]) == 0
    validator("releases").validate(json.loads(capsys.readouterr().out))
    assert main(["advise", "--json", "--vllm", "0.30.0", "--hardware", "cpu"]) == 0
    document = json.loads(capsys.readouterr().out)
    validator("advise").validate(document)
    assert [each["hardware"] for each in document["judged"]] == ["cpu"]
    del document["judged"][0]["sentence"]
    assert list(validator("advise").iter_errors(document))
