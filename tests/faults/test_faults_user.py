"""What a user does, and what a run then says."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tarfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from negative_controls.faux_servers import LOADS
from support import synthetic
from support.faults import fault
from support.scene import Scene

from conformance import FIXTURES
from conformance.evidence.folder import is_finished
from conformance.profile import profile_floors

user = partial(fault, group="user", verdict="-")


def wait_for(scene: Scene, phase: str) -> None:
    """Wait until the run has reached a phase."""
    deadline = time.monotonic() + 60
    while not scene.runner._reached(phase):
        assert time.monotonic() < deadline, f"{phase} was not reached"
        time.sleep(0.05)


def signalled(scene: Scene, phase: str, *signals: int) -> None:
    """Send the signals to the run's process group, a second apart, as soon as the phase is reached."""
    process = scene.runner.begin(phase, *scene.words())

    def act() -> None:
        wait_for(scene, phase)
        for number in signals:
            os.killpg(process.pid, number)
            time.sleep(1)

    scene.expect(scene.end(process, act))


INTERRUPTED = {
    "loading": ("Ctrl-C while servers load", "The user interrupts the run while a server loads."),
    "judging": ("Ctrl-C between checks", "The user interrupts the run while it judges."),
}


@pytest.mark.parametrize(
    "phase",
    [
        pytest.param(phase, marks=user(name, done=done, code=4, seconds=60, says="stopped after"), id=phase)
        for phase, (name, done) in INTERRUPTED.items()
    ],
)
def test_interrupted(scene: Scene, phase: str) -> None:
    if phase == "loading":
        scene.serve_shell(LOADS)
    else:
        scene.serve()
    signalled(scene, phase, signal.SIGINT)


@user(
    "Ctrl-C in a request",
    done="The user interrupts the run while it waits for an answer that never ends.",
    code=4,
    seconds=60,
    says="stopped after",
)
def test_interrupted_in_a_request(scene: Scene) -> None:
    scene.bounds["request_seconds"] = 600
    scene.serve("--fault", "talks for ever later on", real=["tools"])
    process = scene.runner.begin("nowhere", *scene.words())

    def act() -> None:
        deadline = time.monotonic() + 60
        while not (scene.evidence / "observations/draft_load.json").exists():  # the server is there
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)

    scene.expect(scene.end(process, act))


@user(
    "Ctrl-C twice",
    done="The user interrupts the run twice, while a server that ignores SIGTERM is stopped.",
    code=4,
    seconds=60,
    says="interrupted twice: servers are ended in the background",
)
def test_interrupted_twice(scene: Scene) -> None:
    scene.bounds["stop_seconds"] = 8  # a busy machine may send the second signal late
    scene.serve_shell(f"trap '' TERM; {LOADS}")
    signalled(scene, "loading", signal.SIGINT, signal.SIGINT)
    assert not is_finished(scene.evidence), "--resume cannot go on"


KILLED = {
    "SIGTERM": ("A supervisor ends the run by SIGTERM while it observes.", signal.SIGTERM),
    "SIGKILL": ("The run is killed while it observes.", signal.SIGKILL),
    "a closed terminal": ("The terminal of the run is closed (SIGHUP) while it observes.", signal.SIGHUP),
}


@pytest.mark.parametrize(
    "named",
    [
        pytest.param(
            name,
            marks=user(name, done=done, code=-number, seconds=60, says=""),
            id=name,
        )
        for name, (done, number) in KILLED.items()
    ],
)
def test_killed(scene: Scene, named: str) -> None:
    scene.serve()
    signalled(scene, "observing", KILLED[named][1])


@user(
    "SIGTERM with workers",
    done="A supervisor ends a run of two workers by SIGTERM, which the command alone gets, while it observes.",
    code=-signal.SIGTERM,
    seconds=90,
    says="",
)
def test_killed_with_workers(scene: Scene) -> None:
    scene.serve()
    process = scene.runner.begin("observing", *scene.words("--workers=2"))

    def act() -> None:
        wait_for(scene, "observing")
        time.sleep(3)  # the workers wait for what the command observes, and would go on with it
        process.send_signal(signal.SIGTERM)

    scene.expect(scene.end(process, act))


