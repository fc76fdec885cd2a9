"""CUDA graphs of the installed vLLM: this project's profiles, settings that lose a batch, and a defect put back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from support.paths import ROOT

from conformance import FIXTURES, PACKAGE, test_graphs
from conformance.errors import UsageError
from conformance.evidence.folder import SCHEMAS
from conformance.judging.check import judge
from conformance.judging.diagnose import diagnose, load_known_failures
from conformance.judging.verdict import Outcome, Verdict
from conformance.observers import cuda_graphs as observer
from conformance.profile.graph_options import GraphOptions, graph_options
from conformance.profile.profile import every_hardware, load_profile
from conformance.reports import graph_table
from conformance.views.cuda_graphs import CudaGraphs
from negative_controls.museum.exhibits import Display, mark

MUSEUM = Path(__file__).parent / "museum" / "cuda_graphs.py"
DOCUMENT = ROOT / "docs" / "cuda-graphs.md"
Settings = dict[str, Any]


def settings(requests: int, k: int, maximum: int | None, *, new_runner: bool = True) -> Settings:
    sizes = {"max_num_seqs": requests, "max_num_batched_tokens": 8192, "maximum": maximum, "sizes": None}
    return {"sm": 121, "k": k, **sizes, "new_runner": new_runner}


EXHIBITS: dict[str, list[Settings]] = {
    "profiles": observer.request(observer.cases()),
    "explicit maximum": [settings(6, 6, 42), settings(4, 8, 36)],
    "explicit maximum, old runner": [settings(6, 6, 42, new_runner=False)],
    "no maximum": [settings(6, 6, None), settings(4, 8, None)],
    "too small": [settings(32, 4, 4, new_runner=False)],
    "smallest that fits": [settings(8, 2, 24), settings(32, 4, 320)],
}


@pytest.fixture(scope="module")
def museum() -> dict[str, CudaGraphs]:
    """What the suite sees, by exhibit. One process makes all, because importing vLLM takes many seconds."""
    done = subprocess.run(
        [sys.executable, str(MUSEUM)],
        input=json.dumps(EXHIBITS),
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    return {name: CudaGraphs.of(document(EXHIBITS[name], answers)) for name, answers in seen.items()}


def document(asked: list[Settings], answers: list[dict[str, Any]]) -> dict[str, Any]:
    """The observation that these answers make."""
    captured = [case.hardware for case in observer.cases() if not case.options.eager for _ in observer.DRAFTED]
    names = captured if len(asked) == len(captured) else ["exhibit"] * len(asked)
    rows = [
        {"hardware": name, "settings": given} | answer
        for name, given, answer in zip(names, asked, answers, strict=True)
    ]
    eager = [case.hardware for case in observer.cases() if case.options.eager]
    found = {"vllm_version": "0.32.0", "rows": rows, "eager": eager}
    Draft202012Validator(json.loads((SCHEMAS / "cuda_graphs.schema.json").read_text())).validate(found)
    return found


def outcome(graphs: CudaGraphs) -> Outcome:
    return judge(test_graphs.test_graphs_cover_decoding, {"cuda_graphs": graphs})


def test_every_profile_decodes_every_batch_from_a_full_graph(museum: dict[str, CudaGraphs]) -> None:
    found = outcome(museum["profiles"])
    assert found.verdict is Verdict.PASS, found.sentence
    assert {row.largest for row in museum["profiles"].rows} == {320}  # both arms of every profile
    assert outcome(museum["no maximum"]).verdict is Verdict.PASS


@mark("graphs/explicit_maximum")
def test_an_explicit_maximum_drops_the_widest_batch(museum: dict[str, CudaGraphs], display: Display) -> None:
    """vllm#54933, which the installed vLLM still has."""
    found = outcome(museum["explicit maximum"])
    display(["GRAPH-01"], {"GRAPH-01": found})
    assert found.verdict is Verdict.FAIL
    assert found.sentence == (
        "exhibit with k = 6: a step of 6 of 6 requests, up to 42 tokens, has no graph (NONE); captured up to 40, "
        "of --max-cudagraph-capture-size 42; "
        "exhibit with k = 8: a step of 4 of 4 requests, up to 36 tokens, has no graph (NONE); captured up to 32, "
        "of --max-cudagraph-capture-size 36"
    )
    old = outcome(museum["explicit maximum, old runner"])
    assert "6 of 6 requests, up to 42 tokens, has no graph (NONE); captured up to 35" in old.sentence
    assert explained(found) == explained(old) == [("GRAPHMAX", "vllm-project/vllm#54933")]


@mark("graphs/smallest_that_fits")
def test_the_smallest_graph_that_fits_hides_full_ones(museum: dict[str, CudaGraphs], display: Display) -> None:
    """vllm#53407 put back."""
    found = outcome(museum["smallest that fits"])
    display(["GRAPH-01"], {"GRAPH-01": found})
    assert found.verdict is Verdict.FAIL
    assert "exhibit with k = 2: a step of 4 to 5 of 8 requests, up to 15 tokens, computes attention" in found.sentence
    assert explained(found) == [("GRAPHGAP", "vllm-project/vllm#53407")]
    (wide,) = museum["smallest that fits"].rows[1:]
    assert len(wide.uncovered()["PIECEWISE"]) >= wide.max_num_seqs // 4


def test_settings_that_vllm_refuses_fail(museum: dict[str, CudaGraphs]) -> None:
    found = outcome(museum["too small"])
    assert found.verdict is Verdict.FAIL
    assert "exhibit with k = 4: vLLM refuses the settings: ValueError: No valid cudagraph sizes" in found.sentence


def explained(found: Outcome) -> list[tuple[str, str]]:
    known = diagnose("GRAPH-01", found.sentence, load_known_failures(FIXTURES / "known_failures"))
    return [(each.id, each.upstream) for each in known]


def test_the_table_of_the_document_is_that_of_the_installed_vllm(museum: dict[str, CudaGraphs]) -> None:
    text = graph_table.as_markdown(museum["profiles"])
    drift = "run qualify graph-table --into docs/cuda-graphs.md"
    assert f"{graph_table.BEGIN}\n{text}{graph_table.END}" in DOCUMENT.read_text(encoding="utf-8"), drift
    assert json.loads(graph_table.as_json(museum["profiles"]))["rows"][0]["hardware"] == "ampere"
    assert "vLLM 0.32.0: the CUDA graphs" in graph_table.as_text(museum["profiles"])


def test_the_options_are_those_of_the_profile_and_the_pair() -> None:
    gb10 = next(each for each in every_hardware() if each.name == "gb10")
    found = graph_options(gb10, ["--compilation-config", '{"cudagraph_capture_sizes": [1, 5]}'])
    assert found == GraphOptions(32, 8192, 320, (1, 5), eager=False, new_runner=True)
    with pytest.raises(UsageError, match="serve_args cannot be read: argument --max-num-seqs"):
        graph_options(replace(gb10, serve_args=("--max-num-seqs", "many")))


def test_the_hardware_of_the_session_is_among_the_cases() -> None:
    profile = load_profile("gb10", "gemma-4-26b-a4b-nvfp4", "static")
    mine = replace(profile, hardware=replace(profile.hardware, name="mine"))
    assert [case.hardware for case in observer.cases(mine)][-1] == "mine"
    assert "cpu" not in [case.hardware for case in observer.cases()]
