"""Servers on another host: by a real sshd on loopback, with nothing left of them however the connection ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
from negative_controls.faux_servers import BOUNDS, PROFILE, launch, launcher, recording
from support.paths import PYTHONPATH
from support.sshd import sshd

from conformance.commands.main import main
from conformance.errors import ObservationError, Unsupported, UsageError
from conformance.evidence.folder import Evidence
from conformance.observers import observer
from conformance.run.session import Options, open_session
from conformance.serving import processes, ssh
from conformance.serving.command import Launch, vllm_environment
from conformance.serving.installed import Installed, installed_here
from conformance.serving.pool import ServerPool
from conformance.serving.server import Start, start_together
from conformance.serving.ssh import THERE, Host, host

PLACE = Host("faux", sys.executable, grace=BOUNDS.stop_seconds)
KILLED = """
import sys, time
from pathlib import Path
from negative_controls.faux_servers import PROFILE, launcher
from conformance.evidence.folder import Evidence
from conformance.serving.pool import ServerPool
from serving.test_ssh import PLACE
servers = ServerPool(PROFILE, Evidence(Path(sys.argv[1]), recording=True), launcher=launcher(), executor=PLACE)
print(servers.mtp().model, flush=True)
time.sleep(60)
"""
SILENT_IN_PYTHON = Launch((sys.executable, "-c", "import time; print('loading', flush=True); time.sleep(600)"), {})


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with sshd(tmp_path_factory.mktemp("sshd")) as programs:
        yield programs


@pytest.fixture
def connected(daemon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host "faux" can be logged into, and its Python finds this suite."""
    monkeypatch.setenv("PATH", f"{daemon}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    ssh._installed.cache_clear()


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    return recording(tmp_path / "evidence")


def members(mark: str) -> list[psutil.Process]:
    """Of the client here, and of the server there."""
    return [*processes.members(mark, None, None), *processes.members(mark + THERE, None, None)]


def left(mark: str, seconds: float = 60.0) -> list[psutil.Process]:
    """What is still there of a server after so long: client, watchdog's child, and what that spawned."""
    deadline = time.monotonic() + seconds
    while (found := members(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def started(tmp_path: Path, what: Launch) -> Start:
    start = Start(what, "mtp", tmp_path / "log", BOUNDS, lambda _: None, PLACE)
    assert not isinstance(start_together([start], 0.5, print)["mtp"], ObservationError)
    return start


@pytest.mark.usefixtures("connected")
def test_a_server_over_there_answers_here_and_is_ended(evidence: Evidence) -> None:
    servers = ServerPool(PROFILE, evidence, launcher=launcher(), executor=PLACE)
    mtp = servers.mtp()
    assert mtp.alive
    assert mtp.call("conformance_describe", 5) == [{"vllm_version": "0"}]
    kept = json.loads((evidence.directory / "servers/mtp.json").read_text())
    assert kept["command"] == list(mtp.command)
    assert any(word.startswith(f"127.0.0.1:{mtp.port}:127.0.0.1:") for word in kept["command"])
    servers.close()
    assert left(mtp.model, 0) == []
    assert not mtp.alive


@pytest.mark.usefixtures("connected")
def test_a_client_that_is_killed_takes_everything_with_it(tmp_path: Path) -> None:
    """Nobody here calls anything afterwards: it is the watchdog that ends it, and children that fled die too."""
    server = started(tmp_path, launch("good")).server
    assert len(members(server.model)) == 2
    os.kill(server.pid or 0, signal.SIGKILL)
    assert server.process is not None
    server.process.wait()
    assert left(server.model) == []


@pytest.mark.usefixtures("connected")
def test_what_ends_it_does_so_by_itself(tmp_path: Path) -> None:
    server = started(tmp_path, launch("good")).server
    assert processes.run_end(server.end) == ""
    assert left(server.model) == []
    assert processes.run_end(server.end) == ""  # also where it is gone
    server.stop(0.5)


@pytest.mark.usefixtures("connected")
def test_killed_with_its_owner_it_is_gone(evidence: Evidence) -> None:
    words = [sys.executable, "-c", KILLED, str(evidence.directory)]
    owner = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    mark = owner.stdout.readline().decode().strip()
    assert len(members(mark)) == 2
    owner.kill()
    owner.communicate()
    assert left(mark) == []


@pytest.mark.usefixtures("connected")
def test_a_start_that_hangs_is_ended(tmp_path: Path) -> None:
    bounds = replace(BOUNDS, silence_seconds=2.5)
    start = Start(SILENT_IN_PYTHON, "mtp", tmp_path / "log", bounds, lambda _: None, PLACE)
    outcome = start_together([start], 0.5, print)["mtp"]
    assert isinstance(outcome, ObservationError)
    assert "wrote nothing new for 2.5 s while loading; the last line of its log is: loading" in outcome.sentence
    assert left(start.server.model, 0) == []


@pytest.mark.usefixtures("connected")
def test_one_that_dies_says_why(evidence: Evidence) -> None:
    servers = ServerPool(PROFILE, evidence, launcher=launcher(mtp=launch("crashing")), executor=PLACE)
    with pytest.raises(ObservationError, match=r"exited with code 3 .* ValueError: backend 'CUTLASS'"):
        servers.mtp()
    servers.close()


@pytest.mark.usefixtures("connected")
def test_what_a_server_has_written_there_is_brought_here(tmp_path: Path) -> None:
    there = tmp_path / "there/capture.safetensors"
    there.parent.mkdir()
    there.write_bytes(bytes(range(256)))
    assert PLACE.fetch(there, tmp_path / "here").read_bytes() == bytes(range(256))
    with pytest.raises(ObservationError, match=r"gone on faux cannot be read: cat: .*No such file"):
        PLACE.fetch(tmp_path / "gone", tmp_path / "here")
    assert [path.name for path in (tmp_path / "here").iterdir()] == [there.name]


def test_half_a_copy_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "_by_ssh", lambda *_: ("sh", "-c", "echo half; sleep 20"))
    monkeypatch.setattr(ssh, "_COPY_SECONDS", 0.5)
    with pytest.raises(ObservationError, match=r"^/capture on faux cannot be read: copying it took more than 0.5 s$"):
        PLACE.fetch(Path("/capture"), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("connected")
def test_one_that_must_be_killed_is_and_nobody_doubts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_CONNECT_SECONDS", 6.0)
    monkeypatch.setattr(processes, "_KILL_SECONDS", 2.0)
    executor = replace(PLACE, grace=10.0)
    start = Start(launch("stubborn"), "mtp", tmp_path / "log", BOUNDS, lambda _: None, executor)
    start.spawn()
    deadline = time.monotonic() + 20
    while (tmp_path / "log").read_text().count("up") < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    start.server.stop(executor.grace)
    assert left(start.server.model, 0) == []


@pytest.mark.usefixtures("connected")
def test_the_host_is_looked_at_first(tmp_path: Path) -> None:
    assert PLACE.installed() == installed_here()
    for python, checkpoints, sentence in (
        ("/no/python", (), r"--ssh-python /no/python does not answer: .*No such file"),
        ("/bin/false", (), "--ssh-python /bin/false does not answer: exit code 1; it printed no error"),
        (sys.executable, (tmp_path / "gone",), f"faux has no {tmp_path}/gone; put the checkpoint there"),
    ):
        with pytest.raises(UsageError, match=sentence):
            Host("faux", python, checkpoints).installed()


def test_another_suite_over_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    said = asdict(Installed("0.32.0", "2020.1.0", ())) | {"absent": []}
    monkeypatch.setattr(ssh, "ask_subprocess", lambda *_, **__: said)
    with pytest.raises(UsageError, match=r"has suite 2020\.1\.0, but this machine has .*; update the older one"):
        Host("other", "python").installed()


def test_nothing_of_this_shell_goes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "the-value-of-a-token")
    environment = vllm_environment(PROFILE, Path("/here/snapshots"), PLACE.inherited)
    placed = PLACE.adapt_launch(Launch((sys.executable, "-m", "vllm", "it's"), environment), "x", (7, 8))
    assert not any("token" in word for word in placed.command)
    remote = placed.command[-1]
    assert remote.startswith(
        f"exec {sys.executable} -m conformance.serving.ssh_watchdog x-there 0.5 env HF_HUB_OFFLINE=1 "
    )
    assert "/here" not in remote  # snapshots are written over there
    assert remote.endswith(f"""{sys.executable} -m vllm 'it'"'"'s'""")
    assert placed.command[placed.command.index("-L") + 1] == "127.0.0.1:7:127.0.0.1:8"


@pytest.mark.usefixtures("connected")
def test_vllms_own_benchmark_is_not_measured_through_a_connection(evidence: Evidence) -> None:
    servers = ServerPool(PROFILE, evidence, launcher=launcher(), executor=replace(PLACE))
    attached = replace(PROFILE)
    evidence.observe("refusals", lambda: {"refusals": []})
    with pytest.raises(Unsupported, match="would measure the connection"):
        observer("bench")(attached, servers, evidence)
    servers.close()


@pytest.mark.usefixtures("connected")
def test_the_evidence_says_which_host(tmp_path: Path) -> None:
    asked = Options(hardware="cpu", level="smoke", evidence=tmp_path / "run")
    with pytest.raises(UsageError, match="--ssh faux is another machine: name its hardware by --hardware NAME"):
        open_session(Options(ssh="faux"), tmp_path)
    session = open_session(replace(asked, ssh="faux", environment="cuda"), tmp_path)
    header = session.header
    assert (header.ssh, header.ssh_python, header.vllm) == ("faux", sys.executable, installed_here().vllm)
    assert header.environment is None  # the hardware's own
    assert header.hardware_detected == "none looked for: the servers run on another machine"
    session.begin()
    resumed = open_session(Options(resume=tmp_path / "run"), tmp_path)
    grace = session.profile.hardware.bounds.stop_seconds
    wanted = replace(PLACE, checkpoints=session.executor.checkpoints, grace=grace)  # type: ignore[attr-defined]
    assert resumed.executor == session.executor == wanted
    with pytest.raises(UsageError, match="was recorded with --ssh faux: leave out --image x"):
        open_session(replace(asked, image="x"), tmp_path)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--ssh=-oProxyCommand=x"], "--ssh '-oProxyCommand=x' is not a host"),
        (["--ssh=a b"], "--ssh 'a b' is not a host"),
        (["--ssh=h", "--attach=http://127.0.0.1:9"], "--attach and --ssh both say where the servers run"),
        (["--ssh-python=p"], "--ssh-python p needs --ssh HOST, which is missing; add it."),
        (["--ssh=127.0.0.1:1"], "--ssh 127.0.0.1:1 --ssh-python"),
    ],
)
def test_bad_words_are_exit_code_2(
    words: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--hardware=cpu", "--level=smoke"]) == 2
    said = capfd.readouterr().err
    assert sentence in said
    assert "Traceback" not in said


def test_a_name_is_taken_as_ssh_takes_it() -> None:
    assert host("user@host", None) == Host("user@host", sys.executable)
    assert host("alias", "/opt/python") == Host("alias", "/opt/python")
