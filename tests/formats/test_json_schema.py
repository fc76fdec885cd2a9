"""Schemas by jsonschema-rs: the same judgement as the Python implementation's, with the place of what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from support import synthetic

from conformance.evidence.folder import SCHEMAS
from conformance.formats.json_schema import Violation, first_violation, violations

SCHEMA = {
    "type": "object",
    "properties": {"rows": {"type": "array", "items": {"type": "object", "required": ["id"]}}},
    "additionalProperties": False,
}


def test_a_violation_says_where() -> None:
    (found,) = violations(SCHEMA, {"rows": [{"id": 1}, {}]})
    assert found == Violation(("rows", 1), '"id" is a required property')
    assert found.json_path == "$.rows[1]"


def test_what_is_allowed_has_none(tmp_path: Path) -> None:
    path = tmp_path / "rows.schema.json"
    path.write_text(json.dumps(SCHEMA))
    assert first_violation(path, {"rows": []}) is None
    assert first_violation(path, {"row": []}) == Violation(
        (), "Additional properties are not allowed ('row' was unexpected)"
    )


def spoilt(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The document, without each of its keys, and with something else at each of them."""
    without = [{key: value for key, value in document.items() if key != left_out} for left_out in document]
    other = [document | {key: {"else": [None]}} for key in document]
    return [document, *without, *other]


@pytest.mark.parametrize("name", synthetic.healthy())
def test_both_implementations_judge_alike(name: str) -> None:
    path = SCHEMAS / f"{name.partition('-')[0]}.schema.json"
    python = Draft202012Validator(json.loads(path.read_text(encoding="utf-8")))
    for document in spoilt(synthetic.healthy()[name]):
        assert (first_violation(path, document) is None) == python.is_valid(document)
