"""The wheel: built, installed into an empty environment elsewhere, and used from a folder that is no checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import jsonschema
import pytest
from negative_controls.faux_servers.by_hand import started_by_hand
from support import judged_runs, synthetic
from support.paths import ROOT


def run(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command in an environment that knows nothing of this checkout."""
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CONFORMANCE_ENV")}
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=own | variables, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built from the files that git knows."""
    folder = tmp_path_factory.mktemp("source")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=ROOT)
    for name in filter(None, listed.stdout.split("\0")):
        if name.startswith(("conformance", "fixtures/", "envs/", "pyproject", "LICENSE", "README")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    built = run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", cwd=folder)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = (folder / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with the wheel, and with the locked packages of this one behind it."""
    home = tmp_path_factory.mktemp("elsewhere") / "venv"
    assert run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home.parent).returncode == 0
    python = home / "bin/python"
    words = ("-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel)
    done = run(sys.executable, *words, cwd=home.parent)
    assert done.returncode == 0, done.stderr
    (site,) = home.glob("lib/python3*/site-packages")
    (site / "locked-packages.pth").write_text(sysconfig.get_path("purelib") + "\n")  # no .pth there is followed
    where = run(python, "-c", "import conformance; print(conformance.__file__)", cwd=home.parent)
    assert where.stdout.startswith(str(site)), where
    return home / "bin"


def test_it_says_its_version_and_its_checks(installed: Path, tmp_path: Path) -> None:
    version = run(installed / "qualify", "--version", cwd=tmp_path)
    assert version.stdout.startswith("gemma4-mtp-conformance 20"), version
    listed = run(installed / "qualify", "catalogue", "--json", cwd=tmp_path)
    assert {check["id"] for check in json.loads(listed.stdout)} >= {"ENV-01", "SOAK-05"}


def test_it_judges_evidence(installed: Path, tmp_path: Path) -> None:
    evidence = synthetic.record(tmp_path / "run", synthetic.healthy())
    judged = run(installed / "qualify", "rejudge", evidence, "--json", cwd=tmp_path)
    document = json.loads(judged.stdout)
    assert document["exit_code"] == judged.returncode
    verdicts = {verdict["id"]: verdict["verdict"] for verdict in document["verdicts"]}
    assert verdicts["ACC-01"] == "PASS"
    assert (evidence / "report.html").is_file()


def test_it_judges_a_server_that_runs(installed: Path, tmp_path: Path) -> None:
    with started_by_hand() as serve:
        url = serve()
        words = ("--attach", url, "--hardware", "cpu", "--level", "smoke", "--evidence", "run", "--json")
        done = run(installed / "qualify", *words, cwd=tmp_path)
    verdicts = {verdict["id"]: verdict["verdict"] for verdict in json.loads(done.stdout)["verdicts"]}
    assert verdicts["DRAFT-10"] == "PASS", done.stderr
    assert json.loads((tmp_path / "run/header.json").read_text())["attached"] == url


@pytest.mark.builds
def test_pytest_runs_the_package_by_name(installed: Path, tmp_path: Path) -> None:
    words = ("--pyargs", "conformance", "--level", "static", "--evidence", "run", "-p", "no:cacheprovider")
    done = run(installed / "python", "-m", "pytest", *words, cwd=tmp_path)
    assert "checks passed" in done.stdout, done.stdout + done.stderr
    assert (tmp_path / "run/manifest.json").is_file()


@pytest.mark.builds
def test_the_commands_of_the_terminal_need_no_checkout(installed: Path, tmp_path: Path) -> None:
    judged_runs.record(tmp_path / "evidence/run")
    shutil.copy2(ROOT / "tests/support/gemma-recipe.yaml", tmp_path / "gemma.yaml")
    said = {}
    for words in (
        "show evidence/run ACC-01",
        "list",
        "history evidence",
        "export evidence/run --format github",
        "recipe gemma.yaml --variant nvidia_nvfp4 --hardware gb10 --only-write",
        "bisect --good 0.21.0 --bad 0.32.0 --check GRAPH-01 --plan",
    ):
        done = run(installed / "qualify", *words.split(), cwd=tmp_path)
        assert done.returncode == (4 if "export" in words else 0), done.stderr  # export has the code of the run
        said[words.partition(" ")[0]] = done.stdout
    assert said["show"].startswith("PASS ACC-01")
    assert "evidence/run" in said["list"]
    assert re.search(r"checks passed +\d{3}\n", said["history"])  # of a run in which all pass, no check is named
    assert "::notice title=qualify::" in said["export"]
    assert (tmp_path / "recipe/gb10.toml").is_file()
    assert "GRAPH-01 is judged at level static on at most 6 of 15 releases: 0.21.0, " in said["bisect"]


@pytest.mark.builds
def test_the_doctor_finds_the_lock_in_the_wheel(installed: Path, tmp_path: Path) -> None:
    done = run(installed / "qualify", "doctor", "--hardware", "cpu", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    jsonschema.validate(document, json.loads((ROOT / "conformance/reports/doctor.schema.json").read_text()))
    states = {line["name"]: line for line in document["lines"]}
    assert states["lock"]["state"] == "OK", states["lock"]
    assert states["import"]["said"].startswith("vllm ")


@pytest.mark.builds
def test_a_search_over_releases_needs_no_checkout(installed: Path, tmp_path: Path) -> None:
    """GRAPH-01 fails from 0.25.0 on (vllm#53407); both environments come from the locks in the wheel."""
    (installed / "uv").symlink_to(Path(sys.executable).with_name("uv"))
    words = ("--good", "0.24.0", "--bad", "0.25.0", "--check", "GRAPH-01", "--json")
    done = run(installed / "qualify", "bisect", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["good"], document["bad"]) == ("0.24.0", "0.25.0")
    assert [step["verdict"] for step in document["steps"]] == ["PASS", "FAIL"]
