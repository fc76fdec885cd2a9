"""scripts/bundle_wheels with wheels made here, served from a folder, and put together by the bundle's own script."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from zipfile import ZipFile

import pytest
from support.paths import ROOT

TAG = "py3-none-any"
# name -> version, and what it requires
PACKAGES = {
    "engine": ("2.0", ["helper>=1.5", "toolkit[fast]", 'windows-only; sys_platform == "win32"', "heavy"]),
    "helper": ("1.6", []),
    "toolkit": ("3.0", ['rocket; extra == "fast"', 'brake; extra == "slow"']),
    "rocket": ("1.0", []),
    "brake": ("1.0", []),
    "heavy": ("9.0", []),
    "ready": ("4.0", []),
}


class Bench:
    """A checkout with one environment, and a folder that pip downloads from."""

    def __init__(self, folder: Path) -> None:
        self.root, self.served, self.into = folder / "checkout", folder / "served", folder / "bundle"
        (self.root / "scripts").mkdir(parents=True)
        self.served.mkdir()
        shutil.copy2(ROOT / "scripts/bundle_wheels", self.root / "scripts")
        self.environment = self.root / "envs" / "some"
        self.environment.mkdir(parents=True)
        (self.root / "envs" / "suite.in").write_text("ready # there already\n")
        (self.root / "envs" / "machine-libraries.txt").write_text("# the machine's\nhelper # in any version\nabsent\n")
        (self.environment / "requirements.in").write_text("-r ../suite.in\nengine==2.0\n")
        files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in map(self.wheel, PACKAGES)}
        (self.environment / "wheels.json").write_text(json.dumps({"x86_64-linux": {"cp312": files}}))
        self.have = folder / "freeze.txt"
        self.have.write_text("ready==4.0\nhelper==1.4\ntoolkit==3.0\nother @ file:///somewhere\n")

    def wheel(self, name: str) -> Path:
        version, requires = PACKAGES[name]
        path, about = self.served / f"{name}-{version}-{TAG}.whl", f"{name}-{version}.dist-info"
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", "Provides-Extra: fast"]
        members = {
            f"{name}.py": f"version = {version!r}\n" + "#" * 4000,
            f"{about}/METADATA": "\n".join([*lines, *(f"Requires-Dist: {each}" for each in requires), ""]),
            f"{about}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {TAG}\n",
        }
        if name == "rocket":
            members |= {"rocket.pth": "rockets\nimport os\n", "rockets/engine_of_rocket.py": ""}
        with ZipFile(path, "w") as archive:
            for member, text in members.items():
                archive.writestr(member, text)
            record = "".join(f"{member},,\n" for member in [*members, f"{about}/RECORD"])
            archive.writestr(f"{about}/RECORD", record)
        return path

    def run(self, *words: str, have: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(self.root / "scripts/bundle_wheels"), "some", "--into", str(self.into)]
        quiet = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.served), "PIP_CONFIG_FILE": os.devnull}
        return subprocess.run(
            [*command, "--have", str(have or self.have), *words],
            env=os.environ | quiet,
            capture_output=True,
            text=True,
            check=False,
        )

    def unpack(self, target: Path, python: Path = Path(sys.executable)) -> subprocess.CompletedProcess[str]:
        quiet = os.environ | {"PIP_CONFIG_FILE": os.devnull}
        return subprocess.run(
            [str(python), str(self.into / "unpack"), str(target)],
            env=quiet,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def carried(bench: Bench) -> list[str]:
    manifest = json.loads((bench.into / "manifest.json").read_text())
    return [wheel["file"].partition("-")[0] for wheel in manifest["wheels"]]


def test_what_is_missing_is_carried_with_what_that_needs(bench: Bench, tmp_path: Path) -> None:
    done = bench.run("--without", "hea*", "--part-bytes", "4000")
    assert done.returncode == 0, done.stderr
    assert carried(bench) == ["engine", "helper", "rocket"]
    assert "left behind: heavy\n" in done.stdout
    parts = sorted(bench.into.glob("part-*"))
    assert len(parts) > 2
    assert {part.stat().st_size for part in parts[:-1]} == {4000}
    unpacked = bench.unpack(tmp_path / "site")
    assert unpacked.returncode == 0
    assert unpacked.stdout == f"export PYTHONPATH={tmp_path / 'site'}:{tmp_path / 'site' / 'rockets'}\n"
    asked = "import engine, helper, rocket; print(engine.version, helper.version, rocket.version)"
    found = subprocess.run(
        [sys.executable, "-c", asked], env={"PYTHONPATH": str(tmp_path / "site")}, capture_output=True, text=True
    )
    assert found.stdout == "2.0 1.6 1.0\n"


def test_a_second_bundle_leaves_no_part_of_the_first(bench: Bench) -> None:
    assert bench.run("--part-bytes", "2000").returncode == 0
    assert bench.run().returncode == 0
    assert [part.name for part in bench.into.glob("part-*")] == ["part-001"]


def test_a_damaged_part_is_noticed_where_it_arrives(bench: Bench, tmp_path: Path) -> None:
    assert bench.run("--part-bytes", "2000").returncode == 0
    part = bench.into / "part-002"
    part.write_bytes(b"x" + part.read_bytes()[1:])
    done = bench.unpack(tmp_path / "site")
    assert done.returncode == 1
    assert "part-002 is missing or damaged; copy it again" in done.stderr
    part.unlink()
    assert "part-002 is missing or damaged" in bench.unpack(tmp_path / "site").stderr


def test_the_same_wheels_give_the_same_parts(bench: Bench) -> None:
    assert bench.run("--part-bytes", "2000").returncode == 0
    first = json.loads((bench.into / "manifest.json").read_text())
    for path in bench.into.glob("wheels/*.whl"):
        os.utime(path, (0, 0))
    assert bench.run("--part-bytes", "2000").returncode == 0
    assert json.loads((bench.into / "manifest.json").read_text()) == first


def test_a_version_that_the_lock_does_not_name_is_replaced(bench: Bench) -> None:
    bench.have.write_text("ready==4.0\nhelper==1.5.1\ntoolkit==3.0+cu130\nheavy==9.0\nrocket==1.0\n")
    assert bench.run().returncode == 0
    assert carried(bench) == ["engine", "helper"]


def test_the_machines_own_libraries_stay_and_are_noted(bench: Bench, tmp_path: Path) -> None:
    done = bench.run("--own-libraries", "--without", "heavy")
    assert done.returncode == 0, done.stderr
    assert carried(bench) == ["engine", "rocket"]
    assert "the machine's own: helper\n" in done.stdout
    assert bench.unpack(tmp_path / "site").returncode == 0
    assert json.loads((tmp_path / "site" / "machine-libraries.json").read_text()) == {"helper": "1.4"}


def test_the_machines_own_libraries_are_linked_beside_the_bundles(bench: Bench, tmp_path: Path) -> None:
    """By the unpack of the bundle, in a Python whose site-packages holds nvidia/."""
    python = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", str(python)], check=True)
    (own,) = python.glob("lib/python3*/site-packages")
    (own / "nvidia" / "cublas" / "lib").mkdir(parents=True)
    (own / "nvidia" / "cublas" / "lib" / "libcublas.so.13").write_text("the machine's")
    assert bench.run("--own-libraries", "--without", "heavy").returncode == 0
    done = bench.unpack(tmp_path / "site", python / "bin" / "python")
    assert done.returncode == 0, done.stderr
    linked = tmp_path / "site" / "nvidia" / "cublas" / "lib" / "libcublas.so.13"
    assert linked.is_symlink()
    assert linked.read_text() == "the machine's"


def test_other_files_travel_too(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "checkout.tar").write_text("the checkout")
    assert bench.run("--without", "heavy", "--add", str(tmp_path / "checkout.tar")).returncode == 0
    assert bench.unpack(tmp_path / "site").returncode == 0
    assert (bench.into / "checkout.tar").read_text() == "the checkout"


def test_a_bundle_is_unpacked_while_its_parts_arrive(bench: Bench, tmp_path: Path) -> None:
    assert bench.run("--without", "heavy", "--part-bytes", "5000").returncode == 0
    last = sorted(bench.into.glob("part-*"))[-1]
    late = last.rename(tmp_path / last.name)
    command = [sys.executable, str(bench.into / "unpack"), str(tmp_path / "site"), "--wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PIP_CONFIG_FILE": os.devnull}) as waits:
        time.sleep(1)
        assert waits.poll() is None
        late.rename(last)
        waits.communicate()
    assert waits.returncode == 0
    assert (tmp_path / "site" / "rocket.py").is_file()


def test_a_wheel_of_another_bundle_is_noticed(bench: Bench, tmp_path: Path) -> None:
    assert bench.run("--without", "heavy").returncode == 0
    path = bench.into / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["wheels"][0]["sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))
    done = bench.unpack(tmp_path / "site")
    assert done.returncode == 1
    assert "engine-2.0-py3-none-any.whl is not what the manifest says" in done.stderr
    assert not (tmp_path / "site").exists()


def test_a_wheel_that_is_not_the_locks_is_refused(bench: Bench) -> None:
    path = next(bench.served.glob("rocket-*"))
    path.write_bytes(path.read_bytes() + b" ")
    done = bench.run()
    assert done.returncode == 1
    assert "rocket-1.0-py3-none-any.whl of some could not be fetched" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--python", "3.9"], "has nothing for Python 3.9 on x86_64-linux"),
        (["--machine", "aarch64"], "has nothing for Python 3.12 on aarch64-linux"),
        (["--part-bytes", "0"], "a part holds at least one byte"),
        (["--add", "nothing.tar"], "nothing.tar does not exist"),
    ],
)
def test_what_is_not_locked_is_named(bench: Bench, words: list[str], sentence: str) -> None:
    done = bench.run(*words)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_the_list_of_what_is_there_must_be_a_file(bench: Bench, tmp_path: Path) -> None:
    done = bench.run(have=tmp_path / "nothing.txt")
    assert done.returncode == 2
    assert "does not exist; run pip freeze --all on that machine" in done.stderr
