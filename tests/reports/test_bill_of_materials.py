"""The bill of materials is valid CycloneDX, lists what was observed, and belongs to the evidence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from support.synthetic import healthy

from conformance.checkpoints import headers
from conformance.checkpoints.headers import file_hashes
from conformance.errors import ObservationError
from conformance.evidence.folder import BILL, SCHEMAS, Evidence, Header, verify, write_atomically
from conformance.formats.json_schema import first_violation
from conformance.reports.bill_of_materials import bill_of_materials
from conformance.reports.report import _facts

HEADER = Header("cpu", "micro", "static", "2026-11-29T12:00:00Z", "0.32.0", "2026.11.1")
DIGEST = "ab" * 32


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    evidence = Evidence(tmp_path / "run", recording=True)
    evidence.begin(HEADER, {})
    return evidence


def observe(evidence: Evidence, **environment: Any) -> None:
    made = healthy()
    evidence.observe("environment", lambda: made["environment"] | environment)
    files = {role: made["checkpoint"][role] | {"files": {"model.safetensors": DIGEST}} for role in ("target", "draft")}
    evidence.observe("checkpoint", lambda: files)


def components(text: str) -> dict[str, dict[str, Any]]:
    return {each["bom-ref"]: each for each in json.loads(text)["components"]}


def problem(text: str) -> object:
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


def test_it_lists_packages_and_weights_and_is_valid(evidence: Evidence) -> None:
    installed = {"torch": "2.13.0+cpu", "vllm": "commit 27e", "absent": None}
    observe(evidence, installed=installed, beside_the_lock={"pip": "26.3"})
    text = bill_of_materials(evidence, HEADER)
    assert problem(text) is None
    found = components(text)
    assert found["package torch"]["purl"] == "pkg:pypi/torch@2.13.0%2Bcpu"
    assert found["package vllm"]["version"] == "27e"
    assert "purl" not in found["package vllm"]
    assert "package pip" in found
    assert "package absent" not in found
    for role in ("target", "draft"):
        (file,) = found[role]["components"]
        assert (file["name"], file["hashes"]) == ("model.safetensors", [{"alg": "SHA-256", "content": DIGEST}])


def test_the_same_evidence_gives_the_same_bytes(evidence: Evidence) -> None:
    observe(evidence)
    assert bill_of_materials(evidence, HEADER) == bill_of_materials(evidence, HEADER)
    assert json.loads(bill_of_materials(evidence, HEADER))["metadata"]["timestamp"].startswith("2026-11-29T12:00:00")


def test_what_is_no_bill_is_seen(evidence: Evidence) -> None:
    observe(evidence)
    document = json.loads(bill_of_materials(evidence, HEADER))
    document["components"][0]["type"] = "wheel"
    assert problem(json.dumps(document)) is not None


def test_what_was_not_observed_is_absent(evidence: Evidence) -> None:
    def fail() -> dict[str, Any]:
        raise ObservationError("vLLM cannot be imported")

    with pytest.raises(ObservationError):
        evidence.observe("environment", fail)
    text = bill_of_materials(evidence, HEADER)
    assert problem(text) is None
    assert "components" not in json.loads(text)


def test_the_manifest_holds_its_hash(evidence: Evidence) -> None:
    write_atomically(evidence.directory / BILL, bill_of_materials(evidence, HEADER))
    evidence.finish()
    verify(evidence.directory)
    (evidence.directory / BILL).write_text("{}")
    with pytest.raises(ObservationError, match=r"sbom\.json was changed after recording"):
        verify(evidence.directory)


BUILD = {
    "target": "cpu",
    "sources": {"vllm": {"version": "0.21.0", "sha256": DIGEST}, "transformers": {"commit": "2c7"}},
    "third_party": {"onednn": {"commit": "0a1", "tree": "1b1", "pinned": False}},
    "flags": {"MAX_JOBS": "2"},
    "compiler": "c++ 14.2.0",
    "torch": "2.13.0+cpu",
}


def test_a_source_build_is_recorded_and_shown_in_one_line() -> None:
    schema = SCHEMAS / "environment.schema.json"
    document = healthy()["environment"] | {"build": BUILD}
    assert first_violation(schema, document) is None
    without = {key: value for key, value in BUILD.items() if key != "compiler"}
    assert first_violation(schema, document | {"build": without}) is not None
    line = f"vllm {DIGEST}, transformers 2c7, onednn 1b1 (not the pinned one), for cpu, c++ 14.2.0, torch 2.13.0+cpu"
    assert dict(_facts(document))["built from source"] == line


def test_the_hash_of_each_file_of_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "folder").mkdir()
    assert file_hashes(tmp_path) == ({"model.safetensors": hashlib.sha256(b"weights").hexdigest()}, {})


def test_a_large_file_is_sampled_and_a_change_at_its_ends_or_of_its_size_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headers, "SAMPLED", 4)
    large = tmp_path / "model.safetensors"
    body = bytes(range(250)) * 8
    seen = set()
    for content in (body, b"x" + body[1:], body[:-1] + b"x", body + b"x"):
        large.write_bytes(content)
        whole, sampled = file_hashes(tmp_path, whole_up_to=100)
        assert not whole
        assert sampled["model.safetensors"] != hashlib.sha256(content).hexdigest()
        seen.add(sampled["model.safetensors"])
    assert len(seen) == 4
    large.write_bytes(body[:10] + b"x" + body[11:])
    assert file_hashes(tmp_path, whole_up_to=100)[1].popitem()[1] in seen  # what lies between the blocks is not read


def test_a_sampled_file_is_listed_as_one(evidence: Evidence) -> None:
    made = healthy()["checkpoint"]
    made["target"] |= {"files": {"config.json": DIGEST}, "sampled_files": {"model-00001.safetensors": DIGEST}}
    evidence.observe("checkpoint", lambda: made)
    text = bill_of_materials(evidence, HEADER)
    assert problem(text) is None
    files = {each["name"]: each for each in components(text)["target"]["components"]}
    assert "hashes" in files["config.json"]
    assert "hashes" not in files["model-00001.safetensors"]
    assert files["model-00001.safetensors"]["properties"] == [{"name": "conformance:sampled-sha256", "value": DIGEST}]
