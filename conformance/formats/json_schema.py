"""Documents against JSON Schemas (draft 2020-12), by jsonschema-rs.

It does in 0.1 s what the Python implementation does in 3 s for the observations of one run, and is imported in 0.05 s
instead of 2 s (measured on two CPU cores).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema_rs import Draft202012Validator

from conformance.formats.json_files import parse_json


@dataclass(frozen=True)
class Violation:
    """One place of a document that its schema does not allow."""

    path: tuple[str | int, ...]  # keys and indices from the document's root
    message: str

    @property
    def json_path(self) -> str:
        """The place as a JSONPath, such as ``$.rows[2].id``."""
        return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)


def violations(schema: Mapping[str, Any], document: Any) -> Iterator[Violation]:
    """Everything in the document that the schema does not allow."""
    return _violations(Draft202012Validator(dict(schema)), document)


def first_violation(schema: Path, document: Any) -> Violation | None:
    """The first thing in the document that the schema of this file does not allow."""
    try:
        return next(_violations(_validator(schema), document), None)
    except UnicodeEncodeError as error:  # JSON can escape what no UTF-8 can hold
        return Violation((), f"a text holds half of a surrogate pair ({error.reason})")


def _violations(validator: Draft202012Validator, document: Any) -> Iterator[Violation]:
    return (Violation(tuple(error.instance_path), error.message) for error in validator.iter_errors(document))


@functools.cache
def _validator(schema: Path) -> Draft202012Validator:
    return Draft202012Validator(parse_json(schema.read_text(encoding="utf-8")))
