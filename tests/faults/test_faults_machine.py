"""What goes wrong on the machine, and what a run then says."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest
from support.faults import fault
from support.nvml import B300, GB10, H100, Card, nvml
from support.scene import Scene

from conformance.profile import gpus

LOAD, TOOL = "DRAFT-01", "TOOL-01"
PASSED = "on cpu, … checks passed"

machine = partial(fault, group="machine", seconds=60)
harmless = partial(machine, verdict="PASS", code=0, says=PASSED)

HOSTILE = {
    "port_taken": machine(
        "the port is taken",
        done="Somebody takes the port between its choice and the server's start.",
        verdict="ERROR",
        code=4,
        says="mtp server exited with code 1 after … s: OSError: [Errno 98] Address already in use",
    ),
    "no_ports": machine(
        "all ports are taken",
        done="No port of the machine is free.",
        verdict="ERROR",
        code=4,
        says="mtp server could not be started: no port is free ([Errno 98] Address already in use)",
    ),
    "full_at_header": machine(
        "disk full: header",
        done="The disk is full when the evidence begins.",
        verdict="-",
        code=4,
        says="header.json cannot be written (No space left on device)",
    ),
    "full_at_record": machine(
        "disk full: a server's start",
        done="The disk is full when the start of a server is recorded.",
        verdict="ERROR",
        code=4,
        says="mtp.json cannot be written (No space left on device)",
    ),
    "full_at_observation": machine(
        "disk full: an observation",
        done="The disk is full when an observation is kept.",
        verdict="ERROR",
        code=4,
        says="draft_load.json cannot be written (No space left on device)",
    ),
    "full_at_verdicts": machine(
        "disk full: a verdict",
        done="The disk is full when a verdict is written.",
        verdict="-",
        code=4,
        says="verdicts.jsonl cannot be written (No space left on device)",
    ),
    "full_at_junit": machine(
        "disk full: JUnit",
        done="The disk is full when the result for continuous integration is written.",
        verdict="PASS",
        code=4,
        says="junit.xml cannot be written (No space left on device)",
    ),
    "full_at_manifest": machine(
        "disk full: manifest",
        done="The disk is full when the manifest is written.",
        verdict="PASS",
        code=4,
        says="manifest.json cannot be written (No space left on device)",
    ),
    "full_at_reports": machine(
        "disk full: reports",
        done="The disk is full when the reports are written.",
        verdict="PASS",
        code=0,
        says="No report was written: …report.html cannot be written (No space left on device)",
    ),
    "no_flock": harmless(
        "a file system without flock", done="flock answers ENOSYS: the evidence lies on a mount that has no locks."
    ),
    "no_lock_manager": machine(
        "a lock manager that does not answer",
        done="flock answers ENOLCK: the evidence lies on a network mount without its lock manager.",
        verdict="-",
        code=2,
        says="cannot be recorded into ([Errno 37] No locks available): choose another folder.",
    ),
    "no_passwd_entry": harmless(
        "a user without an entry in passwd", done="The user's number is in no list of users, and HOME is not set."
    ),
    "clock_jumps": harmless("the clock jumps", done="The wall clock goes back by a day in the middle of the run."),
}
WITH_LOAD = ("port_taken", "no_ports", "full_at_record", "full_at_observation", "full_at_junit", "full_at_manifest")


@pytest.mark.parametrize("how", [pytest.param(how, marks=mark, id=how) for how, mark in HOSTILE.items()])
def test_the_machine_is_hostile(scene: Scene, how: str) -> None:
    scene.serve(real=["tools"])
    scene.plan["hostile"] = how
    judged = LOAD if how in WITH_LOAD or scene.fault.code == 0 else ""
    scene.expect(scene.run(), judged)


SHELL = {
    "LANG=C": (
        "The locale is C, and the terminal takes ASCII only.",
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
    ),
    "no HOME": ("HOME names a folder that does not exist.", {"HOME": "/proc/nowhere", "XDG_CACHE_HOME": ""}),
    "a HOME that is read-only": ("HOME and the cache cannot be written.", {"HOME": "/proc", "XDG_CACHE_HOME": "/proc"}),
    "a TMPDIR that does not exist": ("TMPDIR names a folder that does not exist.", {"TMPDIR": "/proc/nowhere"}),
    "engine variables of the shell": (
        "The shell has variables that change vLLM: attention backend, threads, plugins, sockets' port.",
        {
            **{"VLLM_ATTENTION_BACKEND": "FLASHINFER", "VLLM_PORT": "tcp://10.0.0.1:8000", "VLLM_PLUGINS": ""},
            **{"OMP_NUM_THREADS": "64", "VLLM_HOST_IP": "10.8.0.1", "VLLM_USE_V1": "0"},
        },
    ),
    "proxies of the shell": (
        "The shell has proxies that answer nobody.",
        dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:9"),
    ),
    "a preloaded library": ("LD_PRELOAD names a library that does not exist.", {"LD_PRELOAD": "/nowhere.so"}),
    "pytest's variables of the shell": (
        "PYTEST_ADDOPTS selects no check, and PYTEST_PLUGINS names a plugin that does not exist.",
        {"PYTEST_ADDOPTS": "-k nothing --maxfail=1", "PYTEST_PLUGINS": "no_such_plugin"},
    ),
    "Python's variables of the shell": (
        "Warnings are errors, and Python is unbuffered and optimised.",
        {"PYTHONWARNINGS": "error::ResourceWarning", "PYTHONUNBUFFERED": "1", "PYTHONOPTIMIZE": "1"},
    ),
}


@pytest.mark.parametrize(
    "named", [pytest.param(name, marks=harmless(name, done=done), id=name) for name, (done, _) in SHELL.items()]
)
def test_the_shell_changes_nothing(scene: Scene, named: str) -> None:
    scene.environment |= SHELL[named][1]
    scene.serve("--wants", "VLLM_HOST_IP=127.0.0.1", real=["tools"])
    scene.expect(scene.run(), TOOL)


@harmless("TMPDIR of 90 characters", done="The path of the temporary folder is longer than a socket's path may be.")
def test_a_long_temporary_folder(scene: Scene) -> None:
    folder = scene.folder / ("t" * 90)
    folder.mkdir()
    scene.environment["TMPDIR"] = str(folder)
    scene.serve(real=["tools"])
    scene.expect(scene.run(), TOOL)
    assert list(folder.iterdir()) == []


@harmless(
    "a folder for sockets in the shell",
    done="VLLM_RPC_BASE_PATH names a short folder for vLLM's sockets, and the temporary folder has a long path.",
)
def test_a_folder_for_sockets(scene: Scene) -> None:
    long, own = scene.folder / ("t" * 90), Path(tempfile.mkdtemp(prefix="sockets-"))
    long.mkdir()
    scene.environment |= {"TMPDIR": str(long), "VLLM_RPC_BASE_PATH": str(own)}
    scene.serve("--wants", f"VLLM_RPC_BASE_PATH={own}/…", real=["tools"])
    scene.expect(scene.run(), TOOL)
    own.rmdir()  # it is empty


LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sH14x", b"lo", 0x49))
os.execvp(sys.argv[1], sys.argv[1:])
"""


