"""envs/*/pylock.toml says what lock.txt and wheels.json say, and pip and uv install from it and a mirror folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from packaging.pylock import PackageWheel, Pylock, PylockValidationError
from packaging.requirements import Requirement
from support.debian import lacking
from support.paths import ROOT
from support.scripts import load_script

lock_script = load_script("lock")
ENVIRONMENTS = sorted(path.parent.name for path in ROOT.glob("envs/*/requirements.in"))
environments = pytest.mark.parametrize("environment", ENVIRONMENTS)


def read(environment: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / "envs" / environment / "pylock.toml").read_text())


def selected(document: dict[str, Any], target: Any) -> dict[str, str]:
    """The files that a tool takes on that machine, with their SHA-256, by the reference implementation of PEP 751."""
    found = Pylock.from_dict(document).select(environment=target.environment, tags=list(target.ranks))
    wheels = [wheel for _, wheel in found]
    assert all(isinstance(wheel, PackageWheel) for wheel in wheels)
    return {Path(wheel.path).name: wheel.hashes["sha256"] for wheel in wheels}


def by_target(document: dict[str, Any]) -> dict[str, dict[str, dict[str, str]]]:
    made: dict[str, dict[str, dict[str, str]]] = {}
    for target in lock_script.TARGETS:
        made.setdefault(target.system, {})[target.tag] = selected(document, target)
    return made


def not_in_the_lock(document: dict[str, Any], lock: dict[str, list[str]]) -> list[str]:
    """The packages whose version, marker or hash the lock does not have, and those that only the lock has."""
    known = {}
    for line, hashes in lock.items():
        requirement = Requirement(line)
        if any(target.wants(requirement) for target in lock_script.TARGETS):
            known[(*lock_script.release(requirement), str(requirement.marker))] = set(hashes)
    wrong = []
    for each in document["packages"]:
        marker = str(Requirement(f"x; {each['marker']}").marker) if "marker" in each else "None"
        hashes = known.pop((each["name"], each["version"], marker), set())
        if not {f"sha256:{wheel['hashes']['sha256']}" for wheel in each["wheels"]} <= hashes:
            wrong.append(each["name"])
    return wrong + [name for name, *_ in known]


@environments
def test_every_tool_takes_the_files_that_nix_takes(environment: str) -> None:
    wheels = json.loads((ROOT / "envs" / environment / "wheels.json").read_text())
    assert by_target(read(environment)) == wheels


@environments
def test_it_holds_what_the_lock_holds_and_no_address(environment: str) -> None:
    lock = lock_script.parse((ROOT / "envs" / environment / "lock.txt").read_text())
    assert not_in_the_lock(read(environment), lock) == []
    text = (ROOT / "envs" / environment / "pylock.toml").read_text()
    assert "://" not in text
    assert "url" not in {key for each in read(environment)["packages"] for wheel in each["wheels"] for key in wheel}


def test_what_differs_from_the_lock_is_seen() -> None:
    lock = lock_script.parse((ROOT / "envs/cpu/lock.txt").read_text())
    wheels = json.loads((ROOT / "envs/cpu/wheels.json").read_text())
    for damage in (
        lambda package: package.update(version="0"),
        lambda package: package.update(marker="python_full_version < '3.12'"),
        lambda package: package["wheels"][0]["hashes"].update(sha256="0" * 64),
    ):
        document = read("cpu")
        damage(document["packages"][0])
        assert document["packages"][0]["name"] in not_in_the_lock(document, lock)
    without = read("cpu")
    assert not_in_the_lock(without | {"packages": without["packages"][1:]}, lock) == [without["packages"][0]["name"]]
    assert by_target(without | {"packages": without["packages"][1:]}) != wheels


def test_a_file_without_a_place_is_not_the_format() -> None:
    document = read("cpu")
    del document["packages"][0]["wheels"][0]["path"]
    with pytest.raises(PylockValidationError, match="path or url"):
        Pylock.from_dict(document)


# two packages, made here, from a mirror folder


def wheel(folder: Path, name: str, tag: str) -> Path:
    """A wheel with one module."""
    path = folder / f"{name}-1-{tag}.whl"
    info = f"{name}-1.dist-info"
    with ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\nRequires-Dist: absent\n"
        )
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """pylock.toml as scripts/lock writes it, of two packages, and the folder of wheels beside it."""
    (tmp_path / "wheels").mkdir()
    lock, files = {}, {}
    machines = lock_script.MACHINES
    for name, tags in {
        "everywhere": ["py3-none-any"],
        "native": [f"py3-none-linux_{each}" for each in machines],
    }.items():
        made = [wheel(tmp_path / "wheels", name, tag) for tag in tags]
        files[name, "1"] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in made}
        lock[f"{name}==1"] = sorted(files[name, "1"].values())
    lock["elsewhere==1 ; sys_platform == 'win32'"] = ["00"]
    text = lock_script.render_pylock(lock, files, "2026-01-02T03:04:05Z")
    (tmp_path / "pylock.toml").write_text(text)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    return tmp_path


@pytest.fixture(scope="module")
def pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pip that reads the format: the first is 26.1."""
    folder = tmp_path_factory.mktemp("pip")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, "pip>=26.1"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lacking(f"no newer pip is in reach: {done.stderr.splitlines()[-1]}")
    return folder


def install(mirror: Path, tool: str, pip: Path) -> subprocess.CompletedProcess[str]:
    python = mirror / "venv/bin/python"
    commands = {
        "pip": [sys.executable, "-m", "pip", f"--python={python}", "install", "--no-deps", "--no-index"],
        "uv": [ROOT / ".venv/bin/uv", "pip", "install", f"--python={python}", "--no-deps", "--no-index", "--no-cache"],
    }
    own = {"PYTHONPATH": str(pip), "PIP_FIND_LINKS": "", "UV_FIND_LINKS": ""}
    command = [*commands[tool], "-r", mirror / "pylock.toml"]
    return subprocess.run(command, cwd="/", env=os.environ | own, capture_output=True, text=True)


@pytest.mark.builds
@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_it_is_installed_from_a_mirror_folder(mirror: Path, tool: str, pip: Path) -> None:
    done = install(mirror, tool, pip)
    assert done.returncode == 0, done.stderr
    (packages,) = mirror.glob("venv/lib/python3*/site-packages")
    assert {path.name for path in packages.glob("*.dist-info")} == {"everywhere-1.dist-info", "native-1.dist-info"}


@pytest.mark.builds
@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_a_changed_file_in_the_mirror_is_refused(mirror: Path, tool: str, pip: Path) -> None:
    with ZipFile(mirror / "wheels/everywhere-1-py3-none-any.whl", "a") as archive:
        archive.writestr("another.py", "")
    done = install(mirror, tool, pip)
    assert done.returncode != 0
    assert re.search("hash", done.stderr, re.IGNORECASE)
    assert not list(mirror.glob("venv/lib/python3*/site-packages/everywhere*"))
