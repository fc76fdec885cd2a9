"""environment.yml and environment-cuda.yml by conda's real solver, against a local channel of empty packages."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from rattler import Channel, MatchSpec, Subdir, install, solve
from rattler.exceptions import InvalidMatchSpecError, SolverError
from rattler.index import index_fs
from support.paths import ROOT

FILES = ("environment.yml", "environment-cuda.yml")
PLATFORMS = ("linux-64", "linux-aarch64")
# name -> version of what the two files ask for, and of nothing else
OFFERED = {
    "python": "3.12.11",
    "uv": "0.13.9",
    "git": "2.51.0",
    "gxx": "15.2.0",
    "libstdcxx-ng": "15.2.0",
    "numactl": "2.0.18",
    "openssh": "10.2p1",
    "cuda-nvcc": "13.0.88",
}


def read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return document


def package(folder: Path, name: str, version: str, platform: str) -> None:
    """A package of conda's older format with one file in it."""
    content = {"info/index.json": {"name": name, "version": version, "build": "0", "build_number": 0, "depends": []}}
    content["info/index.json"] |= {"subdir": platform}
    path = {"_path": f"share/{name}", "path_type": "hardlink", "sha256": "", "size_in_bytes": 0}
    content["info/paths.json"] = {"paths": [path | {"sha256": EMPTY}], "paths_version": 1}
    (folder / platform).mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / platform / f"{name}-{version}-0.tar.bz2", "w:bz2") as archive:
        for file, document in [*content.items(), (f"share/{name}", None)]:
            data = b"" if document is None else json.dumps(document).encode()
            member = tarfile.TarInfo(file)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # SHA-256 of nothing


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Channel:
    folder = tmp_path_factory.mktemp("channel")
    (folder / "noarch").mkdir()
    for platform in PLATFORMS:
        for name, version in OFFERED.items():
            package(folder, name, version, platform)
    asyncio.run(index_fs(folder))
    return Channel(folder.as_uri())


@pytest.fixture(scope="module")
def mirror(channel: Channel) -> Path:
    return Path(channel.base_url.removeprefix("file://"))


def solved(specs: list[str], channel: Channel, platform: str) -> list[Any]:
    strict = [MatchSpec(spec, strict=True) for spec in specs]
    return asyncio.run(solve([channel], strict, platforms=[platform, "noarch"]))


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("file", FILES)
def test_it_is_solved(file: str, platform: str, channel: Channel) -> None:
    specs = read(file)["dependencies"]
    records = solved(specs, channel, platform)
    assert {record.name.normalized for record in records} == {
        MatchSpec(spec, strict=True).name.normalized for spec in specs
    }


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("file", FILES)
def test_it_is_installed(file: str, platform: str, channel: Channel, tmp_path: Path) -> None:
    records = solved(read(file)["dependencies"], channel, platform)
    asyncio.run(
        install(records, target_prefix=tmp_path / "prefix", cache_dir=tmp_path / "cache", platform=Subdir(platform))
    )
    assert {path.name for path in (tmp_path / "prefix/share").iterdir()} == {
        record.name.normalized for record in records
    }


def test_what_is_offered_is_what_is_asked_for() -> None:
    asked = {MatchSpec(spec, strict=True).name.normalized for file in FILES for spec in read(file)["dependencies"]}
    assert asked == OFFERED.keys()


@pytest.mark.parametrize("spec", ["python=3.12.*", "git >>2", "uv ="])
def test_a_loose_spec_is_seen(spec: str) -> None:
    with pytest.raises(InvalidMatchSpecError):
        MatchSpec(spec, strict=True)


@pytest.mark.parametrize("spec", ["pyhton =3.12", "python =3.10"])
def test_what_no_channel_has_is_seen(spec: str, channel: Channel) -> None:
    with pytest.raises(SolverError):
        solved([spec], channel, "linux-64")


@pytest.mark.parametrize("file", FILES)
def test_activation_leads_to_the_lock(file: str) -> None:
    variables, python = read(file)["variables"], re.search(r"python =(3\.\d+)", (ROOT / file).read_text())
    assert (ROOT / "envs" / variables["CONFORMANCE_ENV"] / "lock.txt").is_file()
    assert python is not None
    assert variables["PYTHON"] == f"python{python[1]}"


@pytest.mark.parametrize("file", FILES)
def test_python_packages_are_the_locks_business(file: str) -> None:
    assert all(isinstance(each, str) for each in read(file)["dependencies"])
    assert read(file)["channels"] == ["conda-forge", "nodefaults"]


# scripts/lock --conda: the same solver, and what it found as conda's explicit locks

EXPLICIT = re.compile(
    r"(?P<folder>.+)/(?P<file>[^/#]+(?:\.tar\.bz2|\.conda))#sha256:(?P<sha256>[0-9a-f]{64})"
)  # CEP 23


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for folder in ("scripts", "envs/cpu", "envs/cuda"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("scripts/lock", "scripts/lock_conda", *FILES):
        shutil.copy2(ROOT / name, tmp_path / name)
    return tmp_path


def lock(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, checkout / "scripts/lock", "--conda", *words]
    return subprocess.run(command, capture_output=True, text=True)


def wrong(text: str, mirror: Path) -> list[str]:
    """The lines that name no file of the mirror with that SHA-256."""
    head, *lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert head == "@EXPLICIT"
    bad = []
    for line in lines:
        found = EXPLICIT.fullmatch(line)
        path = mirror / found["folder"] / found["file"] if found else mirror
        if not found or not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != found["sha256"]:
            bad.append(line)
    return bad


def test_each_environment_has_a_lock_for_each_platform(checkout: Path, channel: Channel, mirror: Path) -> None:
    done = lock(checkout, "--channel", channel.base_url)
    assert (done.returncode, done.stderr) == (0, "")
    for environment, file in (("cpu", FILES[0]), ("cuda", FILES[1])):
        for platform in PLATFORMS:
            text = (checkout / f"envs/{environment}/conda-{platform}.txt").read_text()
            assert wrong(text, mirror) == []
            assert "://" not in text
            assert len(re.findall(f"^./{platform}/", text, re.MULTILINE)) == len(read(file)["dependencies"])
    assert lock(checkout, "--check", "--channel", channel.base_url).returncode == 0


def test_a_changed_line_is_seen(checkout: Path, channel: Channel, mirror: Path) -> None:
    assert lock(checkout, "--channel", channel.base_url).returncode == 0
    path = checkout / "envs/cpu/conda-linux-64.txt"
    damaged = re.sub(r"sha256:.", "sha256:x", path.read_text(), count=1)
    assert len(wrong(damaged, mirror)) == 1
    path.write_text(re.sub(r"uv-0.13.9", "uv-0.13.8", path.read_text()))
    assert len(wrong(path.read_text(), mirror)) == 1
    done = lock(checkout, "--check", "--channel", channel.base_url)
    assert done.returncode == 1
    assert re.search(r"^\+./linux-64/uv-0.13.9", done.stdout, re.MULTILINE)


def test_a_channel_without_the_packages_is_one_sentence(checkout: Path, tmp_path: Path) -> None:
    done = lock(checkout, "--channel", (tmp_path / "none").as_uri())
    assert done.returncode == 2
    assert done.stderr.startswith("lock: conda's environments could not be solved from file://")
    assert "Traceback" not in done.stderr
