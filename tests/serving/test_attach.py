"""Servers that somebody else runs: proven, asked, left as they are, and judged by what a black box shows."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from negative_controls.faux_servers import PROFILE, recording, with_prompts
from negative_controls.faux_servers.by_hand import Serve, started_by_hand

from conformance.commands.main import main
from conformance.errors import ObservationError, Unsupported, UsageError
from conformance.evidence.folder import Evidence
from conformance.observers import observer
from conformance.observers.bad_requests import Wrong, send_wrong
from conformance.profile.profile import Profile
from conformance.run.session import new_header_here
from conformance.serving.attach import API_KEY, AttachedServers, Attachment, attachment
from conformance.serving.executors import free_port
from conformance.views.acceptance import everywhere
from conformance.views.gold import Gold
from conformance.views.inside import Moe
from conformance.views.load import Load

KEY = "sk-a-secret-of-somebody"
QUICK = replace(PROFILE.hardware.bounds, request_seconds=2.0)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts a faux server by hand, as somebody else would, and gives its address."""
    monkeypatch.delenv(API_KEY, raising=False)
    with started_by_hand() as serve:
        yield serve


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    return recording(tmp_path / "evidence")


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    hardware = replace(PROFILE.hardware, bounds=QUICK, two_servers=False)
    return with_prompts(replace(PROFILE, hardware=hardware), tmp_path / "prompts")


@pytest.fixture
def attach(profile: Profile, evidence: Evidence) -> Callable[..., AttachedServers]:
    return lambda url, plain=None, model=None: AttachedServers(profile, evidence, Attachment(url, plain, model))


Attach = Callable[..., AttachedServers]


def test_it_is_proven_asked_and_never_ended(serve: Serve, attach: Attach, evidence: Evidence) -> None:
    servers = attach(serve(), serve(k=0))
    with servers.exclusive():
        mtp, plain = servers.mtp(), servers.plain()
        assert mtp.model == plain.model == "theirs"
        assert servers.mtp() is mtp
    with servers.shared():
        assert servers.mtp().call("conformance_moe", 2.0)[0]["layers"]
    mtp.stop(0.1)
    servers.abandon()
    servers.close()
    assert mtp.alive
    assert plain.alive
    assert not (evidence.directory / ".servers").exists()


def test_one_of_several_models_has_to_be_chosen(serve: Serve, attach: Attach) -> None:
    url = serve("--also", "another")
    with pytest.raises(ObservationError, match="serves theirs, another; choose one by --model NAME"):
        attach(url).mtp()
    assert attach(url, None, "another").mtp().model == "another"
    with pytest.raises(ObservationError, match="does not serve the model third; it serves theirs, another; choose one"):
        attach(url, None, "third").mtp()


@pytest.mark.parametrize(
    ("arguments", "k", "sentence"),
    [
        ([], 0, "does not draft: its /metrics counts no drafts"),
        ([], 2, "drafts 2 tokens a step, but the pair's k is 4; correct one of them"),
        (["--fault", "rubbish from the start"], 4, "answers /v1/models with text that is not JSON"),
        (["--fault", "no first token"], 4, "did not answer a request for one token with one token: "),
        (["--fault", "hangs"], 4, "did not answer /v1/models"),
        (["--fault", "never ends"], 4, "has no end after"),
        (["--key", KEY], 4, "refused /v1/models with status 401; put its API key into OPENAI_API_KEY"),
    ],
)
def test_what_is_no_server_with_mtp_is_told_in_bounded_time(
    serve: Serve, attach: Attach, arguments: list[str], k: int, sentence: str
) -> None:
    servers, begin = attach(serve(*arguments, k=k)), time.monotonic()
    for _ in range(3):  # the first look is the last
        with servers.exclusive(), pytest.raises(ObservationError, match=sentence):
            servers.mtp()
    assert time.monotonic() - begin < 10


def test_nobody_is_there(attach: Attach) -> None:
    with pytest.raises(ObservationError, match=r"did not answer /v1/models .ConnectError"):
        attach(f"http://127.0.0.1:{free_port()}").mtp()