@harmless("no route", done="The machine has no network but its loopback, as behind a VPN that is down.")
def test_no_route(scene: Scene) -> None:
    scene.before = ("unshare", "-n", sys.executable, "-c", LOOPBACK_UP)
    if not shutil.which("unshare") or subprocess.run([*scene.before, "true"], check=False).returncode:
        pytest.skip("this user may not have a network of its own")
    scene.serve("--wants", "VLLM_HOST_IP=127.0.0.1", real=["tools"])
    scene.expect(scene.run(), TOOL)


@harmless("64 open files", done="ulimit -n 64 holds for the run and its servers.")
def test_few_open_files(scene: Scene) -> None:
    scene.before = ("sh", "-c", 'ulimit -n 64; exec "$@"', "sh")
    scene.serve(real=["tools"])
    scene.expect(scene.run(), TOOL)


@harmless(
    "blanks and non-ASCII letters", done="Paths of pair, hardware and evidence have blanks and non-ASCII letters."
)
def test_blanks_and_other_letters(scene: Scene) -> None:
    scene.folder = scene.folder / "a folder with Umläute and 日本語"
    scene.folder.mkdir()
    scene.serve(real=["tools"])
    scene.expect(scene.run(), TOOL)


@machine(
    "evidence that is read-only",
    done="The folder of the evidence cannot be made.",
    verdict="-",
    code=2,
    says="disk: 0.0 GB free in /proc, … GB needed; free some, or name another folder by --evidence",
)
def test_evidence_that_is_read_only(scene: Scene) -> None:
    scene.serve()
    ended = scene.run("--evidence=/proc/evidence")
    scene.expect(ended)


@machine(
    "killed for want of memory",
    done="The kernel kills the server with SIGKILL while it loads.",
    verdict="ERROR",
    code=4,
    says="mtp server was killed by SIGKILL after",
)
def test_killed_for_want_of_memory(scene: Scene) -> None:
    scene.serve_shell("echo loading; kill -9 $$")
    scene.expect(scene.run(), LOAD)


@harmless("two runs at once", done="Two runs begin in one checkout at the same time, each with its own evidence.")
def test_two_runs_at_once(scene: Scene) -> None:
    scene.serve(real=["tools"])
    other = scene.folder / "other"
    second = scene.runner.begin("nowhere", *scene.words(f"--evidence={other}"))
    scene.expect(scene.run(), TOOL)
    said, _ = second.communicate(timeout=scene.fault.seconds)
    assert second.returncode == 0, said
    assert scene.fault.matches(said)


