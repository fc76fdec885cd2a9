"""The command: its defaults, its exit codes, its JSON, and the pages that are made from it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support import synthetic
from support.paths import ROOT

from conformance import PACKAGE
from conformance.commands import cli_reference, keep_regressions
from conformance.commands.main import main, make_parser
from conformance.errors import UsageError
from conformance.evidence.folder import Evidence
from conformance.judging.catalogue import at_level, catalogue
from conformance.reports.checks_table import BEGIN, END, as_markdown
from conformance.reports.markdown import between
from conformance.run.options import PLAN, PYTEST_ONLY, RUN

pytestmark = pytest.mark.usefixtures("no_waivers")

TOTAL = len(at_level(catalogue(), "qualify"))


@pytest.fixture
def evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recorded healthy run, seen from a directory that is not the checkout."""
    monkeypatch.chdir(tmp_path)
    return synthetic.record(tmp_path / "run", synthetic.healthy())


@pytest.mark.usefixtures("evidence")
def test_recorded_evidence_is_judged_again(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["rejudge", "run"]) == 0
    out, err = capfd.readouterr()
    assert f"Qualified: micro-26b-a4b-nvfp4 on cpu, {TOTAL} of {TOTAL} checks passed." in out
    assert err == ""


@pytest.mark.usefixtures("evidence")
def test_json_goes_to_stdout_and_the_table_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["rejudge", "run", "--json"]) == 0
    out, err = capfd.readouterr()
    result = json.loads(out)
    assert result["exit_code"] == 0
    assert [verdict["id"] for verdict in result["verdicts"]] == [check.id for check in at_level(catalogue(), "qualify")]
    lengths = next(verdict for verdict in result["verdicts"] if verdict["id"] == "ACC-01")
    assert lengths["findings"][0]["floor"] == "3.68"
    assert "Qualified: " in err


