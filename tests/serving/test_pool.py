from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import Timeout
from negative_controls.faux_servers import PROFILE, SILENT, launch, launcher, recording
from support.nvml import H200, MIB, Card, nvml
from support.paths import PYTHONPATH

from conformance.errors import ObservationError, Unsupported
from conformance.evidence.folder import Evidence
from conformance.profile.profile import Served
from conformance.serving import processes
from conformance.serving.pool import TIMING_LOCK, ServerPool
from conformance.serving.server import Server

OTHER_RUN = "import filelock, sys; lock = filelock.FileLock(sys.argv[1]).acquire(); print('held', flush=True); input()"
ONE_AT_A_TIME = replace(PROFILE, hardware=replace(PROFILE.hardware, two_servers=False, memory="discrete"))
# Another process of the same session, as a worker of pytest-xdist is one: it prints what it gets from mtp().
WORKER = """
import json, signal, sys, time
from pathlib import Path
from negative_controls.faux_servers import PROFILE, launcher
from conformance.evidence.folder import Evidence
from conformance.serving.pool import TIMING_LOCK, ServerPool
owns = sys.argv[2] == "owner"
servers = ServerPool(PROFILE, Evidence(Path(sys.argv[1]), recording=True), owns=owns, launcher=launcher())
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where tests run in the background
record = json.dumps(servers.mtp().record())  # an interrupt is lost while objects of this line are freed
print(record, flush=True)
if owns:
    time.sleep(60)
servers.close()
"""


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    return recording(tmp_path / "evidence")


@pytest.fixture
def servers(evidence: Evidence) -> Iterator[ServerPool]:
    made = ServerPool(PROFILE, evidence, launcher=launcher())
    yield made
    made.close()


def alive(server: Server) -> bool:
    return bool(processes.members(server.model, server.pid, server.created))


def test_a_server_is_started_once_and_ended_with_the_session(servers: ServerPool, evidence: Evidence) -> None:
    mtp, plain = servers.mtp(), servers.plain()
    assert servers.mtp() == mtp
    assert mtp != plain
    assert {path.name for path in evidence.logs.iterdir()} == {"mtp.log", "plain.log"}
    servers.close()
    assert not alive(mtp)
    assert not alive(plain)
    assert not (evidence.directory / ".servers").exists()