@fault(
    "a reader that goes away",
    group="user",
    done="qualify … | head -1: the reader of the output ends after one line.",
    verdict="PASS",
    code=0,
    seconds=60,
    says="",
)
def test_a_reader_that_goes_away(scene: Scene) -> None:
    scene.before = ("bash", "-c", '"$@" 2>errors.txt | head -1; exit ${PIPESTATUS[0]}', "bash")
    scene.serve(real=["tools"])
    scene.expect(scene.run(), "TOOL-01")
    assert "Traceback" not in (scene.folder / "errors.txt").read_text()


def toml(name: str, change: Callable[[str], str]) -> Callable[[Scene], list[str]]:
    """The arguments of a run with a changed file of fixtures."""

    def words(scene: Scene) -> list[str]:
        folder, _, stem = name.partition("/")
        path = scene.folder / f"{stem}.toml"
        path.write_text(change((FIXTURES / f"{name}.toml").read_text()))
        option = {"hardware": "--hardware", "models": "--pair"}[folder]
        return [f"{option}={path}", "--level=static", f"--evidence={scene.evidence}"]

    return words


def data_set(text: str) -> Callable[[Scene], list[str]]:
    """The arguments of a run with a data set."""

    def words(scene: Scene) -> list[str]:
        path = scene.folder / "data.jsonl"
        path.write_text(text)
        return [f"--dataset={path}", "--hardware=cpu", f"--evidence={scene.evidence}"]

    return words


def judged_again(change: Callable[[Path], None]) -> Callable[[Scene], list[str]]:
    """The arguments that judge recorded evidence after a change."""

    def words(scene: Scene) -> list[str]:
        change(synthetic.record(scene.evidence, synthetic.healthy()))
        return ["rejudge", str(scene.evidence)]

    return words


def other_format(evidence: Path) -> None:
    header = json.loads((evidence / "header.json").read_text())
    (evidence / "header.json").write_text(json.dumps(header | {"colour": "blue"}))


def edit(evidence: Path) -> None:
    path = evidence / "observations/load.json"
    path.write_text(path.read_text().replace("1", "2", 1))


def add(evidence: Path) -> None:
    (evidence / "notes.txt").write_text("all is well")


def remove(evidence: Path) -> None:
    (evidence / "observations/load.json").unlink()


def spoil_manifest(evidence: Path) -> None:
    (evidence / "manifest.json").write_text("[" * 100_000)


def leave_the_folder(evidence: Path) -> None:
    manifest = json.loads((evidence / "manifest.json").read_text())
    manifest["files"]["../../../etc/passwd"] = "0" * 64
    (evidence / "manifest.json").write_text(json.dumps(manifest))


def archive_above_its_folder(scene: Scene) -> list[str]:
    """The arguments that judge an archive whose file would land above the folder into which it is unpacked."""
    folder = scene.folder / "archives"
    folder.mkdir()
    with tarfile.open(folder / "0.1.0.tar.xz", "w:xz") as archive:
        archive.addfile(tarfile.TarInfo("../../header.json"))
    return ["releases", f"--archives={folder}"]


