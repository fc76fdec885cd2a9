"""What a killed vLLM leaves on this machine: sockets, the file of its rendezvous, and shared memory; and their removal.

Each server gets a temporary folder of its own. Shared memory has no folder: it is removed if nothing uses it any more.
"""

from __future__ import annotations

import getpass
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from conformance.serving.command import SOCKETS, temporary_folder

INDUCTOR = "TORCHINDUCTOR_CACHE_DIR"
PREFIX = "conformance-"
SHARED = Path("/dev/shm")
# vllm.utils.network_utils names shared memory of CPU workers after the rendezvous; Python's own begins with "psm_".
_SEGMENTS = ("vllm_dist_", "psm_")
_SLACK_SECONDS = 2.0  # between the clock of processes, which counts from the boot, and that of files


def name_folder(environment: Mapping[str, str]) -> Path:
    """The path of a temporary folder for one server, in the folder of sockets or else in the temporary one."""
    parent = existing_folder(environment.get(SOCKETS), temporary_folder(environment))
    return parent / f"{PREFIX}{secrets.token_hex(4)}"


def settings(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables with which a server uses this folder, but goes on to keep compiled code where it always does."""
    usual = existing_folder(temporary_folder(environment)) / f"torchinductor_{_user()}"
    return {"TMPDIR": str(folder), SOCKETS: str(folder), INDUCTOR: environment.get(INDUCTOR) or str(usual)}


def existing_folder(*folders: str | None) -> Path:
    """The first of the folders that exists, or else the temporary folder."""
    return Path(next((folder for folder in folders if folder and Path(folder).is_dir()), tempfile.gettempdir()))


def remove(folder: str, since: float | None) -> None:
    """Remove what a server has left that began at ``since``, after all its processes have ended."""
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
    if since is not None:
        for path in _abandoned(since):
            path.unlink(missing_ok=True)


def _abandoned(since: float) -> Iterator[Path]:
    """Shared memory of this user's servers that is not older, and that no process uses."""
    found = [path for path in SHARED.glob("*") if path.name.startswith(_SEGMENTS) and _is_ours(path, since)]
    used = set(_used()) if found else set()
    return (path for path in found if str(path) not in used)


def _is_ours(path: Path, since: float) -> bool:
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    return status.st_uid == os.getuid() and status.st_ctime >= since - _SLACK_SECONDS


def _used() -> Iterator[str]:
    """The shared memory that a process maps or has open; of other users' processes nothing is known."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            lines = (process / "maps").read_text(errors="replace").splitlines()
            yield from (line[line.index(str(SHARED)) :] for line in lines if str(SHARED) in line)
            yield from (str(file.readlink()) for file in (process / "fd").iterdir())
        except OSError:  # it has ended, or belongs to somebody else
            continue


def _user() -> str:
    """The user as torch names the folder of compiled code (``torch._inductor.runtime.cache_dir_utils``)."""
    try:
        return re.sub(r'[\\/:*?"<>|]', "_", getpass.getuser())
    except (KeyError, OSError, ImportError):
        return f"uid_{os.getuid()}"
