"""Servers in containers: started, recorded, ended with everything, by a docker that is none and by a real podman."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from negative_controls.faux_servers import BOUNDS, PROFILE, launcher, recording
from support.debian import unpack
from support.paths import PYTHONPATH, TESTS

from conformance import FIXTURES, PACKAGE
from conformance.commands.main import main
from conformance.errors import ObservationError, UsageError
from conformance.evidence.folder import Evidence
from conformance.run.session import Options, open_session
from conformance.serving import containers, processes
from conformance.serving.command import Launch, vllm_environment
from conformance.serving.containers import Image, image
from conformance.serving.installed import installed_here
from conformance.serving.json_subprocess import ask_subprocess
from conformance.serving.pool import ServerPool
from conformance.serving.server import Start, start_together

PODMAN = "localhost/conformance-faux:1"
SHIM = '#!/bin/sh\nexec {python} {docker} "$@"\n'
PLACE = Image("docker", "faux/vllm:1", "sha256:1d", "sha256:d19e57")
SILENT_IN_PYTHON = Launch((sys.executable, "-c", "import time; print('loading', flush=True); time.sleep(600)"), {})
KILLED = """
import sys, time
from pathlib import Path, PosixPath
from negative_controls.faux_servers import PROFILE, launcher
from conformance.serving.containers import Image
from conformance.evidence.folder import Evidence
from conformance.serving.pool import ServerPool
from serving.test_containers import SILENT_IN_PYTHON
hanging = launcher(mtp=SILENT_IN_PYTHON) if sys.argv[2] == "loading" else launcher()
servers = ServerPool(PROFILE, Evidence(Path(sys.argv[1]), recording=True), launcher=hanging, executor=eval(sys.argv[3]))
servers.mtp()
print("up", flush=True)
time.sleep(60)
"""


class Docker:
    """The faux one, on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def calls(self, kind: str) -> list[list[str]]:
        lines = (self.folder / "calls").read_text().splitlines()
        return [words for words in map(json.loads, lines) if words[0] == kind]

    def running(self) -> dict[str, int]:
        """Containers whose process lives."""
        found = {path.name: int(path.read_text()) for path in (self.folder / "running").glob("*")}
        return {name: pid for name, pid in found.items() if processes.created(pid)}

    def left(self, seconds: float = 60.0) -> dict[str, int]:
        deadline = time.monotonic() + seconds
        while (found := self.running()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Docker]:
    made = Docker(tmp_path / "docker")
    (made.folder / "bin").mkdir(parents=True)
    program = made.folder / "bin/docker"
    program.write_text(SHIM.format(python=sys.executable, docker=TESTS / "negative_controls/faux_servers/docker.py"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FAUX_DOCKER", str(made.folder))
    monkeypatch.setenv("FAUX_SUITE", str(PACKAGE.parent))
    containers._installed.cache_clear()
    yield made
    for pid in made.running().values():
        os.killpg(pid, signal.SIGKILL)


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    return recording(tmp_path / "evidence")


def test_a_server_in_a_container_is_told_everything_and_ended_with_it(docker: Docker, evidence: Evidence) -> None:
    servers = ServerPool(PROFILE, evidence, launcher=launcher(), executor=PLACE)
    mtp = servers.mtp()
    assert mtp.alive
    assert list(docker.running()) == [mtp.model]
    (words,) = docker.calls("run")
    assert words[: words.index("--volume")] == [
        *("run", "--rm", "--name", mtp.model, "--pull=never"),
        *("--network=host", "--ipc=host", "--security-opt=label=disable"),
    ]
    assert words[words.index("--entrypoint") :][:3] == ["--entrypoint", "python3", "sha256:1d"]
    assert words[-6:] == ["--host", "127.0.0.1", "--port", str(mtp.port), "--served-model-name", mtp.model]
    kept = json.loads((evidence.directory / "servers/mtp.json").read_text())
    assert kept["command"] == ["docker", *words]
    servers.close()
    assert docker.running() == {}
    assert not mtp.alive


def test_the_suite_the_checkpoints_and_nothing_else_are_mounted(
    docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot, blobs = tmp_path / "hub/snapshots/1", tmp_path / "hub/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "b").touch()
    (snapshot / "config.json").symlink_to("../../blobs/b")
    monkeypatch.setenv("HF_TOKEN", "the-value-of-a-token")
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path / "vllm"))
    monkeypatch.setenv("FLASHINFER_WORKSPACE_BASE", str(tmp_path))
    environment = vllm_environment(PROFILE, tmp_path / "snapshots/mtp", PLACE.inherited)
    executor = replace(PLACE, gpu=True, checkpoints=(snapshot,))
    made = executor.adapt_launch(Launch((sys.executable, "-m", "vllm"), environment), "x", (1, 1))
    words = list(made.command)
    mounted = [words[i + 1] for i, word in enumerate(words) if word == "--volume"]
    suite = [f"{PACKAGE}:/conformance-suite/conformance:ro", f"{FIXTURES}:/conformance-suite/fixtures:ro"]
    assert mounted[:2] == suite
    assert ".dist-info:ro" in mounted[2]
    assert mounted[3:] == [
        *(f"{folder}:{folder}:ro" for folder in (blobs, snapshot)),
        *(f"{folder}:{folder}" for folder in (tmp_path / "snapshots/mtp", tmp_path / "vllm")),
        f"{tmp_path}/.cache/flashinfer:{tmp_path}/.cache/flashinfer",
    ]
    assert (tmp_path / "snapshots/mtp").is_dir()
    assert words[words.index("--gpus") + 1] == "all"
    named = {words[i + 1] for i, word in enumerate(words) if word == "--env"}
    assert named >= {"CONFORMANCE_SNAPSHOT_DIR", "VLLM_SERVER_DEV_MODE", "PYTHONPATH=/conformance-suite"}
    assert "HF_TOKEN" not in named
    assert not any("the-value-of-a-token" in word for word in words)
    assert made.environment["CONFORMANCE_SNAPSHOT_DIR"] == str(tmp_path / "snapshots/mtp")
    assert made.end == ("docker", "rm", "--force", "x")
    podman = replace(executor, program="podman").adapt_launch(Launch(("python",), {}), "x", (1, 1)).command
    assert podman[podman.index("--device") + 1] == "nvidia.com/gpu=all"
    assert docker.running() == {}


@pytest.mark.parametrize("phase", ["loading", "serving"])
def test_killed_with_its_owner_the_container_is_gone(docker: Docker, evidence: Evidence, phase: str) -> None:
    paths = os.environ | {"PYTHONPATH": PYTHONPATH}
    words = [sys.executable, "-c", KILLED, str(evidence.directory), phase, repr(PLACE)]
    owner = subprocess.Popen(words, stdout=subprocess.PIPE, env=paths)
    assert owner.stdout is not None
    if phase == "serving":
        assert owner.stdout.readline() == b"up\n"
    deadline = time.monotonic() + 60
    while not docker.running() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(docker.running()) == 1
    owner.kill()
    owner.communicate()
    assert docker.left() == {}


def test_a_container_that_does_not_listen_is_removed(docker: Docker, tmp_path: Path) -> None:
    (docker.folder / "deaf").touch()
    bounds = replace(BOUNDS, silence_seconds=1.5)
    start = Start(SILENT_IN_PYTHON, "mtp", tmp_path / "log", bounds, lambda _: None, PLACE)
    outcome = start_together([start], 0.5, print)["mtp"]
    assert isinstance(outcome, ObservationError)
    assert "wrote nothing new for 1.5 s while loading" in outcome.sentence
    assert docker.running() == {}


def test_a_client_that_is_killed_alone_is_a_server_that_died(docker: Docker, evidence: Evidence) -> None:
    servers = ServerPool(PROFILE, evidence, launcher=launcher(), executor=PLACE)
    mtp = servers.mtp()
    os.kill(mtp.pid or 0, signal.SIGKILL)
    assert mtp.process is not None
    mtp.process.wait()
    assert docker.running()  # which is why the name is kept
    with pytest.raises(ObservationError, match="mtp server died"):
        servers.mtp()
    assert docker.running() == {}
    servers.close()


def test_a_container_that_ends_ends_its_client(docker: Docker, evidence: Evidence) -> None:
    servers = ServerPool(PROFILE, evidence, launcher=launcher(), executor=PLACE)
    mtp = servers.mtp()
    os.killpg(docker.running()[mtp.model], signal.SIGKILL)
    deadline = time.monotonic() + 5
    while mtp.alive and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not mtp.alive
    servers.close()


def test_a_daemon_that_is_gone_is_said_and_not_passed_over(
    docker: Docker, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(processes, "_KILL_SECONDS", 0.0)
    servers = ServerPool(PROFILE, evidence, launcher=launcher(), executor=PLACE)
    mtp = servers.mtp()
    os.kill(mtp.pid or 0, signal.SIGKILL)
    (docker.folder / "broken").write_text("Cannot connect to the Docker daemon")
    with pytest.raises(ObservationError, match=rf"may still run: docker rm --force {mtp.model} did not end it: Cannot"):
        mtp.stop(0.1)
    (docker.folder / "broken").unlink()
    servers.close()
    assert docker.running() == {}


def test_an_image_is_known_by_its_digest_and_looked_into_once(docker: Docker) -> None:
    found = image("faux/vllm:1", None)
    assert found == PLACE
    assert found.installed() == installed_here()  # the faux one has what is installed here
    assert replace(found, gpu=True).installed() == installed_here()
    assert len(docker.calls("run")) == 1


def test_a_look_that_takes_too_long_leaves_no_container(docker: Docker) -> None:
    (docker.folder / "deaf").touch()
    with pytest.raises(ObservationError, match="sleeping took more than 1 s"):
        ask_subprocess(
            (sys.executable, "-c", "import time; time.sleep(60)"),
            doing="sleeping",
            failed="x",
            seconds=1,
            executor=PLACE,
        )
    assert docker.running() == {}


def test_the_evidence_says_which_image_and_is_gone_on_with_in_no_other(docker: Docker, tmp_path: Path) -> None:
    asked = Options(hardware="cpu", level="smoke", evidence=tmp_path / "run")
    session = open_session(replace(asked, image="faux/vllm:1"), tmp_path)
    assert isinstance(session.executor, Image)
    assert not session.executor.gpu
    assert len(session.executor.checkpoints) == 2
    header = session.header
    assert (header.image, header.image_digest, header.container) == ("faux/vllm:1", "sha256:d19e57", "docker")
    assert (header.vllm, header.environment) == (installed_here().vllm, "unlocked")
    session.begin()
    for resumed in (asked, Options(resume=tmp_path / "run"), replace(asked, image="faux/vllm:1")):
        assert open_session(resumed, tmp_path).executor == session.executor
    with pytest.raises(UsageError, match=r"was recorded with --image faux/vllm:1: leave out --image other"):
        open_session(replace(asked, image="other"), tmp_path)
    with pytest.raises(UsageError, match=r"was recorded with --image faux/vllm:1: leave out --attach"):
        open_session(replace(asked, attach="http://127.0.0.1:9"), tmp_path)
    calls = len((docker.folder / "calls").read_text().splitlines())
    assert open_session(replace(asked, recorded_only=True), tmp_path).header == header
    assert len((docker.folder / "calls").read_text().splitlines()) == calls  # judging again needs no docker
    (tmp_path / "run/header.json").write_text(json.dumps(asdict(header) | {"image_digest": "sha256:0"}))
    with pytest.raises(UsageError, match="faux/vllm:1 was sha256:0 when the run began and is sha256:d19e57 now"):
        open_session(asked, tmp_path)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--image=absent:1"], "--image absent:1 is not on this machine; run: docker pull absent:1"),
        (["--image=-v"], "--image '-v' is not the name of an image"),
        (["--image=a b"], "--image 'a b' is not the name of an image"),
        (["--image=x", "--attach=http://127.0.0.1:9"], "--attach and --image both say where the servers run"),
        (["--image=x", "--ssh=y"], "--image and --ssh both say where the servers run"),
        (["--container=docker"], "--container docker needs --image IMAGE, which is missing; add it."),
        (["--image=x", "--container=podman"], "--image x needs podman, which is not on PATH; install it."),
    ],
)
def test_bad_words_are_exit_code_2(
    docker: Docker,
    words: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{docker.folder}/bin:/usr/bin:/bin")
    if "podman" in sentence:
        monkeypatch.setenv("PATH", f"{docker.folder}/bin")
    assert main([*words, "--level=smoke"]) == 2
    said = capfd.readouterr().err
    assert sentence in said
    assert "Traceback" not in said
    assert not (tmp_path / "evidence").exists()


def test_a_daemon_that_does_not_run_is_exit_code_2(
    docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (docker.folder / "broken").write_text("Cannot connect to the Docker daemon at unix:///x. Is it running?")
    monkeypatch.chdir(tmp_path)
    assert main(["--image=x"]) == 2
    assert (
        "docker cannot inspect --image x: Cannot connect to the Docker daemon at unix:///x." in capfd.readouterr().err
    )


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """An image of Debian's Python, by the podman of this machine."""
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    folder = tmp_path_factory.mktemp("podman")
    root = unpack(folder / "debian", "python3")
    for link in ("bin", "lib", "lib64"):
        if not (root / link).exists():
            (root / link).symlink_to(f"usr/{link}")
    (root / "tmp").mkdir(exist_ok=True)
    subprocess.run(["tar", "-C", root, "-cf", folder / "image.tar", "."], check=True)
    by_podman("import", folder / "image.tar", PODMAN)
    by_podman(
        "run", "--rm", "--pull=never", "--network=host", "--ipc=host", "--entrypoint", "python3", PODMAN, "-c", ""
    )
    yield replace(image(PODMAN, "podman"), checkpoints=(TESTS / "negative_controls/faux_servers",))
    subprocess.run(["podman", "rmi", "--force", PODMAN], check=True, capture_output=True)


def by_podman(*words: str | Path) -> None:
    """Let podman do this; skip with its own words where it may not."""
    done = subprocess.run(["podman", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"podman may not run containers here: {done.stderr.strip()[-300:]}")


def test_a_podman_that_may_not_set_limits_is_a_reason_to_skip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "podman"
    program.write_text(
        "#!/bin/sh\necho 'Error: crun: setrlimit `RLIMIT_NPROC`: Operation not permitted' >&2; exit 126\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(pytest.skip.Exception, match=r"podman may not run containers here: .* setrlimit"):
        by_podman("run", "--rm", PODMAN)


def containers_of_podman() -> str:
    words = ["podman", "ps", "--all", "--format", "{{.Names}}", "--filter", "name=conformance-"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def test_by_a_real_podman_a_server_serves_and_is_ended(podman: Image, evidence: Evidence) -> None:
    servers = ServerPool(PROFILE, evidence, launcher=launcher(), executor=podman)
    mtp = servers.mtp()
    assert mtp.call("conformance_describe", 5) == [{"vllm_version": "0"}]
    assert containers_of_podman() == mtp.model
    servers.close()
    assert containers_of_podman() == ""
    with pytest.raises(UsageError, match="has no vLLM for its python3"):
        podman.installed()


def test_by_a_real_podman_nothing_outlives_an_owner_that_is_killed(podman: Image, evidence: Evidence) -> None:
    paths = os.environ | {"PYTHONPATH": PYTHONPATH}
    words = [sys.executable, "-c", KILLED, str(evidence.directory), "serving", repr(podman)]
    owner = subprocess.Popen(words, stdout=subprocess.PIPE, env=paths)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"up\n"
    assert containers_of_podman() != ""
    owner.kill()
    owner.communicate()
    deadline = time.monotonic() + 60
    while containers_of_podman() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert containers_of_podman() == ""
