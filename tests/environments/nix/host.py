"""A real Nix for the tests: the host's own, or Debian's package unpacked into a folder; and a stand-in for nixpkgs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from support.debian import settle, unpack
from support.paths import ROOT

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
    shutil.copytree(ROOT / "tests/environments/nix/nixpkgs", folder / "nixpkgs")
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
    root = unpack(folder / "debian", *PACKAGES)
    settle(root, root / "usr/bin/nix")
    return Nix(str(root / "usr/bin/nix"), folder, str(root / "usr/bin/bash-static"))
