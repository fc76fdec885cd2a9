"""``qualify export``: the rows of InferenceX, by hand and from recorded evidence."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import pages, synthetic

from conformance.commands import export
from conformance.commands.main import main
from conformance.evidence.folder import new_header
from conformance.judging.verdict import judge_run
from conformance.profile.profile import load_profile
from conformance.reports.exports import inferencex
from conformance.reports.exports.recipe_entry import as_yaml
from conformance.views.load import Load

# As utils/process_result.py of InferenceX writes them for one node, without the latencies.
FIELDS = {
    *("hw", "conc", "image", "model", "infmax_model_prefix", "framework", "precision", "spec_decoding", "disagg"),
    *("isl", "osl", "is_multinode", "tp", "ep", "dp_attention"),
    *("tput_per_gpu", "output_tput_per_gpu", "input_tput_per_gpu"),
}
LATENCIES = {f"{name}_{what}" for name in ("mean", "median", "std", "p90", "p99") for what in ("ttft", "tpot", "e2el")}


@pytest.fixture
def evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return synthetic.record(tmp_path / "run", synthetic.healthy())


def printed(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    assert main(["export", "--format", "inferencex", "run"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    rows: list[dict[str, Any]] = json.loads(out)
    return rows


def test_there_is_a_row_for_each_concurrency_and_arm(evidence: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = printed(capfd)
    arms = [(conc, arm) for conc in synthetic.ROUNDS for arm in ("mtp", "none")]
    assert [(row["conc"], row["spec_decoding"]) for row in rows] == arms
    for row in rows:
        assert row.keys() >= FIELDS | LATENCIES | {"mean_intvty", "median_intvty", "conformance"}
        assert (row["hw"], row["precision"], row["framework"], row["tp"]) == ("cpu", "fp4", "vllm", 1)
        assert row["tput_per_gpu"] == pytest.approx(row["input_tput_per_gpu"] + row["output_tput_per_gpu"])
        assert row["mean_intvty"] == pytest.approx(1 / row["mean_tpot"])
        assert "std_intvty" not in row
        # Numbers under other names would become metrics of the registry.
        others = row.keys() - FIELDS - {"conformance"}
        assert all(name.rpartition("_")[2] in ("ttft", "tpot", "itl", "e2el", "intvty") for name in others)
    digest = hashlib.sha256((evidence / "manifest.json").read_bytes()).hexdigest()
    assert {row["conformance"]["evidence_sha256"] for row in rows} == {digest}
    assert all(row["conformance"]["unofficial"] for row in rows)


def test_acceptance_belongs_to_the_arm_with_mtp(evidence: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert evidence.is_dir()
    for row in printed(capfd):
        about = row["conformance"]
        if row["spec_decoding"] == "none":
            assert about["k"] == 0
            assert "acceptance_length" not in about
        else:
            assert about["k"] == 4
            length = about["acceptance_length"]
            assert 1 < length["low"] <= length["value"] <= length["high"] <= 5
            assert len(about["acceptance_per_position"]) == 4


def test_throughput_is_that_of_the_wall_clock_and_of_one_gpu() -> None:
    load = Load.of([synthetic.load()])
    profile = load_profile("h100", "gemma-4-26b-a4b-nvfp4", "qualify")
    two = replace(profile, hardware=replace(profile.hardware, serve_args=("--tensor-parallel-size", "2")))
    header = replace(
        new_header("h100", profile.pair.name, "qualify", vllm="0.33.0", suite="x"), image="vllm/vllm-openai:v0.33.0"
    )
    alone, shared = (list(inferencex.rows(load, each, header, "0" * 64)) for each in (profile, two))
    blocks = [each.mtp for each in load.at(8).rounds]
    tokens, seconds = sum(block.tokens for block in blocks), sum(block.seconds for block in blocks)
    (row,) = (row for row in alone if (row["conc"], row["spec_decoding"]) == (8, "mtp"))
    assert row["output_tput_per_gpu"] == pytest.approx(tokens / seconds)
    assert (row["image"], row["model"]) == ("vllm/vllm-openai:v0.33.0", profile.pair.target)
    (half,) = (row for row in shared if (row["conc"], row["spec_decoding"]) == (8, "mtp"))
    assert half["tp"] == 2
    assert half["output_tput_per_gpu"] == pytest.approx(row["output_tput_per_gpu"] / 2)
    assert half["median_ttft"] == row["median_ttft"]


@pytest.mark.usefixtures("evidence")
def test_a_folder_gets_a_file_for_each_row(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "run", "--format", "inferencex", "--into", "new/folder"]) == 0
    assert capfd.readouterr() == ("", "")
    files = sorted(path.name for path in (tmp_path / "new/folder").iterdir())
    assert len(files) == 2 * len(synthetic.ROUNDS)
    assert "agg_micro-26b-a4b-nvfp4_cpu_mtp_conc8.json" in files
    row = json.loads((tmp_path / "new/folder/agg_micro-26b-a4b-nvfp4_cpu_none_conc17.json").read_text())
    assert (row["conc"], row["spec_decoding"]) == (17, "none")


def test_a_server_alone_gives_its_own_arm(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    documents = synthetic.healthy()
    for each in documents["load"]["rounds"]:
        each.update(plain=None, plain_again=None)
    synthetic.record(tmp_path / "run", documents)
    assert main(["export", str(tmp_path / "run"), "--format", "inferencex"]) == 0
    assert {row["spec_decoding"] for row in json.loads(capfd.readouterr().out)} == {"mtp"}


@pytest.mark.parametrize(
    ("missing", "finished", "sentence"),
    [("load", True, "has no measured speeds"), ("", False, "is unfinished, so its hash may change")],
)
def test_evidence_without_a_curve_is_exit_code_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], missing: str, finished: bool, sentence: str
) -> None:
    documents = synthetic.healthy()
    documents.pop(missing, None)
    synthetic.record(tmp_path / "run", documents, finished=finished)
    assert main(["export", str(tmp_path / "run"), "--format", "inferencex"]) == 2
    assert sentence in capfd.readouterr().err


@pytest.mark.usefixtures("evidence")
def test_a_folder_that_cannot_be_written_is_exit_code_2(capfd: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("")
    assert main(["export", "run", "--format", "inferencex", "--into", "file"]) == 2
    assert "file cannot be written" in capfd.readouterr().err


@pytest.mark.usefixtures("no_waivers")
def test_a_recipe_gets_its_verified_entry(evidence: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--format", "recipes", "run"]) == 2
    assert "recipes have no name for hardware cpu" in capfd.readouterr().err
    session = export.open_session(export.Options(evidence=evidence, recorded_only=True), Path.cwd())
    digest = hashlib.sha256((evidence / "manifest.json").read_bytes()).hexdigest()
    judged, judgement = export.judge_again(evidence)
    document = yaml.safe_load(as_yaml(session.header, judged, judgement, "dgx_spark_gb10", digest))
    assert document["meta"] == {"date_updated": session.header.started[:10], "hardware": {"dgx_spark_gb10": "verified"}}
    text = as_yaml(session.header, judged, judgement, "dgx_spark_gb10", digest)
    assert digest in text
    assert all(line.startswith("#") for line in text.splitlines()[:3])


def test_what_does_not_qualify_verifies_nothing(
    evidence: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = pages.run_of(evidence, pages.FAILED)
    monkeypatch.setattr(export, "recipe_hardware", lambda: {"cpu": "xeon6"})
    monkeypatch.setattr(export, "judge_again", lambda _: (run, judge_run(run)))
    assert main(["export", "--format", "recipes", "run"]) == 2
    assert "verifies nothing, its result is: Not qualified: DRAFT-01 failed." in capfd.readouterr().err


def test_github_gets_annotations_and_a_summary(
    evidence: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = pages.run_of(evidence, *pages.EVERY, problems=("a\nb::error::c",))
    monkeypatch.setattr(export, "judge_again", lambda _: (run, judge_run(run)))
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert main(["export", "--format", "github", "run"]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in lines] == [
        *("::error", "::notice", "::warning", "::notice", "::error", "::error", "::notice"),
    ]
    assert lines[0].startswith("::error title=FAIL DRAFT-01 The draft's MLP is as wide as its checkpoint says.::")
    assert lines[5] == "::error title=ERROR of the run::a%0Ab::error::c"
    assert summary.read_text().startswith("### ❌ Not qualified: DRAFT-01 failed;")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    assert main(["export", "--format", "github", "run"]) == 1
    assert "### ❌ Not qualified" in capfd.readouterr().out


def test_only_rows_have_a_folder(evidence: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--format", "github", str(evidence), "--into", "x"]) == 2
    assert "--into is for --format inferencex" in capfd.readouterr().err
