"""Secrets are replaced before they are written: in text, in a command, in facts, in files, and in a whole run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.paths import ROOT

from conformance.errors import UsageError
from conformance.evidence import redaction
from conformance.evidence.redaction import (
    is_secret,
    redact_command,
    redact_document,
    redact_environment,
    redact_file,
    redact_text,
)
from conformance.profile.profile import load_hardware, load_pair
from conformance.serving import logs

ENVIRONMENT = {
    "HF_TOKEN": "plainsecretvalue",
    "DB_PASSWORD": 'hun/ter"2 x',
    "SHORT_KEY": "EMPTY",
    "DEPLOY_KEY": "-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----",
    "VLLM_MAX_NUM_BATCHED_TOKENS": "131072",
}


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("HF_TOKEN", True),
        ("HUGGING_FACE_HUB_TOKEN", True),
        ("VLLM_API_KEY", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("AWS_ACCESS_KEY_ID", True),
        ("PGPASSWORD", True),
        ("HTTP_AUTHORIZATION", True),
        ("client_secret", True),
        ("--api-key", True),
        ("--hf-token=abc", True),
        ("TOKENIZERS_PARALLELISM", False),
        ("VLLM_MAX_TOKENS_PER_EXPERT_FP4_MOE", False),
        ("KEYBOARD", False),
        ("--tokenizer", False),
        ("--max-num-batched-tokens", False),
        ("PWD", False),
    ],
)
def test_names_say_what_is_secret(name: str, secret: bool) -> None:
    assert is_secret(name) == secret


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("it is plainsecretvalue!", "it is <redacted>!"),
        ('a JSON string "hun/ter\\"2 x"', 'a JSON string "<redacted>"'),
        ("?q=hun%2Fter%222%20x", "?q=<redacted>"),
        ("MIIEvQIBADANBg", "<redacted>"),
        ("hf_abcdefghijklmnopqrstu", "<redacted>"),
        ("sk-proj-abcdefghijklmnop123.", "<redacted>."),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "<redacted>"),
        ("github_pat_11ABCDEFG0abcdefghijkl", "<redacted>"),
        ("AKIAIOSFODNN7EXAMPLE", "<redacted>"),
        ("Authorization: Bearer abcdefgh.ijk", "Authorization: Bearer <redacted>"),
        ("{'Authorization': 'Basic dXNlcjpwYXNz'}", "{'Authorization': 'Basic <redacted>'}"),
        ("http://user:pa55@host/x", "http://<redacted>@host/x"),
        ("serve --api-key s3 --tokenizer foo", "serve --api-key <redacted> --tokenizer foo"),
        ('"--api-key", "s3kr1t"', '"--api-key", "<redacted>"'),
        ("{'api_key': ['s3kr1t'], 'model': 'm'}", "{'api_key': ['<redacted>'], 'model': 'm'}"),
        ("export WANDB_API_KEY=abc", "export WANDB_API_KEY=<redacted>"),
    ],
)
def test_text_loses_its_secrets(text: str, clean: str) -> None:
    assert redact_text(text, ENVIRONMENT) == clean
    assert redact_text(clean, ENVIRONMENT) == clean


SECRET_NAMES = (
    "--api-key",
    "--token",
    "--hf_token",
    "'api_key'",
    "'client-secret'",
    "HF_TOKEN",
    "Authorization",
    "passw\u0131d",
)
SPACES = (" ", "\n", "=", ": ", ":\n[", '"', ",\n", "\n\n")
PLAIN_WORDS = (
    "12 tokens/s",
    "key",
    "basic",
    "bearer",
    "<redacted>",
    "(x)",
    "50%.",
    "task-abcdefghijklmnopqrst",
    "\u017fecret",
)
TOKENS = ("hf_abcdefghijklmnopqrst", "AKIAIOSFODNN7EXAMPLE", "Bearer abcdefgh.ijk", "http://u:p@h", "http://h", "me@h")


@given(st.lists(st.sampled_from([*SECRET_NAMES, *SPACES * 2, *PLAIN_WORDS, *TOKENS]), max_size=30).map("".join))
@example("\u017fecret: 'x'\n'api-\u212aey': 'value'")
def test_secrets_are_found_in_chunks_as_in_the_whole_text(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redaction, "_CHUNK", 3)
        assert redact_text(text, {}) == redaction._BEHIND.sub(
            r"\1<redacted>", redaction._SHAPES.sub("<redacted>", text)
        )


@pytest.mark.parametrize(
    "text",
    [
        "--max-num-batched-tokens 131072 --tokenizer foo",
        "{'eos_token': '<eos>', 'tokenizer': 'y', 'hf_token': None, 'token': 300}",
        "the bearer of bad news, task-abcdefghijklmnopqrst",
        "http://127.0.0.1:8000/v1 and me@somewhere",
        "EMPTY means none",
        "eos_token = 1, cache_key=abc",
    ],
)
def test_text_without_secrets_stays(text: str) -> None:
    assert redact_text(text, ENVIRONMENT) == text


def test_a_command_may_have_several_keys() -> None:
    words = ["vllm", "--api-key", "a", "b", "--model", "m", "--hf-token=xyz", "--served-model-name", "plainsecretvalue"]
    clean = ["vllm", "--api-key", "<redacted>", "<redacted>", "--model", "m", "--hf-token=<redacted>"]
    assert redact_command(words, ENVIRONMENT) == [*clean, "--served-model-name", "<redacted>"]


def test_an_environment_keeps_its_names() -> None:
    clean = redact_environment(ENVIRONMENT | {"OMP_NUM_THREADS": "2"}, ENVIRONMENT)
    assert clean.keys() == {*ENVIRONMENT, "OMP_NUM_THREADS"}
    assert {name for name, value in clean.items() if value == "<redacted>"} == {*ENVIRONMENT} - {
        "VLLM_MAX_NUM_BATCHED_TOKENS"
    }


def test_facts_keep_what_merely_stands_behind_a_name() -> None:
    facts = {"arguments": {"password": "p4ss"}, "text": '{"password": "p4ss"}', "n": 3, "said": ["plainsecretvalue"]}
    assert redact_document(facts, ENVIRONMENT) == facts | {"said": ["<redacted>"]}


def test_a_file_is_rewritten_where_it_must_be(tmp_path: Path) -> None:
    log, binary = tmp_path / "a.log", tmp_path / "b.bin"
    log.write_bytes(b"\xff plainsecretvalue\n")
    binary.write_bytes(b"\0plainsecretvalue")
    for path in (log, binary, tmp_path / "gone"):
        redact_file(path, ENVIRONMENT)
    assert log.read_bytes() == b"\xff <redacted>\n"
    assert binary.read_bytes() == b"\0plainsecretvalue"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "b.bin"]


def test_a_file_is_read_again_only_where_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, read = tmp_path / "a.log", []

    def count(text: str, environment: dict[str, str]) -> str:
        read.append(text)
        return redact_text(text, environment)

    monkeypatch.setattr(redaction, "redact_text", count)
    log.write_text("plainsecretvalue another-secret")
    for _ in range(2):
        redact_file(log, ENVIRONMENT)
    assert len(read) == 1
    redact_file(log, ENVIRONMENT | {"OTHER_TOKEN": "another-secret"})
    assert log.read_text() == "<redacted> <redacted>"
    with log.open("a") as file:
        file.write(" plainsecretvalue")
    redact_file(log, ENVIRONMENT)
    assert log.read_text() == "<redacted> <redacted> <redacted>"


def test_a_log_is_read_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "plainsecretvalue")
    (tmp_path / "mtp.log").write_text("ValueError: plainsecretvalue is no token")
    assert logs.telling_line(logs.read(tmp_path / "mtp.log")) == "ValueError: <redacted> is no token"


def test_a_profile_holds_no_secrets(tmp_path: Path) -> None:
    fixtures = ROOT / "fixtures"
    hardware, pair = tmp_path / "mine.toml", tmp_path / "two.toml"
    text = (fixtures / "hardware/cpu.toml").read_text()
    assert "[environment]" in text
    hardware.write_text(text.replace("[environment]", '[environment]\nHF_TOKEN = "abc"'))
    with pytest.raises(UsageError, match=r'mine\.toml: key "environment" has HF_TOKEN, a secret'):
        load_hardware(hardware)
    pair.write_text('target = "./t"\ndraft = "./d"\nk = 4\nquantisation = "nvfp4"\nserve_args = ["--api-key", "abc"]\n')
    with pytest.raises(UsageError, match=r'two\.toml: key "serve_args" has --api-key, a secret'):
        load_pair(pair)


class Changing(dict[str, str]):
    """An environment from which pytest removes a variable while another thread reads it."""

    def __getitem__(self, name: str) -> str:
        raise KeyError(name)

    def items(self) -> Any:
        return ((name, self[name]) for name in self)


def test_an_environment_may_change_meanwhile() -> None:
    assert redact_text("hello", Changing(A_TOKEN="secret-word")) == "hello"
