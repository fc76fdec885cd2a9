"""What goes wrong in a server, and what a run then says."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from negative_controls.faux_servers import LOADING, LOADS, RETRIES
from support.faults import Fault, fault
from support.scene import Scene

LOAD = "DRAFT-01"  # needs a server that came up
TOOL = "TOOL-01"  # needs answers of a server
ACCEPTED = "ACC-01"  # needs counters of a server

broken = partial(fault, group="server", verdict="ERROR", code=4)


@pytest.mark.faults
def test_without_a_fault_the_scene_passes(tmp_path: Path) -> None:
    said = "Passed at level smoke, which is no qualification: micro-26b-a4b-nvfp4 on cpu, … checks passed."
    scene = Scene(Fault("none", "server", "", "PASS", 0, 60.0, said), tmp_path)
    scene.serve(real=["tools"])
    try:
        scene.expect(scene.run(), TOOL)
    finally:
        scene.clear()


@broken(
    "exits before it is ready",
    done="The server writes a traceback and exits with code 3 while it loads.",
    seconds=60,
    says="mtp server exited with code 3 after … s: ValueError: backend 'CUTLASS' does not support the device.",
    quick=True,
)
def test_exits_before_it_is_ready(scene: Scene) -> None:
    scene.serve(script="crashing")
    scene.expect(scene.run(), LOAD)


@broken(
    "hangs in silence",
    done="The server writes one line and hangs while it loads.",
    seconds=60,
    says="mtp server wrote nothing new for 2 s while loading; the last line of its log is: Loading weights",
)
def test_hangs_in_silence(scene: Scene) -> None:
    scene.bounds["silence_seconds"] = 2
    scene.serve_shell(f"{LOADING}; sleep 600")
    scene.expect(scene.run(), LOAD)


@broken(
    "hangs and repeats a line",
    done="The server retries for ever while it loads and writes the same line, with the time, for each attempt.",
    seconds=60,
    says="mtp server wrote nothing new for 2 s while loading; the last line of its log is: No free slot, trying again",
)
def test_hangs_and_repeats_a_line(scene: Scene) -> None:
    scene.bounds["silence_seconds"] = 2
    scene.serve_shell(RETRIES)
    scene.expect(scene.run(), LOAD)


@broken(
    "loads for ever",
    done="The server writes new lines for ever and never gets ready.",
    seconds=60,
    says="mtp server was not ready after 4 s; the last line of its log is: Loading weights: part",
)
def test_loads_for_ever(scene: Scene) -> None:
    scene.bounds |= {"silence_seconds": 2, "load_seconds": 4}
    scene.serve_shell(LOADS)
    scene.expect(scene.run(), LOAD)


@broken(
    "writes 1 GB of noise",
    done="The server writes 1 GB into its log while it loads, and then an error.",
    seconds=90,
    says="mtp server exited with code 1 after … s: ValueError: too much",
)
def test_writes_a_gigabyte_of_noise(scene: Scene) -> None:
    scene.bounds["load_seconds"] = 60
    noise = "yes 'INFO 11-23 14:25:00 [noise.py:7] noise' | head -c 1000000000"
    scene.serve_shell(f"{noise}; echo; echo 'ValueError: too much'; exit 1")
    scene.expect(scene.run(), LOAD)
    assert (scene.evidence / "logs/mtp.log").stat().st_size < 1 << 27


@broken(
    "writes what is not UTF-8",
    done="The server writes bytes that are not UTF-8, and then an error.",
    seconds=60,
    says="mtp server exited with code 1 after … s: ValueError: caf�",
)
def test_writes_what_is_not_utf8(scene: Scene) -> None:
    scene.serve_shell(r"printf '\377\376 \303( \nValueError: caf\351\n'; exit 1")
    scene.expect(scene.run(), LOAD)


SPOILED = {
    "answers health alone": (
        "rubbish from the start",
        "The server is healthy and answers everything with a web page.",
        "mtp server answers /v1/models with text that is not JSON: '<html>It works!</html>'",
    ),
    "generates nothing": (
        "no first token",
        "The server is healthy and generates no token.",
        "mtp server did not answer a request for one token with one token",
    ),
    "hangs when it is asked": (
        "hangs",
        "The server listens and never answers, not even /health.",
        "mtp server was not ready after 6 s; the last line of its log is: Using CPU Unquantized MoE backend",
    ),
}


@pytest.mark.parametrize(
    "does",
    [
        pytest.param(does, marks=broken(name, done=done, seconds=60, says=says), id=name)
        for name, (does, done, says) in SPOILED.items()
    ],
)
def test_is_never_ready(scene: Scene, does: str) -> None:
    scene.bounds |= {"load_seconds": 6, "silence_seconds": 6}
    scene.serve("--fault", does)
    scene.expect(scene.run(), LOAD)


@broken(
    "serves another model",
    done="The server serves a model of another name than the one that the run gave it.",
    seconds=60,
    says="another server there serves …, theirs",
)
def test_serves_another_model(scene: Scene) -> None:
    scene.serve("--also", "theirs")
    scene.expect(scene.run(), LOAD)


NO_ANSWER = "mtp server: prompt code-0 got no usable answer"
QUICK = ("its engine dies",)
MID_RUN = {
    "its process dies": (
        "The server's process ends in the middle of a request, without a word.",
        "mtp server died: Using CPU Unquantized MoE backend",
    ),
    "its engine dies": (
        "The engine dies in the middle of a request; the API server answers 500 and ends.",
        "mtp server died: RuntimeError: probability tensor contains inf, nan or below 0",
    ),
    "its worker is killed": (
        "The kernel kills a worker (out of memory) in the middle of a request; the API server answers 500 and ends.",
        "mtp server died: RuntimeError: Worker failed with error 'signal 9'",
    ),
    "answers 500 now and then": (
        "The server answers every third request with status 500.",
        f"{NO_ANSWER} (InternalServerError: Error code: 500",
    ),
    "answers late": ("The server answers after the time for one request.", f"{NO_ANSWER} (ReadTimeout"),
    "talks for ever later on": ("An answer trickles in, byte by byte, and never ends.", f"{NO_ANSWER} (ReadTimeout"),
    "rubbish from the third on": ("The server answers with a web page.", f"{NO_ANSWER} (JSONDecodeError"),
    "cuts its streams": ("The connection ends in the middle of a stream.", f"{NO_ANSWER} (RemoteProtocolError"),
    "ends its streams early": (
        "A stream ends before its last chunk.",
        f"{NO_ANSWER} (ValueError: the stream has no [DONE]",
    ),
    "loses the mark of the end": ("A stream ends without its [DONE].", f"{NO_ANSWER} (ValueError: the stream has no"),
    "doubles its streams": ("A stream holds every chunk twice.", f"{NO_ANSWER} (ValueError: the stream ends twice"),
    "streams what is not JSON": ("The chunks of a stream are not JSON.", f"{NO_ANSWER} (JSONDecodeError"),
    "answers for another": (
        "Another server answers on the port in the middle of the run: the answers name another model.",
        f"{NO_ANSWER} (ValueError: the answer is of the model",
    ),
}


@pytest.mark.parametrize(
    "does",
    [
        pytest.param(
            does,
            marks=broken(f"in mid-run: {does}", done=done, seconds=60, says=says, quick=does in QUICK),
            id=does,
        )
        for does, (done, says) in MID_RUN.items()
    ],
)
def test_goes_wrong_in_mid_run(scene: Scene, does: str) -> None:
    scene.serve("--fault", does, real=["tools"])
    scene.expect(scene.run(), TOOL)


METRICS = {
    "has no metrics": ("/metrics is empty.", "it has no vllm:spec_decode_num_drafts_total"),
    "metrics are no metrics": ("/metrics is a web page.", "its /metrics cannot be read"),
    "renames its metrics": ("A counter has another name.", "it has no vllm:spec_decode_num_drafts_total"),
    "counts backwards": ("The counters fall below zero.", "/metrics"),
    "resets its metrics": ("The counters begin again at zero in the middle of the run.", "/metrics"),
    "miscounts": ("The counters contradict each other.", "/metrics contradicts itself"),
    "never counts": ("The counters stand still.", "/metrics counts 0 output tokens, but the client received"),
    "is asked by others too": ("Somebody else sends requests.", "somebody else sends requests to this server"),
}


@pytest.mark.parametrize(
    "does",
    [
        pytest.param(does, marks=broken(f"counters: {does}", done=done, seconds=60, says=says), id=does)
        for does, (done, says) in METRICS.items()
    ],
)
def test_counts_wrongly(scene: Scene, does: str) -> None:
    scene.serve("--fault", does, real=["load"])
    scene.expect(scene.run(level="qualify"), ACCEPTED)


@fault(
    "ignores SIGTERM and has a child of its own session",
    group="server",
    done="The server and a child in a session of its own ignore SIGTERM at the end of the run.",
    verdict="PASS",
    code=0,
    seconds=60,
    says="on cpu, … checks passed",
)
def test_ignores_sigterm(scene: Scene) -> None:
    scene.serve("--fault", "is stubborn", real=["tools"])
    scene.expect(scene.run(), TOOL)


@broken(
    "goes on after its stop tokens",
    done="The server drops the list of stop tokens, as with --override-generation-config (vllm#45591), and answers on.",
    verdict="FAIL",
    code=1,
    seconds=60,
    says='code-0 is weather({"city": "Oslo"}) and weather({"city": "Oslo"}) and weather({"city": "Oslo"}) where',
)
def test_goes_on(scene: Scene) -> None:
    scene.serve("--fault", "goes on after its stop tokens", real=["tools"])
    scene.expect(scene.run(), TOOL)
