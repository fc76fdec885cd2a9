"""The layout: imports run downwards, packages stay small enough to read, and a file name means one thing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from support.paths import ROOT

MOST_MODULES = 26  # of a package; observers/ has one for each observation
# The stages of an observation, which has one name on all.
ONE_OBSERVATION = {"inside_vllm", "observers", "views", "views/served", "views/steps"}


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """``lint-imports`` over a checkout."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The code and its contracts, where they may be broken."""
    skipped = shutil.ignore_patterns("fixtures", "envs", "__pycache__")
    shutil.copytree(ROOT / "conformance", tmp_path / "conformance", ignore=skipped)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_run_downwards(checkout: Path) -> None:
    done = lint(checkout)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "imported", "contract"),
    [
        ("formats/json_lines.py", "conformance.profile.profile", "Packages import downwards only"),
        ("observers/bench.py", "conformance.judging.stats", "Observing knows no verdict"),
        ("judging/stats.py", "conformance.observers.load", "Judging asks no server"),
        ("views/bench.py", "conformance.serving.pool", "Views read documents only"),
        ("reports/terminal.py", "conformance.run.session", "Only commands start a run"),
    ],
)
def test_an_import_that_runs_back_up_fails(checkout: Path, module: str, imported: str, contract: str) -> None:
    path = checkout / "conformance" / module
    path.write_text(path.read_text() + f"\nimport {imported}\n")
    done = lint(checkout)
    assert done.returncode == 1
    assert f"{contract} BROKEN" in done.stdout


def packages() -> dict[str, list[Path]]:
    """The modules of each package, by its path below conformance/."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted((ROOT / "conformance").rglob("*.py")):
        if path.name != "__init__.py":
            found[str(path.parent.relative_to(ROOT / "conformance"))].append(path)
    return found


def test_every_package_is_in_the_contract() -> None:
    contract = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    top = {name.partition("/")[0] for name in packages()} - {"."}
    assert [name for name in sorted(top) if f"conformance.{name}" not in contract] == []


def test_no_package_is_too_big_to_read() -> None:
    sizes = {name: len(modules) for name, modules in packages().items() if name not in (".", "observers")}
    assert {name: size for name, size in sizes.items() if size > MOST_MODULES} == {}


def test_a_file_name_means_one_thing() -> None:
    """Besides the stages of an observation, and subcommands, whose modules have their names."""
    places = defaultdict(set)
    for name, modules in packages().items():
        for path in modules:
            if name != "commands" and path.name != "__main__.py":
                places[path.stem].add(name)
    assert {stem: found for stem, found in places.items() if len(found) > 1 and not found <= ONE_OBSERVATION} == {}
