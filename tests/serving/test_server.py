from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from negative_controls.faux_servers import BOUNDS, CHATTY, PROFILE, SILENT, launch

from conformance.errors import ObservationError, Unsupported
from conformance.profile.profile import Bounds, Served, load_profile
from conformance.serving import executors, logs, processes, ssh_watchdog
from conformance.serving import server as server_module
from conformance.serving.command import Launch, per_request_counts, vllm_command, vllm_environment, with_draft_length
from conformance.serving.installed import installed_here
from conformance.serving.server import Server, Start, from_record, start_together


class Starter:
    """Starts servers and knows which processes are left of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept: list[Server] = []

    def start(self, what: Launch, bounds: Bounds = BOUNDS, progress: server_module.Progress = print) -> Server:
        begun = Start(what, "mtp", self.folder / "mtp.log", bounds, self.kept.append)
        outcome = start_together([begun], bounds.stop_seconds, progress)["mtp"]
        if isinstance(outcome, ObservationError):
            raise outcome
        return outcome

    def left(self) -> list[psutil.Process]:
        return [found for kept in self.kept[-1:] for found in processes.members(kept.model, kept.pid, kept.created)]


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[Starter]:
    made = Starter(tmp_path)
    yield made
    for process in made.left():
        process.kill()


def test_a_good_server_is_ready_reports_itself_and_leaves_nothing(starter: Starter) -> None:
    told: list[str] = []
    server = starter.start(launch("good"), progress=told.append)
    assert server.alive
    assert server.model.startswith("conformance-mtp-")
    assert told[0].startswith("loading mtp … 0 s: ")
    assert from_record(server.record()) == server
    assert from_record(server.record()).alive
    server.stop(0.5)
    assert not server.alive
    assert starter.left() == []


def test_it_is_written_down_before_there_is_a_process(starter: Starter) -> None:
    server = starter.start(launch("good"))
    assert [kept.pid for kept in starter.kept] == [None, server.pid]
    assert starter.kept[0].model == server.model


def test_a_crash_is_noticed_at_once_and_tells_vllms_own_reason(starter: Starter) -> None:
    begin = time.monotonic()
    with pytest.raises(ObservationError) as raised:
        starter.start(launch("crashing"))
    assert time.monotonic() - begin < 5
    assert re.fullmatch(
        r"mtp server exited with code 3 after [0-4] s: ValueError: backend 'CUTLASS' does not support the device\.",
        raised.value.sentence,
    )
    assert "See root cause above" in raised.value.log_tail
    assert starter.left() == []


def test_a_command_that_does_not_exist(starter: Starter) -> None:
    with pytest.raises(ObservationError, match=r"could not be started: .*no-such-program"):
        starter.start(Launch(("/no-such-program",), {}))


def test_a_kill_from_outside_is_named(starter: Starter) -> None:
    def kill_at_first_report(_: str) -> None:
        os.kill(starter.kept[-1].pid or 0, 9)

    with pytest.raises(ObservationError, match="was killed by SIGKILL"):
        starter.start(SILENT, progress=kill_at_first_report)


def test_silence_has_a_bound_of_its_own(starter: Starter) -> None:
    with pytest.raises(ObservationError) as raised:
        starter.start(SILENT, replace(BOUNDS, silence_seconds=1.5))
    assert "wrote nothing new for 1.5 s while loading" in raised.value.sentence
    assert starter.left() == []


def test_a_server_that_talks_but_never_gets_ready_meets_the_other_bound(starter: Starter) -> None:
    with pytest.raises(ObservationError) as raised:
        starter.start(CHATTY, replace(BOUNDS, load_seconds=2, silence_seconds=1.5))
    said = "mtp server was not ready after 2 s; the last line of its log is: Loading weights: part "
    assert raised.value.sentence.startswith(said)
    assert starter.left() == []


def test_health_alone_is_not_enough(starter: Starter) -> None:
    with pytest.raises(ObservationError) as raised:
        starter.start(launch("good", "--fault", "rubbish from the start"))
    assert raised.value.sentence == "mtp server answers /v1/models with text that is not JSON: '<html>It works!</html>'"
    assert starter.left() == []


def test_health_and_name_are_not_enough(starter: Starter) -> None:
    with pytest.raises(ObservationError) as raised:
        starter.start(launch("good", "--fault", "no first token"))
    assert raised.value.sentence.startswith("mtp server did not answer a request for one token with one token: {")
    assert starter.left() == []


def test_a_stranger_on_the_port_is_not_taken_for_the_server(
    starter: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Starter(tmp_path / "other").start(launch("good"))
    monkeypatch.setattr(executors, "free_port", lambda: stranger.port)
    with pytest.raises(ObservationError) as raised:
        starter.start(SILENT)
    assert raised.value.sentence == (
        f"mtp server does not answer on its port {stranger.port}: another server there serves {stranger.model}"
    )
    assert starter.left() == []
    assert stranger.alive
    stranger.stop(0.5)


def test_an_interrupt_while_loading_leaves_nothing(starter: Starter) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        starter.start(SILENT, progress=interrupt)
    assert starter.kept[-1].pid
    assert starter.left() == []


def test_children_that_fled_die_too(starter: Starter) -> None:
    found: list[int] = []

    def give_up_when_all_are_up(_: str) -> None:
        left = starter.left()
        if len(left) == 3 and logs.read(starter.kept[-1].log).count("up") == 2:
            found.extend(process.pid for process in left)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        starter.start(launch("stubborn"), progress=give_up_when_all_are_up)
    assert len(found) == 3
    assert [pid for pid in found if psutil.pid_exists(pid) and processes.created(pid)] == []


def test_one_that_survives_is_said_and_what_else_ends_it_is_run(
    starter: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = replace(starter.start(launch("good")), end=("touch", str(tmp_path / "ended")))
    with monkeypatch.context() as patch:
        patch.setattr(processes, "end_all", lambda *_: [server.pid])  # in a system call that does not return
        with pytest.raises(ObservationError) as raised:
            server.stop(0.1)
    assert raised.value.sentence == f"mtp server: processes [{server.pid}] survived SIGKILL"
    assert (tmp_path / "ended").exists()


def test_what_ends_a_server_elsewhere_may_take_the_grace_and_its_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(processes, "_KILL_SECONDS", 0.5)
    assert "did not end it: " in processes.run_end(("sleep", "2"))
    assert processes.run_end(("sleep", "2"), grace=10.0) == ""


def test_a_watchdog_waits_for_none_that_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []

    def survived(*which: Any) -> list[int]:
        held.append(which[1])
        return held

    monkeypatch.setattr(processes, "end_all", survived)
    monkeypatch.setattr(os, "getppid", iter((7, 7, 8)).__next__)  # sshd is gone
    begin = time.monotonic()
    assert ssh_watchdog.hold("mark", 0.1, ("sleep", "20")) == ssh_watchdog.SURVIVED
    assert time.monotonic() - begin < 10
    os.kill(held[0], signal.SIGKILL)
    os.waitpid(held[0], 0)


def test_strangers_are_spared_even_with_the_same_pid(starter: Starter) -> None:
    """A recycled pid: the record names a process that is another one by now."""
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        recorded = Server("mtp", "conformance-mtp-0", 1, starter.folder / "x.log", (), stranger.pid, created=1.0)
        assert not recorded.alive
        recorded.stop(0.5)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_dead_server_is_the_cause_of_a_failed_request(starter: Starter) -> None:
    server = starter.start(launch("good"))
    assert server.failure("prompt x failed").sentence == "mtp server: prompt x failed"
    os.kill(server.pid or 0, 9)
    assert server.process is not None
    server.process.wait()
    assert server.failure("prompt x failed").sentence.startswith("mtp server died: ")


def test_a_server_that_is_about_to_end_is_waited_for(starter: Starter) -> None:
    """The kernel closes the connections of a process first, so a request can fail before its server has ended."""
    server = starter.start(launch("good"))
    later = threading.Timer(0.2, os.kill, [server.pid or 0, 9])
    later.start()
    assert server.failure("prompt x failed").sentence.startswith("mtp server died: ")
    later.join()


def test_asking_the_workers(starter: Starter) -> None:
    server = starter.start(launch("good"))
    assert server.call("conformance_describe", 5) == [{"vllm_version": "0"}]
    with pytest.raises(ObservationError, match="asking its workers for no_such_method failed"):
        server.call("no_such_method", 5)
    server.stop(0.5)


def test_a_server_without_the_route_is_unsupported(starter: Starter) -> None:
    server = starter.start(launch("good", "--fault", "no dev mode"))
    with pytest.raises(Unsupported, match="VLLM_SERVER_DEV_MODE=1"):
        server.call("conformance_describe", 5)
    server.stop(0.5)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("(EngineCore pid=7) ERROR 11-23 14:25:33 [core.py:11] KeyError: 'layers.0'", "KeyError: 'layers.0'"),
        ("torch.OutOfMemoryError: CUDA out of memory.", "OutOfMemoryError: CUDA out of memory."),
        ("api_server.py: error: unrecognized arguments: --foo", "error: unrecognized arguments: --foo"),
        (
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            "  Value error, The checkpoint has model type `x` [type=value_error, input_value=…]",
            "ValidationError: Value error, The checkpoint has model type `x`",
        ),
        ("INFO 11-23 14:25:33 [a.py:1] all is well", None),
        ("KeyError: 'x'\nEngineDeadError: See stack trace (above) for the root cause.", "KeyError: 'x'"),
        (
            "EngineDeadError: See stack trace for the root cause.",
            "EngineDeadError: See stack trace for the root cause.",
        ),
    ],
)
def test_the_telling_line(line: str, told: str | None) -> None:
    assert logs.telling_line(f"before\n{line}\nafter") == told


def test_the_command_of_each_arm(tmp_path: Path) -> None:
    for folder in ("target", "draft"):
        (tmp_path / folder).mkdir()
    pair = replace(PROFILE.pair, home=str(tmp_path), serve_args=("--max-model-len", "64"))
    profile = replace(PROFILE, pair=pair, hardware=replace(PROFILE.hardware, serve_args=("--enforce-eager",)))
    plain, mtp, refused = (" ".join(vllm_command(profile, arm)) for arm in ("plain", "mtp", "moe-refusal"))
    assert f"-m vllm.entrypoints.openai.api_server --model {tmp_path}/target --max-model-len 64" in plain
    assert plain.endswith("--enforce-eager --worker-extension-cls conformance.inside_vllm.probe.Probe")
    speculative = f'{{"method": "mtp", "model": "{tmp_path}/draft", "num_speculative_tokens": 4}}'
    told = " --per-request-spec-decode-metrics summary" if per_request_counts(installed_here()) else ""
    assert mtp == f"{plain} --speculative-config {speculative}{told}"
    as_served = replace(profile.hardware, served=Served(serve_args=("--enable-prefix-caching",)))
    served, served_plain = (
        " ".join(vllm_command(replace(profile, hardware=as_served), arm)) for arm in ("served", "served-plain")
    )
    assert served_plain == f"{plain} --enable-prefix-caching"
    assert served == mtp.replace(plain, served_plain)
    sweep = " ".join(vllm_command(replace(profile, sizes=replace(profile.sizes, sweep_longest_draft=8)), "sweep"))
    schedule = '"num_speculative_tokens": 8, "num_speculative_tokens_per_batch_size": [[1, 1, 8]]}'
    assert sweep == mtp.replace('"num_speculative_tokens": 4}', schedule)
    longer = with_draft_length(Launch(vllm_command(profile, "mtp"), {}), 6)
    assert " ".join(longer.command) == mtp.replace('"num_speculative_tokens": 4}', '"num_speculative_tokens": 6}')
    assert refused == f"{plain} --moe-backend cutlass"


@pytest.mark.parametrize(
    ("shell", "sockets"),
    [
        ({"TMPDIR": "/t" * 25}, "/tmp"),
        ({"TMPDIR": "/t" * 24}, None),
        ({"TMPDIR": "/ä" * 17}, "/tmp"),  # bytes count
        ({"TMPDIR": "", "TEMP": "/t" * 40}, "/tmp"),
        ({}, None),
        ({"TMPDIR": "/t" * 36, "VLLM_RPC_BASE_PATH": "/own"}, "/own"),
    ],
)
def test_sockets_lie_where_their_paths_are_short_enough(shell: dict[str, str], sockets: str | None) -> None:
    environment = vllm_environment(load_profile("cpu", "micro-26b-a4b-nvfp4", "smoke"), Path("/snapshots"), shell)
    assert environment.get("VLLM_RPC_BASE_PATH") == sockets


def test_the_environment_is_the_profiles_and_not_the_shells() -> None:
    profile = load_profile("cpu", "micro-26b-a4b-nvfp4", "smoke")
    shell = {"PATH": "/bin", "VLLM_ATTENTION_BACKEND": "X", "OMP_NUM_THREADS": "64", "VLLM_CACHE_ROOT": "/c"}
    environment = vllm_environment(profile, Path("/snapshots"), shell)
    assert environment["PATH"] == "/bin"
    assert environment["VLLM_CACHE_ROOT"] == "/c"
    assert "VLLM_ATTENTION_BACKEND" not in environment
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["CONFORMANCE_SNAPSHOT_DIR"] == "/snapshots"
    assert environment["HF_HUB_OFFLINE"] == "1"