def test_one_that_survives_keeps_no_other_alive(evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    servers, end_all = ServerPool(PROFILE, evidence, together=True, launcher=launcher()), processes.end_all
    mtp, plain = servers.mtp(), servers.plain()

    def stuck(model: str, *which: Any) -> list[int]:
        return [mtp.pid or 0] if model == mtp.model else end_all(model, *which)

    with monkeypatch.context() as patch:
        patch.setattr(processes, "end_all", stuck)
        with pytest.raises(ObservationError, match=r"mtp server: processes \[\d+\] survived SIGKILL"):
            servers.close()
    assert not alive(plain)
    servers.close()


def test_both_start_together_where_they_fit(evidence: Evidence) -> None:
    servers = ServerPool(PROFILE, evidence, together=True, launcher=launcher())
    try:
        servers.mtp()
        assert (evidence.logs / "plain.log").exists()
    finally:
        servers.close()


def test_all_three_start_together_where_the_sweep_comes_first(evidence: Evidence) -> None:
    servers = ServerPool(PROFILE, evidence, together=True, launcher=launcher())
    try:
        assert servers.sweep() != servers.mtp()
        assert {path.name for path in evidence.logs.iterdir()} == {"mtp.log", "plain.log", "sweep.log"}
    finally:
        servers.close()


def test_one_that_fails_does_not_take_the_other_with_it(evidence: Evidence) -> None:
    servers = ServerPool(PROFILE, evidence, together=True, launcher=launcher(mtp=launch("crashing")))
    try:
        for _ in range(2):
            with pytest.raises(ObservationError, match="ValueError: backend 'CUTLASS'") as raised:
                servers.mtp()
            assert "EngineCore" in raised.value.log_tail
        assert servers.plain().alive
        assert not (evidence.logs / "mtp.2.log").exists()  # it was tried once
    finally:
        servers.close()


def test_where_one_fits_the_other_is_stopped_first(evidence: Evidence) -> None:
    servers = ServerPool(ONE_AT_A_TIME, evidence, together=True, launcher=launcher())
    try:
        mtp = servers.mtp()
        plain = servers.plain()
        assert plain.alive
        assert not alive(mtp)
        again = servers.mtp()
        assert again.alive
        assert again.log.name == "mtp.2.log"
        assert not alive(plain)
    finally:
        servers.close()


def test_the_servers_as_people_serve_them_start_together_beside_the_others(servers: ServerPool) -> None:
    mtp, served, plain = servers.mtp(), servers.served(), servers.served_plain()
    assert [server.name for server in (mtp, served, plain)] == ["mtp", "served", "served-plain"]
    assert alive(mtp)
    assert alive(served)
    assert not (servers._folder / "plain.json").exists()


def test_runs_on_one_machine_take_turns_with_what_is_timed(
    evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = str(tmp_path / "timing.lock")
    monkeypatch.setenv(TIMING_LOCK, lock)
    pool = ServerPool(PROFILE, evidence)
    command = [sys.executable, "-c", OTHER_RUN, lock]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        with ThreadPoolExecutor() as background:
            timed = background.submit(_time_twice, pool)
            with pytest.raises(TimeoutError):
                timed.result(timeout=0.5)
            other.communicate("end\n")
            assert timed.result(timeout=30)


def _time_twice(pool: ServerPool) -> bool:
    """An observer may hold the lock inside another."""
    with pool.quiet(), pool.quiet():
        return True


@pytest.mark.parametrize("change", [{"memory": "discrete"}, {"served": Served(serve_args=(), needs_gb=1e6)}])
def test_where_four_servers_do_not_fit_one_configuration_is_stopped_for_the_other(
    evidence: Evidence, change: dict[str, Any]
) -> None:
    hardware = replace(PROFILE.hardware, **change)
    servers = ServerPool(replace(PROFILE, hardware=hardware), evidence, launcher=launcher())
    try:
        mtp, served = servers.mtp(), servers.served()
        assert not alive(mtp)
        assert servers.served() == served
        assert alive(servers.served_plain())
        assert alive(servers.mtp())
        assert not alive(served)
    finally:
        servers.close()


def test_what_runs_does_not_wait_for_what_loads_but_what_is_timed_does(evidence: Evidence) -> None:
    short = replace(PROFILE.hardware, bounds=replace(PROFILE.hardware.bounds, silence_seconds=3))
    servers = ServerPool(replace(PROFILE, hardware=short), evidence, launcher=launcher(served=SILENT))
    try:
        servers.mtp()
        with ThreadPoolExecutor() as background:
            ahead = background.submit(servers.load_ahead)
            while not (evidence.logs / "served.log").exists():
                assert not ahead.done()
                time.sleep(0.01)
            assert servers.mtp().alive
            with servers.exclusive():
                assert not ahead.done()
            with servers.quiet():
                assert servers._read("served") is not None, "it still loads"
            assert isinstance(ahead.exception(), ObservationError)
    finally:
        servers.close()


@pytest.mark.parametrize("change", [{"memory": "discrete"}, {"served": Served(serve_args=(), needs_gb=1e6)}])
def test_nothing_loads_ahead_where_it_would_stop_others(evidence: Evidence, change: dict[str, Any]) -> None:
    servers = ServerPool(replace(PROFILE, hardware=replace(PROFILE.hardware, **change)), evidence, launcher=launcher())
    try:
        mtp = servers.mtp()
        servers.load_ahead()
        assert mtp.alive
        assert not (evidence.logs / "served.log").exists()
    finally:
        servers.close()


def test_hardware_without_a_served_configuration_is_unsupported(evidence: Evidence) -> None:
    bare = replace(PROFILE, hardware=replace(PROFILE.hardware, served=None))
    servers = ServerPool(bare, evidence, launcher=launcher())
    try:
        with pytest.raises(Unsupported, match=r"Hardware faux has no table \[served\]"):
            servers.served()
    finally:
        servers.close()


def test_an_attempt_says_how_it_ended_and_leaves_the_others_alone(servers: ServerPool) -> None:
    mtp = servers.mtp()
    attempt = servers.attempt("moe-refusal")
    assert not attempt.came_up
    assert attempt.exit_code == 3
    assert attempt.log.name == "moe-refusal.log"
    assert mtp.alive


def test_an_attempt_that_succeeds_is_stopped(evidence: Evidence) -> None:
    servers = ServerPool(ONE_AT_A_TIME, evidence, launcher=launcher(moe_refusal=launch("good")))
    try:
        mtp = servers.mtp()
        attempt = servers.attempt("moe-refusal")
        assert attempt.came_up
        assert attempt.exit_code is None
        assert not alive(mtp)  # memory is short on this hardware
        assert list((evidence.directory / ".servers").glob("*.json")) == []
    finally:
        servers.close()


def test_an_extra_server_is_like_the_one_with_mtp_but_for_one_change_and_is_stopped(servers: ServerPool) -> None:
    mtp = servers.mtp()
    with servers.extra("other", lambda launch: replace(launch, command=(*launch.command, "--seconds", "0"))) as other:
        assert other.command[: len(mtp.command) - 6] == mtp.command[:-6]  # the last six are its port and its name
        assert other.command[-8:-6] == ("--seconds", "0")
        assert other.log.name == "other.log"
        assert other.alive
    assert not alive(other)
    assert servers.mtp() == mtp


BESIDE = replace(
    PROFILE.hardware,
    memory="discrete",
    memory_gb=154.4,
    sm=90,
    third_server=True,
    serve_args=("--kv-cache-memory-bytes", "1", "--gpu-memory-utilization", "0.3"),
)


@pytest.mark.parametrize("sm", [90, None])
def test_nothing_is_held_while_a_server_loads_beside_others_on_a_gpu(evidence: Evidence, sm: int | None) -> None:
    """A CPU has no core to spare, so there the lock is held."""
    on, reports = replace(PROFILE, hardware=replace(BESIDE, sm=sm)), list[str]()
    held: list[bool] = []

    def look(said: str) -> None:
        reports.append(said)
        if said.startswith("loading other"):
            other = ServerPool(on, evidence, owns=False, launcher=launcher())
            try:
                with other._work_lock().acquire_read(0.0):
                    held.append(False)
            except Timeout:
                held.append(True)

    servers = ServerPool(on, evidence, look, launcher=launcher())
    try:
        with servers.extra("other", lambda launch: launch) as other:
            assert other.alive
        assert not alive(other)
        assert held
        assert set(held) == {sm is None}
    finally:
        servers.close()


@pytest.mark.parametrize(("cards", "at_once"), [([replace(H200, used=20_000 * MIB)], 2), ([], 1)])
def test_as_many_load_at_once_as_have_room(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch, cards: list[Card], at_once: int
) -> None:
    """vLLM wants its share of the memory, 46 GB, to be free when a server starts."""
    monkeypatch.setitem(sys.modules, "pynvml", nvml(*cards))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    servers = ServerPool(replace(PROFILE, hardware=BESIDE), evidence, launcher=launcher())
    up: list[list[bool]] = []
    try:
        names = ("one", "two", "three")
        for _ in servers.extras({name: lambda launch: launch for name in names}):
            up.append([(evidence.directory / ".servers" / f"{name}.json").exists() for name in names])
        both = [[True, True, False]] * 2 + [[False, False, True]]
        alone = [[True, False, False], [False, True, False], [False, False, True]]
        assert up == (both if at_once == 2 else alone)
    finally:
        servers.close()


def test_who_waits_says_for_whom(evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conformance.evidence.folder.TOLD_SECONDS", 0.2)
    said: list[str] = []
    holding = ServerPool(PROFILE, evidence, launcher=launcher())
    waiting = ServerPool(PROFILE, evidence, said.append, owns=False, launcher=launcher())
    begun, done = threading.Event(), threading.Event()

    def hold() -> dict[str, Any]:
        with holding.exclusive():
            begun.set()
            done.wait(10)
        return {"refusals": []}

    thread = threading.Thread(target=lambda: evidence.observe("refusals", hold))
    thread.start()
    try:
        assert begun.wait(10)
        threading.Timer(0.7, done.set).start()
        with waiting.shared():
            pass
        assert any(re.fullmatch(r"a check waits for refusals \(\d+ s\), \d+ s so far", line) for line in said), said
    finally:
        done.set()
        thread.join()
        holding.close()


def test_an_extra_server_that_does_not_come_up_is_an_error(servers: ServerPool) -> None:
    broken = launch("crashing")
    with (
        pytest.raises(ObservationError, match="ValueError: backend 'CUTLASS'"),
        servers.extra("other", lambda _: broken),
    ):
        pytest.fail("it came up")
    assert servers.mtp().alive


def test_where_memory_is_short_an_extra_server_has_it_alone(evidence: Evidence) -> None:
    servers = ServerPool(ONE_AT_A_TIME, evidence, launcher=launcher())
    try:
        mtp = servers.mtp()
        with servers.extra("other", lambda launch: launch) as other:
            assert not alive(mtp)
            assert other.alive
        assert servers.mtp().log.name == "mtp.2.log"
    finally:
        servers.close()


def test_a_server_that_dies_later_is_an_error_for_everybody_after(servers: ServerPool) -> None:
    mtp = servers.mtp()
    os.kill(mtp.pid or 0, signal.SIGKILL)
    assert mtp.process is not None
    mtp.process.wait()
    for _ in range(2):
        with pytest.raises(ObservationError, match="mtp server died: "):
            servers.mtp()


def test_recorded_evidence_starts_nothing(tmp_path: Path) -> None:
    servers = ServerPool(PROFILE, Evidence(tmp_path / "old", recording=False), launcher=launcher())
    with pytest.raises(ObservationError, match="read, not recorded"):
        servers.mtp()
    servers.close()
    assert not (tmp_path / "old").exists()


def test_another_process_finds_the_same_server_and_does_not_end_it(servers: ServerPool, evidence: Evidence) -> None:
    mtp = servers.mtp()
    theirs = run_worker(evidence, "worker")
    assert theirs.pop("pid") == mtp.pid
    assert mtp.alive


def test_a_server_that_a_worker_started_is_ended_by_the_owner(servers: ServerPool, evidence: Evidence) -> None:
    record = run_worker(evidence, "worker")
    mtp = servers.mtp()
    assert mtp.pid == record["pid"]
    assert mtp.alive
    servers.close()
    assert not alive(mtp)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_however_the_owner_dies_its_servers_die(evidence: Evidence, end: signal.Signals) -> None:
    owner = subprocess.Popen(worker(evidence, "owner"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=paths())
    assert owner.stdout is not None
    record = json.loads(owner.stdout.readline())
    pid, created = record["pid"], record["created"]
    assert processes.created(pid) == created
    owner.send_signal(end)
    owner.wait(timeout=20)
    deadline = time.monotonic() + 10
    while processes.members(record["model"], pid, created) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes.members(record["model"], pid, created) == []


def test_what_a_killed_session_left_is_ended_by_the_next(evidence: Evidence) -> None:
    first = ServerPool(PROFILE, evidence, launcher=launcher())
    mtp = first.mtp()
    second = ServerPool(PROFILE, evidence, launcher=launcher())
    assert not alive(mtp)
    second.close()
    first.close()


def run_worker(evidence: Evidence, role: str) -> dict[str, object]:
    done = subprocess.run(worker(evidence, role), capture_output=True, text=True, check=True, env=paths())
    record: dict[str, object] = json.loads(done.stdout)
    return record


def worker(evidence: Evidence, role: str) -> list[str]:
    return [sys.executable, "-c", WORKER, str(evidence.directory), role]


def paths() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": PYTHONPATH}
