"""The wheel: built, installed into an empty environment elsewhere, and used from a folder that is no checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from negative_controls.faux_servers.by_hand import started_by_hand
from support import synthetic
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