def test_a_server_that_drafts_is_none_without_mtp(serve: Serve, attach: Attach) -> None:
    with pytest.raises(ObservationError, match="drafts 4 tokens a step, but --attach-plain needs a server without MTP"):
        attach(serve(), serve()).plain()


def test_what_needs_the_probe_says_how_to_start_it(serve: Serve, profile: Profile, evidence: Evidence) -> None:
    for name in ("target", "draft"):
        (evidence.directory / name).mkdir()
    here = replace(profile, pair=replace(profile.pair, home=str(evidence.directory)))
    url = serve("--fault", "no dev mode")
    with pytest.raises(Unsupported, match="has no probe; this command starts it with the probe: ") as raised:
        AttachedServers(here, evidence, Attachment(url)).mtp().call("conformance_describe", 1.0)
    *settings, program = shlex.split(str(raised.value).partition("with the probe: ")[2].partition(" -m ")[0])
    assert program == sys.executable
    assert "VLLM_SERVER_DEV_MODE=1" in settings
    words = shlex.split(str(raised.value).partition(" -m ")[2])
    assert words[words.index("--worker-extension-cls") + 1] == "conformance.inside_vllm.probe.Probe"
    assert json.loads(words[words.index("--speculative-config") + 1])["num_speculative_tokens"] == 4
    assert words[-2:] == ["--port", url.rpartition(":")[2]]


def test_without_the_checkpoint_the_command_depends_on_it(serve: Serve, attach: Attach) -> None:
    with pytest.raises(
        Unsupported, match=r"has no probe, and the command that starts it with one needs a checkpoint: .*no folder"
    ):
        attach(serve("--fault", "no dev mode")).mtp().call("conformance_describe", 1.0)


def test_what_would_start_or_change_a_server_is_unsupported(attach: Attach) -> None:
    servers = attach("http://127.0.0.1:9")
    for ask in (servers.sweep, lambda: servers.attempt("moe-refusal"), servers.plain):
        with pytest.raises(Unsupported):
            ask()
    with (
        pytest.raises(Unsupported, match=r"no other server .synthetic. is started"),
        servers.extra("synthetic", lambda it: it),
    ):
        pytest.fail("it came up")


@pytest.mark.parametrize(
    "name", ["environment", "geometry", "moe_oracle", "cuda_graphs", "parsers", "sweep", "calibration"]
)
def test_what_a_black_box_does_not_show_is_unsupported(
    attach: Attach, profile: Profile, evidence: Evidence, name: str
) -> None:
    servers = attach("http://127.0.0.1:9")
    with pytest.raises(Unsupported, match="did not start the server at http"):
        evidence.observe(name, lambda: observer(name)(profile, servers, evidence))


def test_a_checkpoint_need_not_be_here(attach: Attach, profile: Profile, evidence: Evidence) -> None:
    servers = attach("http://127.0.0.1:9")
    with pytest.raises(Unsupported, match="there is no folder"):
        evidence.observe("checkpoint", lambda: observer("checkpoint")(profile, servers, evidence))


def test_alone_acceptance_is_seen_and_every_comparison_is_unsupported(
    serve: Serve, attach: Attach, profile: Profile, evidence: Evidence
) -> None:
    servers = attach(serve("--fault", "no dev mode"))
    seen = Load.of([evidence.observe("load", lambda: observer("load")(profile, servers, evidence))])
    assert everywhere(seen).length().value == pytest.approx(4.0)
    for compare in (seen.at(1).speedup, seen.pays, seen.at(8).account):
        with pytest.raises(Unsupported, match="attach one by --attach-plain URL"):
            compare()
    with pytest.raises(Unsupported, match="--attach-plain URL"):
        Gold({"mtp": {}}, {}).divergences("plain", 0.1)
    with pytest.raises(Unsupported, match="--attach-plain URL"):
        evidence.observe("near_ties", lambda: observer("near_ties")(profile, servers, evidence))


def test_with_both_the_load_is_the_usual_one(
    serve: Serve, attach: Attach, profile: Profile, evidence: Evidence
) -> None:
    servers = attach(serve(), serve(k=0))
    seen = Load.of([evidence.observe("load", lambda: observer("load")(profile, servers, evidence))])
    assert seen.at(1).speedup().n == 9