INPUTS: dict[str, tuple[str, Callable[[Scene], list[str]], int, str]] = {
    "broken TOML": (
        "A hardware file is not valid TOML.",
        toml("hardware/cpu", lambda text: text.replace("true", "yes", 1)),
        2,
        "cpu.toml: not valid TOML: Invalid value",
    ),
    "an unknown key": (
        "A hardware file has a misspelt key.",
        toml("hardware/cpu", lambda text: text.replace("two_servers", "two_server", 1)),
        2,
        'cpu.toml: key "two_server" is unknown; remove it. Did you mean "two_servers"?',
    ),
    "a key of the wrong type": (
        "A pair's k is a text.",
        toml("models/micro-26b-a4b-nvfp4", lambda text: text.replace("k = 4", 'k = "four"')),
        2,
        'key "k" is "four"; it must be a valid integer.',
    ),
    "an impossible bound": (
        "A hardware file allows less than no time to load.",
        toml("hardware/cpu", lambda text: text.replace("load_seconds = 600", "load_seconds = -1")),
        2,
        'key "bounds.load_seconds" is -1; it must be greater than 0.',
    ),
    "a pair without checkpoints": (
        "A pair names a folder that does not exist.",
        toml("models/micro-26b-a4b-nvfp4", lambda text: text.replace("./micro-26b-a4b", "./gone")),
        2,
        "put the checkpoint there or change the key.",
    ),
    "no such hardware": (
        "The user misspells the hardware.",
        lambda scene: ["--hardware=gb01", f"--evidence={scene.evidence}"],
        2,
        'hardware "gb01" is unknown',
    ),
    "an unknown level": ("The user misspells the level.", lambda _: ["--level=smoky"], 2, "invalid choice: 'smoky'"),
    "an empty data set": ("The file of prompts is empty.", data_set(""), 2, "has 0 prompts"),
    "a data set of images": ("The file of prompts is not text.", data_set("\x89PNG\x00"), 2, "not valid JSON"),
    "nothing to judge": (
        "The user judges a folder that holds no evidence.",
        lambda scene: ["rejudge", str(scene.folder)],
        2,
        "holds no evidence: it has no header.json.",
    ),
    "evidence of another version": (
        "The header has a key that this version does not know.",
        judged_again(other_format),
        2,
        "is not a header that this version reads",
    ),
    "edited evidence": (
        "A digit of an observation is changed after the run.",
        judged_again(edit),
        4,
        "was changed after recording: its SHA-256 is not the manifest's",
    ),
    "evidence with a file more": (
        "A file is added to the evidence.",
        judged_again(add),
        4,
        "notes.txt was added after recording: manifest.json does not list it",
    ),
    "evidence with a file less": (
        "An observation is deleted.",
        judged_again(remove),
        4,
        "load.json is missing: manifest.json lists it",
    ),
    "a manifest that is nested": (
        "The manifest is JSON of 100,000 brackets.",
        judged_again(spoil_manifest),
        4,
        "manifest.json",
    ),
    "a manifest that leaves its folder": (
        "The manifest lists a file outside of the evidence.",
        judged_again(leave_the_folder),
        4,
        "etc/passwd is missing: manifest.json lists it",
    ),
    "an archive that leaves its folder": (
        "An archive of evidence holds a file above its own folder.",
        archive_above_its_folder,
        4,
        "0.1.0.tar.xz cannot be unpacked ('../../header.json' would be extracted to …, which is outside",
    ),
}


@pytest.mark.parametrize(
    "named",
    [
        pytest.param(name, marks=user(name, done=done, code=code, seconds=20, says=says, quick=True), id=name)
        for name, (done, _, code, says) in INPUTS.items()
    ],
)
def test_bad_input_is_one_sentence(scene: Scene, named: str) -> None:
    ended = scene.call(*INPUTS[named][1](scene))
    scene.expect(ended)
    assert len(ended.said.strip().splitlines()) <= 12, ended.said


@user(
    "an impossible floor",
    done="A floor of the speedup is nan, which no run reaches.",
    code=2,
    seconds=20,
    says='key "speedup_sequential.value" is nan; it must be a number above 0.',
    quick=True,
)
def test_an_impossible_floor(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(FIXTURES / "floors", scene.folder / "floors")
    path = scene.folder / "floors/cpu.micro-26b-a4b-nvfp4.toml"
    path.write_text(path.read_text().replace("value = 2.34", "value = nan"))
    monkeypatch.setattr(profile_floors, "FIXTURES", scene.folder)
    scene.expect(scene.call("--plan", "--hardware=cpu"))


@user(
    "a check id that stands twice",
    done="Somebody copies a check and leaves it its id.",
    code=2,
    seconds=60,
    says="check id CKPT-01 stands twice, as test_checkpoint.py::test_draft_tensors and test_checkpoint.py::test_again;"
    " give one of them a free number of its family",
)
def test_a_check_id_twice(scene: Scene) -> None:
    scene.plan["hostile"] = "an_id_twice"
    scene.serve()
    scene.expect(scene.run(level="static"))
