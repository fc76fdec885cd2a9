"""The flake, by a real Nix: it is parsed, locked, evaluated and entered; what needs no GPU is built without network."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from environments.nix.host import ROOT, SYSTEM, Nix, install
from platformdirs import user_cache_path

SHELLS = ("default", "cuda", "cuda-0.32", "first-mtp", "pr-41745")
PACKAGES = ("cpu-env", *SHELLS[1:], "pr-41745-empty")
CACHE = user_cache_path("gemma4-mtp-conformance") / "nix-inputs"


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
        for kind, names in {"devShells": SHELLS, "packages": PACKAGES}.items():
            checked = re.findall(rf"^checking derivation {kind}\.{system}\.(\S+)\.\.\.$", said, re.MULTILINE)
            assert set(checked) == set(names)


@pytest.mark.parametrize(
    ("file", "package"),
    [("shell", "pkgs.uv"), ("fhs", "pkgs.ccache"), ("fhs", "cuda.cudatoolkit"), ("from-sdist", "pkgs.fetchPypi")],
)
def test_a_misspelt_package_is_seen(nix: Nix, checkout: Path, file: str, package: str) -> None:
    path = checkout / f"nix/{file}.nix"
    path.write_text(path.read_text().replace(package, f"{package}Z"))
    done = check(nix, checkout)
    assert done.returncode != 0
    assert f"{package.partition('.')[2]}Z" in done.stderr


@pytest.mark.parametrize("environment", ["cpu", "pr-41745"])
def test_an_environment_without_wheels_for_aarch64_is_seen(nix: Nix, checkout: Path, environment: str) -> None:
    path = checkout / f"envs/{environment}/wheels.json"
    wheels = json.loads(path.read_text())
    del wheels["aarch64-linux"]
    path.write_text(json.dumps(wheels))
    done = check(nix, checkout)
    assert done.returncode != 0
    assert "aarch64-linux" in done.stderr


def test_a_tool_without_a_wheel_is_seen(nix: Nix, checkout: Path) -> None:
    path = checkout / "envs/pr-41745/wheels.json"
    path.write_text(path.read_text().replace('"setuptools_scm-', '"another-'))
    done = check(nix, checkout)
    assert done.returncode != 0
    assert "no wheel for setuptools-scm" in done.stderr


@pytest.mark.builds
def test_nix_develop_leads_to_where_the_suite_runs(nix: Nix, tmp_path: Path) -> None:
    suite = ("pytest", "conformance/", "--level", "static", "--evidence", str(tmp_path / "evidence"))
    done = nix.run("develop", *nix.nixpkgs, "-c", *suite)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Passed at level static" in done.stdout


def fetch(folder: Path, *words: str, **variables: str) -> None:
    """Let pip fetch the files of a list of hashes."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "-d", folder, *words]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def fetched_once(name: str, contents: str, fetch_into: Callable[[Path], None]) -> Path:
    """A folder of the user's cache with what was fetched for these contents; pip takes a minute to find 214 files.

    Nix checks the hash of each file when it builds with it.
    """
    digest = hashlib.sha256((sys.version + contents).encode()).hexdigest()[:16]
    folder = CACHE / f"{name}-{digest}"
    if not folder.is_dir():
        for older in CACHE.glob(f"{name}-*"):
            shutil.rmtree(older)
        part = CACHE / f"{name}-part-{os.getpid()}"
        fetch_into(part)
        part.rename(folder)
    return folder


@pytest.fixture(scope="session")
def wheels() -> Path:
    """Every file of the CPU environment's lock, as pip finds them."""
    lock = "envs/cpu/lock.txt"
    words = ("--only-binary", ":all:", "-r", lock)
    return fetched_once("cpu", (ROOT / lock).read_text(), lambda folder: fetch(folder, *words))


@pytest.mark.builds
def test_the_wheels_of_nix_are_those_of_pip(wheels: Path) -> None:
    known = json.loads((ROOT / "envs/cpu/wheels.json").read_text())
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    assert {path.name for path in wheels.iterdir()} == set(known[SYSTEM][tag])


def built(nix: Nix, what: str, checkout: Path) -> subprocess.CompletedProcess[str]:
    """A sandboxed build, with all that it prints; on stdout stands where it is."""
    shown = ("--print-build-logs", "--print-out-paths")
    return nix.run("build", f".#{what}", "--no-link", *shown, *nix.nixpkgs, *nix.sandbox, cwd=checkout)


def stock(nix: Nix, folder: Path) -> Nix:
    """Put the files of a folder into Nix's store, as if Nix had fetched them."""
    added = nix.tool("nix-store", "--add-fixed", "sha256", *map(str, sorted(folder.iterdir())))
    assert added.returncode == 0, added.stderr
    return nix