def test_somebody_elses_requests_are_noticed(
    serve: Serve, attach: Attach, profile: Profile, evidence: Evidence
) -> None:
    servers = attach(serve("--fault", "is asked by others too"))
    with pytest.raises(ObservationError, match="somebody else sends requests to this server"):
        evidence.observe("load", lambda: observer("load")(profile, servers, evidence))


def test_a_server_that_goes_wrong_later_is_an_error(
    serve: Serve, attach: Attach, profile: Profile, evidence: Evidence
) -> None:
    servers = attach(serve("--fault", "rubbish from the third on"))
    with pytest.raises(ObservationError, match=r"mtp server at http.*got no usable answer"):
        evidence.observe("tools", lambda: observer("tools")(profile, servers, evidence))


def test_a_server_that_talks_for_ever_later_is_an_error_in_bounded_time(
    serve: Serve, attach: Attach, profile: Profile, evidence: Evidence
) -> None:
    servers, begin = attach(serve("--fault", "talks for ever later on")), time.monotonic()
    with pytest.raises(ObservationError, match=r"got no usable answer .*the answer has no end"):
        evidence.observe("tools", lambda: observer("tools")(profile, servers, evidence))
    assert time.monotonic() - begin < 2 * QUICK.request_seconds + 2


def test_the_log_is_its_owners(profile: Profile) -> None:
    rows = {"l0": {"experts": "E", "backend": "CPU", "quant_method": "Q"}}
    seen = Moe.of({"vllm_version": "0", "layers": rows, "log_lines": None}, profile)
    with pytest.raises(Unsupported, match="The log of an attached server is not available"):
        seen.logged()


def test_the_key_is_sent_and_never_kept(
    serve: Serve, attach: Attach, profile: Profile, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = serve("--key", KEY)
    monkeypatch.setenv(API_KEY, KEY)
    servers = attach(url)
    evidence.observe("tools", lambda: observer("tools")(profile, servers, evidence))
    seen = evidence.observe("chat-call", lambda: observer("chat-call")(profile, servers, evidence))
    assert [answer["error"] for answer in seen["answers"]] == [None] * len(seen["answers"])
    wrong = Wrong("models", "CC0-1.0", "GET", "/v1/models", (200,))
    assert send_wrong(servers.mtp(), wrong, 2.0)["status"] == 200
    with pytest.raises(ObservationError, match=r"you sent Bearer <redacted>"):
        evidence.observe("wiring", lambda: {"k": attach(serve("--fault", "repeats the key")).mtp()})
    evidence.begin(replace(new_header_here("cpu", "p", "smoke"), attached=url), {})
    written = [path.read_text() for path in evidence.directory.rglob("*") if path.is_file()]
    assert len(written) > 3
    assert not any(KEY in text for text in written)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["http://user:password@host:8000"], "--attach holds more than an address; put the API key into"),
        (["http://host/v1?token=password"], "--attach holds more than an address"),
        (["host:8000"], "--attach host:8000 is not a URL"),
        (["ftp://host"], "--attach ftp://host is not a URL"),
        (["http://host", "http://host/v1/"], "--attach and --attach-plain name the same server"),
    ],
)
def test_an_address_is_an_address(words: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as raised:
        attachment(*[*words, None][:2], None)  # type: ignore[arg-type]
    assert "password" not in str(raised.value)


def test_an_address_is_kept_without_its_end() -> None:
    assert attachment("http://host:8000/v1/", "https://other/", "m") == Attachment(
        "http://host:8000", "https://other", "m"
    )
    assert attachment(None, None, None) is None
    for words in ((None, "http://host", None), (None, None, "name")):
        with pytest.raises(UsageError, match="needs --attach URL"):
            attachment(*words)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--attach=http://127.0.0.1:9", "--level=static"], "--level static needs no server: leave out --attach"),
        (["--attach=nowhere"], "--attach nowhere is not a URL"),
        (["--model=x"], "--model x needs --attach URL, which is missing"),
    ],
)
def test_bad_words_are_exit_code_2(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert sentence in "".join(capfd.readouterr())
