"""scripts/compare_wheels: what it says of two wheels that are the same, that differ, and that cannot be read."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from support.paths import ROOT


def wheel(path: Path, files: dict[str, str], year: int = 1980) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name, (year, 1, 1, 0, 0, 0)), text)
    return path


def compare(*paths: Path) -> tuple[int, list[str]]:
    command = [sys.executable, ROOT / "scripts/compare_wheels", *paths]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, (done.stdout or done.stderr).splitlines()


def test_the_same_files_are_the_same(tmp_path: Path) -> None:
    one, other, later = (tmp_path / name for name in ("a", "b", "c"))
    files = {"vllm/a.py": "x = 1", "vllm/_C.so": "code"}
    wheel(one, files), wheel(other, files), wheel(later, files, 2026)
    assert compare(one, other) == (0, ["0 of 2 files differ; the archives are the same"])
    assert compare(one, later) == (0, ["0 of 2 files differ; the archives are not"])


def test_every_difference_is_named(tmp_path: Path) -> None:
    one = wheel(tmp_path / "a", {"same": "s", "changed": "abcd", "only_here": ""})
    other = wheel(tmp_path / "b", {"same": "s", "changed": "abXdef", "only_there": ""})
    code, said = compare(one, other)
    assert code == 1
    assert said == [
        f"only_here: only in {one}",
        f"only_there: only in {other}",
        "changed: 3 bytes differ of 4 and 6",
        "3 of 3 files differ; the archives are not",
    ]


def test_what_is_no_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("no archive")
    code, said = compare(tmp_path / "a", tmp_path / "b")
    assert (code, len(said)) == (2, 1)
    assert said[0].startswith(f"compare_wheels: {tmp_path / 'a'} or {tmp_path / 'b'} cannot be read")