@pytest.mark.usefixtures("evidence")
def test_qualify_is_the_default_command(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--evidence", "run"]) == main(["qualify", "--evidence", "run"]) == 0
    assert capfd.readouterr().out.count("Qualified: ") == 2


@pytest.mark.usefixtures("evidence")
@pytest.mark.parametrize("words", [["rejudge", "nowhere"], ["--hardware", "nowhere"], ["--evidence", "."]])
def test_bad_input_is_exit_code_2(capfd: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "nowhere" in err or "holds no evidence" in err


@pytest.mark.parametrize("words", [["--levle", "static"], ["--level", "fast"], ["rejudge"], ["catalogue", "--mark"]])
def test_misspelt_words_are_exit_code_2(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: qualify" in capfd.readouterr().err


def test_help_documents_every_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capfd.readouterr().out
    assert all(f"{code} " in text for code in range(6))


def test_the_catalogue_has_three_forms(capfd: pytest.CaptureFixture[str]) -> None:
    texts = []
    for form in ([], ["--markdown"], ["--json"]):
        assert main(["catalogue", *form]) == 0
        texts.append(capfd.readouterr().out)
    assert all(check.id in text and check.claim in text for check in catalogue() for text in texts)
    assert len(json.loads(texts[2])) == len(catalogue())


PRINT_NO_RESULT = ("figure", "export", "pack", "completion", "cli-reference")  # export prints nothing but JSON


@pytest.mark.parametrize("command", [name for name in make_parser()[1].choices if name not in PRINT_NO_RESULT])
def test_every_command_that_prints_a_result_has_json(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "--json" in capfd.readouterr().out


@pytest.mark.usefixtures("evidence")
@pytest.mark.parametrize(
    "words",
    [
        *(["rejudge", "nowhere"], ["--plan", "--hardware", "nowhere"], ["compare", "run", "nowhere"]),
        *(["combine", "nowhere"], ["sign", "nowhere", "--key", "k"], ["verify", "nowhere", "--signers", "s"]),
    ],
)
def test_bad_input_is_no_document(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--json"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "nowhere" in err


@pytest.mark.usefixtures("evidence")
@pytest.mark.parametrize("words", [["rejudge", "run"], ["compare", "run", "run"], ["figure", "run", "--into", "x.svg"]])
def test_a_journal_of_another_version_is_exit_code_4(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    Path("run/verdicts.jsonl").write_text('{"kind": "header", "hardware": "cpu"}\n')
    Evidence(Path("run"), recording=False).finish()
    assert main(words) == 4
    out, err = capfd.readouterr()
    assert "run/verdicts.jsonl is no journal of verdicts that this version reads (it lacks " in out + err
    assert "Traceback" not in out + err


def test_evidence_that_lacks_what_is_asked_for_is_exit_code_4(
    evidence: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (evidence / "observations/parsers.json").unlink()
    assert main(["keep-regressions", "run", "--json"]) == 4
    out, err = capfd.readouterr()
    assert (out, err) == ("", "qualify: the observation 'parsers' was not recorded in run\n")


@pytest.mark.usefixtures("evidence")
def test_what_is_kept_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(keep_regressions, "FIXTURES", tmp_path)
    assert main(["keep-regressions", "run", "--json"]) == 0
    path = tmp_path / "prompts/regressions/parsers.jsonl"
    assert json.loads(capfd.readouterr().out) == {"format": 1, "file": str(path), "new": 0}


@pytest.mark.usefixtures("evidence")
@pytest.mark.parametrize(
    "words",
    [
        *(["catalogue", "--into", "no/such.md"], ["moe-table", "--into", "no/such.md"]),
        *(["calibrate", "--into", "no/such.md"], ["figure", "run", "--into", "no/such.svg"]),
        *(["rejudge", "run", "--picture", "no/such.svg"], ["--level", "static", "--picture", "no/such.svg"]),
    ],
)
def test_a_file_that_cannot_be_written_is_exit_code_2_before_any_work(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("qualify: no/such.")
    assert err.count("\n") == 1


@pytest.mark.usefixtures("evidence")
def test_a_picture_that_fails_costs_no_document(capfd: pytest.CaptureFixture[str]) -> None:
    Path("folder").mkdir()
    assert main(["rejudge", "run", "--json", "--picture", "folder"]) == 2
    out, err = capfd.readouterr()
    assert json.loads(out)["exit_code"] == 0
    assert err.endswith("qualify: folder cannot be written (Is a directory); mend that, or name another file.\n")
    assert main(["figure", "run", "--into", "folder"]) == 2


@pytest.mark.parametrize(
    "words",
    [
        *(["--resume", "x"], ["--evidence", "x"], ["--dataset", "x"], ["--attach", "http://h"], ["--image", "x"]),
        *(["--ssh", "x"], ["--ssh-python", "x"], ["--certify"], ["--unlocked"]),
    ],
)
def test_a_plan_passes_over_nothing(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    sentence = f"qualify: --plan starts nothing and does not use {words[0]}; leave out one of the two.\n"
    assert main(["--plan", *words]) == pytest.main(["--plan", *words, str(PACKAGE)]) == 2
    assert capfd.readouterr() == ("", sentence * 2)


@pytest.mark.parametrize("words", [["-n", "2"], ["--picture", "x.svg"]])
def test_nor_what_pytest_does_not_have(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--plan", *words]) == 2
    assert "--plan starts nothing and does not use --" in capfd.readouterr().err


@pytest.mark.usefixtures("evidence")
def test_what_cannot_be_kept_is_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts").touch()
    monkeypatch.setattr(keep_regressions, "FIXTURES", tmp_path)
    assert main(["keep-regressions", "run", "--json"]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "parsers.jsonl cannot be written (Not a directory)" in err


def test_the_table_is_put_between_its_markers(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert main(["catalogue", "--into", str(path)]) == 0
    assert path.read_text() == f"before\n{BEGIN}\n{as_markdown(catalogue())}{END}\nafter\n"


def test_a_document_without_markers_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "README.md"
    path.write_text("no table here")
    assert main(["catalogue", "--into", str(path)]) == 2
    assert "lacks the markers" in capfd.readouterr().err
    with pytest.raises(UsageError):
        between("text", BEGIN, END, "", "x")


def test_the_page_of_the_command_line_is_that_of_today() -> None:
    page = ROOT / "docs/cli.md"
    text, made = page.read_text(encoding="utf-8"), cli_reference.as_markdown(make_parser()[1])
    drift = "docs/cli.md is out of date: run qualify cli-reference --into docs/cli.md"
    assert between(text, cli_reference.BEGIN, cli_reference.END, made, str(page)) == text, drift


def test_the_command_line_names_every_option_of_every_subcommand(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["cli-reference"]) == 0
    text = capfd.readouterr().out
    for name, parser in make_parser()[1].choices.items():
        assert f"## `qualify {name}`" in text
        for action in parser._actions:
            assert all(word in text for word in action.option_strings if action.dest != "help")


def test_pytest_has_the_options_of_a_run() -> None:
    config = pytest.Config.fromdictargs({}, [str(PACKAGE), "--collect-only"])
    known = set(vars(config.option))
    assert {option.name for option in (*RUN, PLAN, *PYTEST_ONLY)} <= known


def test_the_version_is_that_of_the_newest_section_of_the_changelog(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    newest = re.search(r"^## (\d{4}\.\d{1,2}\.\d+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest
    assert f"gemma4-mtp-conformance {newest[1]}, vLLM " in capfd.readouterr().out
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == newest[1]


@pytest.mark.usefixtures("evidence")
@pytest.mark.parametrize("command", [["catalogue"], ["rejudge", "run"]])
def test_a_reader_that_goes_away_changes_no_exit_code(command: list[str]) -> None:
    """As in ``qualify rejudge run | head -1``."""
    program = [sys.executable, "-m", "conformance", *command]
    whole = subprocess.run(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == whole.returncode
