"""The flake, by a real Nix: it is parsed, locked, evaluated and entered, and its CPU environment is built offline."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from environments.nix.host import ROOT, SYSTEM, Nix, install

SHELLS = ("default", "cuda", "cuda-0.32", "first-mtp", "pr-41745")


@pytest.fixture(scope="session")
def nix(tmp_path_factory: pytest.TempPathFactory) -> Nix:
    return install(tmp_path_factory.mktemp("nix"))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the flake reads, which a test may damage."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "flake.*", "nix", "envs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def check(nix: Nix, checkout: Path) -> subprocess.CompletedProcess[str]:
    """`nix flake check` of all systems, without building."""
    return nix.run("flake", "check", "--no-build", "--all-systems", *nix.nixpkgs, cwd=checkout)


def test_every_file_parses(nix: Nix) -> None:
    files = [
        ROOT / "flake.nix",
        *sorted((ROOT / "nix").glob("*.nix")),
        *sorted((ROOT / "tests/environments/nix").rglob("*.nix")),
    ]
    done = nix.tool("nix-instantiate", "--parse", *map(str, files))
    assert done.returncode == 0, done.stderr


def test_the_lock_belongs_to_the_flake(nix: Nix, checkout: Path) -> None:
    done = nix.run("flake", "metadata", "--offline", "--no-update-lock-file", "--json", cwd=checkout)
    assert done.returncode == 0, done.stderr
    node = json.loads(done.stdout)["locks"]["nodes"]["nixpkgs"]
    assert len(node["locked"]["rev"]) == 40
    assert node["locked"]["narHash"].startswith("sha256-")
    assert node["locked"]["rev"] == node["original"]["rev"]


def test_a_lock_of_another_revision_is_refused(nix: Nix, checkout: Path) -> None:
    path = checkout / "flake.nix"
    path.write_text(path.read_text().replace("d4079514", "d4079515"))
    done = nix.run("flake", "metadata", "--offline", "--no-update-lock-file", cwd=checkout)
    assert done.returncode != 0


def test_everything_evaluates_on_both_systems(nix: Nix, checkout: Path) -> None:
    done = check(nix, checkout)
    assert done.returncode == 0, done.stderr
    said = (done.stderr + done.stdout).replace('"', "")  # Nix quotes a name with a full stop
    for system in ("x86_64-linux", "aarch64-linux"):
        for shell in SHELLS:
            assert f"devShells.{system}.{shell}" in said


def test_a_misspelt_package_is_seen(nix: Nix, checkout: Path) -> None:
    path = checkout / "nix/shell.nix"
    path.write_text(path.read_text().replace("pkgs.uv", "pkgs.uvv"))
    done = check(nix, checkout)
    assert done.returncode != 0
    assert "uvv" in done.stderr


def test_a_package_without_a_wheel_for_aarch64_is_seen(nix: Nix, checkout: Path) -> None:
    path = checkout / "envs/cpu/wheels.json"
    wheels = json.loads(path.read_text())
    del wheels["aarch64-linux"]
    path.write_text(json.dumps(wheels))
    done = check(nix, checkout)
    assert done.returncode != 0
    assert "aarch64-linux" in done.stderr


@pytest.mark.builds
def test_nix_develop_leads_to_where_the_suite_runs(nix: Nix, tmp_path: Path) -> None:
    suite = ("pytest", "conformance/", "--level", "static", "--evidence", str(tmp_path / "evidence"))
    done = nix.run("develop", *nix.nixpkgs, "-c", *suite)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Passed at level static" in done.stdout


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every file of the CPU environment's lock, as pip finds them."""
    folder = tmp_path_factory.mktemp("wheels")
    options = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--quiet")
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder), "-r", "envs/cpu/lock.txt"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.builds
def test_the_wheels_of_nix_are_those_of_pip(wheels: Path) -> None:
    known = json.loads((ROOT / "envs/cpu/wheels.json").read_text())
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    assert {path.name for path in wheels.iterdir()} == set(known[SYSTEM][tag])


def built(nix: Nix, what: str, checkout: Path) -> subprocess.CompletedProcess[str]:
    """A sandboxed build, with all that it prints."""
    return nix.run("build", f".#{what}", "--no-link", "--print-build-logs", *nix.nixpkgs, *nix.sandbox, cwd=checkout)


@pytest.mark.builds
def test_the_cpu_environment_is_built_without_network(nix: Nix, wheels: Path) -> None:
    added = nix.tool("nix-store", "--add-fixed", "sha256", *map(str, sorted(wheels.iterdir())))
    assert added.returncode == 0, added.stderr
    done = built(nix, "cpu-env", ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "registers Gemma4MTPModel" in done.stderr


@pytest.mark.builds
@pytest.mark.parametrize("check", ["format", "tests", "shells"])
def test_the_checks_of_the_flake_are_built_without_network(nix: Nix, wheels: Path, check: str) -> None:
    nix.tool("nix-store", "--add-fixed", "sha256", *map(str, sorted(wheels.iterdir())))
    done = built(nix, f"checks.{SYSTEM}.{check}", ROOT)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.builds
def test_a_file_that_is_not_formatted_fails_the_check(nix: Nix, wheels: Path, tmp_path: Path) -> None:
    nix.tool("nix-store", "--add-fixed", "sha256", *map(str, sorted(wheels.iterdir())))
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name, follow_symlinks=False)
    (tmp_path / "conformance/errors.py").write_text("x=1\n")
    for command in (["init", "--quiet"], ["add", "--all", "--force"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)
    done = built(nix, f"checks.{SYSTEM}.format", tmp_path)
    assert done.returncode != 0
    assert "File would be reformatted" in done.stderr
    assert "--> conformance/errors.py" in done.stderr


@pytest.mark.builds
@pytest.mark.usefixtures("wheels")
def test_a_wrong_hash_cannot_be_built(nix: Nix, checkout: Path) -> None:
    path = checkout / "envs/cpu/wheels.json"
    wheels = json.loads(path.read_text())
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    file = next(name for name in wheels[SYSTEM][tag] if name.startswith("filelock-"))
    wheels[SYSTEM][tag][file] = "0" * 64
    path.write_text(json.dumps(wheels))
    done = built(nix, "cpu-env", checkout)
    assert done.returncode != 0
    assert file in done.stderr
