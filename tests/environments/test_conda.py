"""environment.yml and environment-cuda.yml by conda's real solver, against a local channel of empty packages."""

from __future__ import annotations

import asyncio
import io
import json
import re
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
