"""scripts/bootstrap in small checkouts of its own: a lock of two tiny wheels in a find-links folder, and no network."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.paths import ROOT

UV = Path(sys.executable).with_name("uv")
ABI = f"cp3{sys.version_info[1]}"
TORCH = f"{ABI}-{ABI}-linux_{platform.machine()}"

# An own backend without requirements, so that the project installs with no wheel but these two.
BACKEND = """
import pathlib, zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "suite-1-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as wheel:
        info = "suite-1.dist-info/"
        wheel.writestr("suite.pth", str(pathlib.Path.cwd()))
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: suite\\nVersion: 1\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    return name
"""
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "suite"
version = "1"
"""


def make_wheel(folder: Path, name: str, version: str, tag: str = "py3-none-any", script: str = "") -> str:
    """Write a wheel with one module, `name`, and a script of that name if given; give its line of a lock."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")
        if script:
            file = zipfile.ZipInfo(f"{name}-{version}.data/scripts/{name}")
            file.external_attr = 0o100755 << 16
            wheel.writestr(file, script)
    return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Checkout:
    """A checkout with scripts/bootstrap, a small project and envs/cpu/lock.txt, and a find-links folder beside it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a checkout"
        self.wheels = folder / "wheels"  # pip splits its variable at blanks, so there must be none above it
        self.lock = self.root / "envs/cpu/lock.txt"

    def lay_out(self) -> Checkout:
        for folder in (self.root / "scripts", self.root / "bin", self.lock.parent):
            folder.mkdir(parents=True)
        shutil.copy2(ROOT / "scripts/bootstrap", self.root / "scripts")
        (self.root / "backend.py").write_text(BACKEND)
        (self.root / "pyproject.toml").write_text(PYPROJECT)
        python = self.root / "bin/python3.13"  # the first name that is looked for, so that this Python is the one found
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        lock = make_wheel(self.wheels, "tiny", "1.0") + make_wheel(self.wheels, "torch", "0.1+cpu", TORCH)
        self.lock.write_text(lock)
        return self

    def environment(self, **more: str) -> dict[str, str]:
        """The variables of a machine without network whose pip and uv know nothing but the folder of wheels."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PIP_", "UV_", "PYTHON", "CONFORMANCE_"))
        }
        nowhere = f"http://127.0.0.1:{closed_port()}/simple"
        own = {"PATH": f"{self.root / 'bin'}:/usr/bin:/bin", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"}
        return (
            kept | own | {"PIP_INDEX_URL": nowhere, "PIP_FIND_LINKS": str(self.wheels), "UV_HTTP_RETRIES": "0"} | more
        )

    def bootstrap(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [self.root / "scripts/bootstrap", *arguments]
        return subprocess.run(command, env=self.environment(**variables), cwd="/", capture_output=True, text=True)

    def version_of(self, module: str) -> str:
        """The version that .venv imports, or the last line of why it does not."""
        command = [self.root / ".venv/bin/python", "-c", f"import {module}; print({module}.VERSION)"]
        done = subprocess.run(command, capture_output=True, text=True)
        return (done.stdout or done.stderr).splitlines()[-1]

    def site_packages(self) -> Path:
        return next((self.root / ".venv/lib").glob("python3*/site-packages"))


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a bootstrap that could not do its work."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("bootstrap: ")
    assert done.stderr.endswith(".\n")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.fixture(scope="module")
def made_from_nothing(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = Checkout(tmp_path_factory.mktemp("base")).lay_out()
    done = checkout.bootstrap()
    assert (done.returncode, done.stderr) == (0, "")
    return checkout


@pytest.fixture
def empty(tmp_path: Path) -> Checkout:
    """A checkout without .venv."""
    return Checkout(tmp_path).lay_out()


@pytest.fixture
def ready(made_from_nothing: Checkout, tmp_path: Path) -> Checkout:
    """A checkout of its own whose .venv is complete: a moved copy, which bootstrap has to make its own."""
    shutil.copytree(made_from_nothing.root.parent, tmp_path, symlinks=True, dirs_exist_ok=True)
    checkout = Checkout(tmp_path)
    done = checkout.bootstrap()
    assert (done.returncode, done.stderr) == (0, "")
    return checkout


def test_from_nothing_to_an_environment_with_the_project_in_it(made_from_nothing: Checkout) -> None:
    assert made_from_nothing.version_of("tiny") == "1.0"
    assert made_from_nothing.version_of("torch") == "0.1+cpu"
    assert (made_from_nothing.site_packages() / "suite.pth").read_text() == str(made_from_nothing.root)


def test_second_run_is_silent_and_takes_less_than_two_seconds(made_from_nothing: Checkout) -> None:
    begun = time.monotonic()
    done = made_from_nothing.bootstrap()
    assert time.monotonic() - begun < 2
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_moved_checkout_installs_itself_anew(ready: Checkout) -> None:
    assert (ready.site_packages() / "suite.pth").read_text() == str(ready.root)


def test_changed_lock_is_followed_and_what_it_no_longer_names_goes(ready: Checkout) -> None:
    ready.lock.write_text(make_wheel(ready.wheels, "tiny", "2.0"))
    assert ready.bootstrap().returncode == 0
    assert ready.version_of("tiny") == "2.0"
    assert ready.version_of("torch") == "ModuleNotFoundError: No module named 'torch'"


def test_killed_half_way_it_is_completed_by_the_next_run(empty: Checkout) -> None:
    command = [empty.root / "scripts/bootstrap"]
    with subprocess.Popen(command, env=empty.environment(), start_new_session=True, stdout=subprocess.PIPE) as first:
        while not (empty.root / ".venv/bin/python").exists():
            assert first.poll() is None
            time.sleep(0.01)
        os.killpg(first.pid, signal.SIGKILL)
    assert not (empty.root / ".venv/bootstrap.stamp").exists()
    assert empty.bootstrap().returncode == 0
    assert empty.version_of("tiny") == "1.0"


def test_distribution_cut_off_half_way_is_installed_again(ready: Checkout) -> None:
    (ready.site_packages() / "tiny-1.0.dist-info/RECORD").unlink()
    (ready.site_packages() / "tiny.py").unlink()
    (ready.root / ".venv/bootstrap.stamp").unlink()
    assert ready.bootstrap().returncode == 0
    assert ready.version_of("tiny") == "1.0"


def test_failed_install_leaves_no_stamp_and_goes_on_when_it_can(ready: Checkout) -> None:
    lock = ready.lock.read_text()
    ready.lock.write_text(lock + make_wheel(ready.wheels, "late", "1.0"))
    (ready.wheels / "late-1.0-py3-none-any.whl").rename(ready.root / "late")
    assert "late==1.0" in refused(ready.bootstrap())
    assert "late==1.0" in refused(ready.bootstrap())
    (ready.root / "late").rename(ready.wheels / "late-1.0-py3-none-any.whl")
    assert ready.bootstrap().returncode == 0
    assert ready.version_of("late") == "1.0"


def test_without_network_and_wheels_one_sentence_says_what_to_set(empty: Checkout) -> None:
    sentence = refused(empty.bootstrap(PIP_FIND_LINKS=""))
    assert "tiny==1.0 could not be fetched" in sentence
    assert "PIP_INDEX_URL" in sentence
    assert "PIP_FIND_LINKS" in sentence


def test_wrong_hash_is_refused_in_one_sentence(ready: Checkout) -> None:
    lock = ready.lock.read_text() + make_wheel(ready.wheels, "forged", "1.0")
    ready.lock.write_text(lock)
    shutil.copy(ready.wheels / "tiny-1.0-py3-none-any.whl", ready.wheels / "forged-1.0-py3-none-any.whl")
    assert "forged==1.0 is not the one whose SHA-256 envs/cpu/lock.txt names" in refused(ready.bootstrap())
    assert ready.version_of("forged") == "ModuleNotFoundError: No module named 'forged'"


@pytest.mark.parametrize("others_are_hashed", [True, False])
def test_requirement_without_hash_is_refused(ready: Checkout, others_are_hashed: bool) -> None:
    bare = make_wheel(ready.wheels, "bare", "1.0").split()[0]
    ready.lock.write_text(ready.lock.read_text() * others_are_hashed + bare + "\n")
    refused(ready.bootstrap())
    assert ready.version_of("bare") == "ModuleNotFoundError: No module named 'bare'"


def test_a_door_names_environment_and_python(ready: Checkout) -> None:
    other = ready.root / "envs/other/lock.txt"
    other.parent.mkdir()
    other.write_text(make_wheel(ready.wheels, "tiny", "3.0"))
    assert ready.bootstrap(CONFORMANCE_ENV="other", PYTHON=sys.executable).returncode == 0
    assert ready.version_of("tiny") == "3.0"


def test_a_venv_of_another_python_is_made_anew(ready: Checkout) -> None:
    other = ready.root / "bin/python-of-the-door"
    other.write_text(
        f'#!/bin/sh\n[ "$2" != "import sys; print(sys.version, sys.base_prefix)" ] || exec echo other\n'
        f'exec "{sys.executable}" "$@"\n'
    )
    other.chmod(0o755)
    done = ready.bootstrap(PYTHON=str(other))
    assert done.returncode == 0
    assert "installing" in done.stdout
    assert ready.version_of("tiny") == "1.0"


def test_a_python_that_is_none(empty: Checkout) -> None:
    assert "no Python 3.11, 3.12 or 3.13 with its venv module is at /nowhere" in refused(
        empty.bootstrap(PYTHON="/nowhere")
    )


def test_environment_that_does_not_exist(empty: Checkout) -> None:
    assert "envs/cuda/lock.txt does not exist" in refused(empty.bootstrap("cuda"))


def test_without_a_supported_python(empty: Checkout) -> None:
    for name in ("python3.13", "python3.12", "python3.11", "python3"):
        (empty.root / "bin" / name).write_text("#!/bin/sh\nexit 1\n")
        (empty.root / "bin" / name).chmod(0o755)
    assert "no Python 3.11, 3.12 or 3.13" in refused(empty.bootstrap())


def test_python_with_torchs_wheel_at_hand_goes_before_a_newer_one(empty: Checkout) -> None:
    (empty.root / "bin/python3.13").rename(empty.root / "bin/python3.12")
    (empty.root / "bin/python3.13").write_text("#!/bin/sh\necho cp399\n")
    (empty.root / "bin/python3.13").chmod(0o755)
    assert empty.bootstrap().returncode == 0
    assert empty.version_of("torch") == "0.1+cpu"


def test_uv_is_used_where_it_is_on_path(ready: Checkout) -> None:
    (ready.root / "bin/uv").symlink_to(UV)
    ready.lock.write_text(ready.lock.read_text() + make_wheel(ready.wheels, "fast", "1.0"))
    assert ready.bootstrap(UV_OFFLINE="1").returncode == 0
    assert (ready.site_packages() / "fast-1.0.dist-info/INSTALLER").read_text() == "uv"


def test_uv_comes_from_the_lock_where_none_is_on_path(ready: Checkout) -> None:
    uv = make_wheel(ready.wheels, "uv", "1.0", script=f'#!/bin/sh\nexec "{UV}" "$@"\n')
    ready.lock.write_text(ready.lock.read_text() + uv + make_wheel(ready.wheels, "fast", "1.0"))
    assert ready.bootstrap(UV_OFFLINE="1").returncode == 0
    assert (ready.site_packages() / "fast-1.0.dist-info/INSTALLER").read_text() == "uv"
    assert list(ready.site_packages().glob("__pycache__/fast.*.pyc")), "what uv installs is not compiled"


def test_uv_asks_the_index_of_pip_conf(ready: Checkout, vendor: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = vendor
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {address}/simple\n")
    (ready.root / "bin/uv").symlink_to(UV)
    ready.lock.write_text(ready.lock.read_text() + make_wheel(tmp_path / "elsewhere", "fast", "1.0"))
    done = ready.bootstrap(PIP_CONFIG_FILE=str(tmp_path / "pip.conf"), PIP_INDEX_URL="")
    assert "fast==1.0 could not be fetched" in refused(done)
    assert asked.count("/simple/fast/") >= 2, "only one of uv and pip asked"


def test_where_uv_fails_pip_does_the_work(ready: Checkout) -> None:
    (ready.root / "bin/uv").write_text("#!/bin/sh\nexit 2\n")
    (ready.root / "bin/uv").chmod(0o755)
    ready.lock.write_text(ready.lock.read_text() + make_wheel(ready.wheels, "fast", "1.0"))
    assert ready.bootstrap().returncode == 0
    assert (ready.site_packages() / "fast-1.0.dist-info/INSTALLER").read_text() == "pip\n"


@pytest.fixture
def vendor(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """An index on loopback over tmp_path/vendor, and the paths it is asked for."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path / "vendor"))  # type: ignore[arg-type]

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: ARG002
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_torch_alone_comes_from_its_own_index(ready: Checkout, vendor: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = vendor
    (ready.root / "envs/cpu/index.txt").write_text(f"# torch only\n{address}\n")
    (tmp_path / "vendor").mkdir()
    lines = [make_wheel(tmp_path / "vendor/torch", "torch", "0.2+cpu", TORCH), make_wheel(ready.wheels, "tiny", "2.0")]
    ready.lock.write_text("".join(lines))
    done = ready.bootstrap()
    assert (done.returncode, done.stderr) == (0, "")
    assert ready.version_of("torch") == "0.2+cpu"
    assert asked
    assert all(path.startswith("/torch/") for path in asked)


def test_torch_index_out_of_reach_costs_seconds_and_the_next_place_is_asked(ready: Checkout) -> None:
    (ready.root / "envs/cpu/index.txt").write_text(f"http://127.0.0.1:{closed_port()}/simple\n")
    elsewhere = ready.wheels.parent / "elsewhere"
    ready.lock.write_text(make_wheel(elsewhere, "torch", "0.2+cpu", TORCH))
    begun = time.monotonic()
    assert "torch==0.2+cpu could not be fetched" in refused(ready.bootstrap())
    assert time.monotonic() - begun < 30
    assert ready.bootstrap(PIP_FIND_LINKS=elsewhere.as_uri()).returncode == 0
    assert ready.version_of("torch") == "0.2+cpu"