@machine(
    "two runs into one folder",
    done="A second run is begun into the folder of one that still records.",
    verdict="-",
    code=2,
    says="is still being recorded by another process: wait for its end, or record into another folder.",
)
def test_two_runs_into_one_folder(scene: Scene) -> None:
    scene.serve()
    with scene.runner.hanging_in("observing", *scene.words()):
        ended = scene.run()
    scene.expect(ended)


def can_mount() -> bool:
    """Whether this user may mount a file system of its own."""
    program = shutil.which("unshare")
    done = subprocess.run([program, "-m", "mount", "-t", "tmpfs", "none", "/mnt"], check=False) if program else None
    return done is not None and done.returncode == 0


@machine(
    "shared memory of 64 MB",
    done="/dev/shm has 64 MB, as in a container without --shm-size, and the server wants 100.",
    verdict="ERROR",
    code=4,
    says="mtp server exited with code 1 after … s: OSError: [Errno 28] No space left on device",
)
def test_little_shared_memory(scene: Scene) -> None:
    if not can_mount():
        pytest.skip("this user may not mount")
    scene.before = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=64m none /dev/shm; exec "$@"', "sh")
    scene.serve("--fault", "wants much shared memory")
    scene.expect(scene.run(), LOAD)


@machine(
    "a small disk",
    done="The evidence lies on a file system of 300 kB.",
    verdict="-",
    code=2,
    says="disk: 0.0 GB free in … GB needed; free some, or name another folder by --evidence",
)
def test_a_small_disk(scene: Scene) -> None:
    if not can_mount():
        pytest.skip("this user may not mount")
    scene.evidence.mkdir()
    mount = f'mount -t tmpfs -o size=300k none "{scene.evidence}"; exec "$@"'
    scene.before = ("unshare", "-m", "sh", "-c", mount, "sh")
    scene.serve(real=["tools"])
    scene.expect(scene.run())


GPUS: dict[str, tuple[str, tuple[Card, ...], dict[str, str], str | None, int, str]] = {
    "no NVIDIA driver": ("NVML finds no driver.", (), {"fails": "DriverNotLoaded"}, None, 0, "on cpu, level static"),
    "NVML that does not answer": (
        "NVML fails with an error that says nothing.",
        (H100,),
        {"fails": "Unknown"},
        None,
        2,
        "NVML does not answer: Unknown; choose by --hardware one of",
    ),
    "NVML of another driver": (
        "NVML begins and then fails, as after an update of the driver without a restart.",
        (H100,),
        {"late": "Unknown"},
        None,
        2,
        "NVML does not answer: Unknown; choose by --hardware one of",
    ),
    "fields that are not supported": (
        "A GB10 has no memory of its own and no power limit.",
        (GB10,),
        {},
        None,
        0,
        "gb10",
    ),
    "GPUs of two kinds": (
        "The machine has an H100 and a B300.",
        (H100, B300),
        {},
        None,
        2,
        "this machine has GPUs of several kinds, NVIDIA H100",
    ),
    "CUDA_VISIBLE_DEVICES: a UUID": ("It names the whole UUID.", (H100, B300), {}, "GPU-1a5b-4e67", 0, "on b300"),
    "CUDA_VISIBLE_DEVICES: a prefix": ("It names the start of a UUID.", (H100, B300), {}, "GPU-1a", 0, "on b300"),
    "CUDA_VISIBLE_DEVICES: MIG": ("It names an instance of a shared GPU.", (H100, B300), {}, "MIG-7", 0, "on h100"),
    "CUDA_VISIBLE_DEVICES: empty": ("It is empty.", (H100,), {}, "", 0, "on cpu"),
    "CUDA_VISIBLE_DEVICES: -1": ("It is -1.", (H100,), {}, "-1", 0, "on cpu"),
    "CUDA_VISIBLE_DEVICES: unknown": (
        "It names a GPU that is not there.",
        (H100,),
        {},
        "GPU-ffff",
        2,
        "NVML does not answer: Not Found; choose by --hardware one of",
    ),
}


@pytest.mark.parametrize(
    "named",
    [
        pytest.param(
            name,
            marks=fault(name, group="machine", done=done, verdict="-", code=code, seconds=20, says=says, quick=True),
            id=name,
        )
        for name, (done, *_, code, says) in GPUS.items()
    ],
)
def test_nvml_and_the_gpus_it_shows(scene: Scene, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    _, cards, errors, visible, *_ = GPUS[named]
    monkeypatch.setitem(sys.modules, "pynvml", nvml(*cards, **errors))
    (scene.folder / "meminfo").write_text("MemTotal:       125370736 kB\n")  # of a GB10's machine
    monkeypatch.setattr(gpus, "_MEMINFO", scene.folder / "meminfo")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    scene.expect(scene.call("--plan", "--level=static"))