@pytest.fixture(scope="session")
def stocked(nix: Nix, wheels: Path) -> Nix:
    """Nix with the files of the CPU environment."""
    return stock(nix, wheels)


@pytest.mark.builds
def test_the_cpu_environment_is_built_without_network(stocked: Nix) -> None:
    done = built(stocked, "cpu-env", ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "registers Gemma4MTPModel" in done.stderr


@pytest.mark.builds
@pytest.mark.parametrize("check", ["format", "tests", "shells"])
def test_the_checks_of_the_flake_are_built_without_network(stocked: Nix, check: str) -> None:
    done = built(stocked, f"checks.{SYSTEM}.{check}", ROOT)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.builds
def test_a_file_that_is_not_formatted_fails_the_check(stocked: Nix, tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name, follow_symlinks=False)
    (tmp_path / "conformance/errors.py").write_text("x=1\n")
    for command in (["init", "--quiet"], ["add", "--all", "--force"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)
    done = built(stocked, f"checks.{SYSTEM}.format", tmp_path)
    assert done.returncode != 0
    assert "File would be reformatted" in done.stderr
    assert "--> conformance/errors.py" in done.stderr


@pytest.mark.builds
def test_a_wrong_hash_cannot_be_built(stocked: Nix, checkout: Path) -> None:
    path = checkout / "envs/cpu/wheels.json"
    wheels = json.loads(path.read_text())
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    file = next(name for name in wheels[SYSTEM][tag] if name.startswith("filelock-"))
    wheels[SYSTEM][tag][file] = "0" * 64
    path.write_text(json.dumps(wheels))
    done = built(stocked, "cpu-env", checkout)
    assert done.returncode != 0
    assert file in done.stderr


@pytest.fixture(scope="session")
def stocked_with_sdists(stocked: Nix, tmp_path_factory: pytest.TempPathFactory) -> Nix:
    """With both sdists of the first release too, and the packages that its build needs beside the CPU environment's."""
    sdists = "envs/pr-41745/sdists/0.21.0.txt"
    lock = (ROOT / "envs/pr-41745/lock.txt").read_text()
    texts = [(ROOT / f"envs/pr-41745/{name}.txt").read_text() for name in ("build-tools", "of-its-time")]
    names = [line for text in texts for line in text.splitlines() if not line.startswith("#")]
    pins = "".join(pin.group() for name in names if (pin := re.search(rf"^{name}==(.*\\\n)*.*\n", lock, re.MULTILINE)))

    def fetch_into(files: Path) -> None:
        folder = tmp_path_factory.mktemp("sources")
        (folder / "tools.txt").write_text(pins)
        fetch(files, "--only-binary", ":all:", "-r", str(folder / "tools.txt"))
        unpack = ("-m", "pip", "install", "--no-index", "--no-deps", "--quiet", "--target", folder / "tools")
        subprocess.run([sys.executable, *unpack, *files.glob("*.whl")], check=True)
        # pip asks each sdist for its version.
        asked = {
            "PYTHONPATH": str(folder / "tools"),
            "VLLM_TARGET_DEVICE": "empty",
            "VLLM_VERSION_OVERRIDE": "0.21.0",
        }
        fetch(files, "--no-build-isolation", "--no-binary", ":all:", "-r", sdists, **asked)

    return stock(stocked, fetched_once("sdists", pins + (ROOT / sdists).read_text(), fetch_into))


@pytest.mark.builds
def test_an_sdist_of_another_hash_cannot_be_built(stocked_with_sdists: Nix, checkout: Path) -> None:
    path = checkout / "envs/pr-41745/sdists/0.21.0.txt"
    path.write_text(path.read_text().replace("sha256:05ff", "sha256:05fe"))
    done = built(stocked_with_sdists, "pr-41745-empty", checkout)
    assert done.returncode != 0
    assert "vllm-0.21.0.tar.gz" in done.stderr


@pytest.mark.builds
def test_the_first_release_is_built_from_its_sdist_without_network(stocked_with_sdists: Nix) -> None:
    done = built(stocked_with_sdists, "pr-41745-empty", ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "vllm 0.21.0+empty registers Gemma4MTPModel" in done.stderr
    (evidence,) = Path(done.stdout.strip()).glob("evidence/*")
    header, *rows, footer = map(json.loads, (evidence / "verdicts.jsonl").read_text().splitlines())
    verdicts = {row["id"]: row["verdict"] for row in rows}
    assert (header["level"], footer["problems"]) == ("static", [])
    assert list(verdicts) == header["expected"]
    assert [verdicts[check] for check in ("ENV-02", "ENV-03", "CKPT-01", "PARSE-01")] == ["PASS"] * 4
    assert verdicts["PARSE-10"] == "FAIL"  # a defect of this release
