"""Every check passes on a healthy run, FAILs with the right sentence on a damaged one, and is an ERROR on no data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from support import synthetic

from conformance import FIXTURES, PACKAGE
from conformance.judging.verdict import NO_FLOOR, Outcome, Verdict
from conformance.profile.workload_floors import load_workload_floors
from conformance.views.inside import Moe
from negative_controls.damages import DAMAGES, INSTRUMENTS, NOTHING, SINGLE_ANSWERS, features
from negative_controls.damages.answers import lose_questions
from negative_controls.judge_documents import FUNCTIONS, PROFILE, Documents, judged, outcome


@pytest.mark.parametrize("name", synthetic.healthy())
def test_the_healthy_documents_are_valid(name: str) -> None:
    schema = json.loads((PACKAGE / "observers" / f"{name.partition('-')[0]}.schema.json").read_text())
    Draft202012Validator(schema).validate(synthetic.healthy()[name])


@pytest.mark.parametrize("id", FUNCTIONS)
def test_a_healthy_run_passes(id: str) -> None:
    found = outcome(id, synthetic.healthy())
    assert found.verdict is Verdict.PASS, found
    assert found.findings
    assert all(finding.source.startswith("observations/") for finding in found.findings)


@pytest.mark.parametrize(("id", "damage", "sentence"), DAMAGES, ids=lambda value: getattr(value, "__name__", None))
def test_a_damaged_run_fails_with_the_right_sentence(
    id: str, damage: Callable[[Documents], None], sentence: str
) -> None:
    documents = synthetic.healthy()
    damage(documents)
    found = outcome(id, documents)
    assert found.verdict is Verdict.FAIL, found
    assert sentence in found.sentence


@pytest.mark.parametrize(("id", "empty", "sentence"), NOTHING, ids=lambda value: getattr(value, "__name__", None))
def test_nothing_to_judge_is_an_error(id: str, empty: Callable[[Documents], None], sentence: str) -> None:
    documents = synthetic.healthy()
    empty(documents)
    found = outcome(id, documents)
    assert found.verdict is Verdict.ERROR, found
    assert sentence in found.sentence


def test_every_check_has_its_negative_control() -> None:
    assert {id for id, _, _ in DAMAGES} | INSTRUMENTS == FUNCTIONS.keys()
    assert {id for id, _, _ in NOTHING} >= INSTRUMENTS
    assert {id for id, _, _ in NOTHING} | SINGLE_ANSWERS == FUNCTIONS.keys()


MOVED = {"unsupported": "vLLM 9 has no z in Gemma4MTP."}


def test_few_comparisons_are_inconclusive() -> None:
    documents = synthetic.healthy()
    documents["near_ties"]["compared"]["with_mtp"] = 30
    found = outcome("LOSS-01", documents)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "(n = 30; about " in found.sentence


def test_a_few_lost_questions_are_inconclusive_and_named() -> None:
    documents = synthetic.healthy()
    lose_questions(documents, 3)
    found = outcome("TASK-01", documents)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "-0.025 [-0.071, 0.007] may or may not reach -0.05 (n = 120; about " in found.sentence
    assert found.findings[0].note == (
        "right answers with MTP 115 of 120, without 118; both 115, only with 0, only without 3, neither 2; "
        "lost: question-000 (with MTP: get_weather({})), question-001 (with MTP: get_weather({})), "
        "question-002 (with MTP: get_weather({}))"
    )


def test_a_question_that_is_lost_for_another_that_is_won_is_no_loss() -> None:
    documents = synthetic.healthy()
    lose_questions(documents, 2)
    for row in documents["task_score"]["questions"][-2:]:
        row["mtp"]["calls"][0]["arguments"] = json.dumps(row["expected"][0]["arguments"])
    finding = outcome("TASK-01", documents).findings[0]
    assert finding.value == "0.000"
    assert "only with 2, only without 2, neither 0" in finding.note


def test_few_samples_are_inconclusive_and_enough_say_what_they_would_have_shown() -> None:
    documents = synthetic.healthy()
    (finding,) = outcome("LOSS-04", documents).findings
    assert finding.power == "fails a shift of 11% of the probability with probability 0.95"
    assert finding.note.startswith("largest")
    few = {"7 1 5": 20, "7 1 6": 10, "7 2 8": 12, "7 3 8": 8}
    row = documents["sampling"]["prompts"][0]
    row["mtp"]["samples"] = row["plain"]["samples"] = few
    documents["sampling"].update(seeds=50, prompts=[row])
    found = outcome("LOSS-04", documents)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert ", and at most 20% is allowed; take more samples" in found.sentence


def test_what_is_built_from_source_has_a_commit_and_no_version() -> None:
    documents = synthetic.healthy()
    for place in ("locked", "installed"):
        documents["environment"][place] |= {"transformers": "commit 2c7d385621c80fee70c1472f3a622fcba2c93fb9"}
    documents["environment"]["imported"]["transformers"] = "5.8.0.dev0"
    assert outcome("ENV-01", documents).verdict is Verdict.PASS


def test_the_machines_own_libraries_are_listed_and_the_rest_is_compared_with_the_lock() -> None:
    documents = synthetic.healthy()
    documents["environment"]["locked"] |= {"nvidia-cublas": "13.1.1.3", "nvidia-nvtx": "13.0.85"}
    own = {"nvidia-cublas": "13.1.0.3", "nvidia-nvtx": "13.0.85"}
    documents["environment"]["installed"] |= own
    documents["environment"]["machine_libraries"] = own
    finding = outcome("ENV-01", documents).findings[0]
    assert finding.verdict is Verdict.PASS
    assert finding.note == (
        "the machine's own NVIDIA libraries: nvidia-cublas 13.1.0.3 (lock: 13.1.1.3), nvidia-nvtx 13.0.85"
    )
    documents["environment"]["installed"]["rich"] = "14.0.0"
    assert outcome("ENV-01", documents).verdict is Verdict.FAIL


def test_torchs_module_may_name_the_build_that_its_distribution_does_not() -> None:
    documents = synthetic.healthy()
    for place in ("locked", "installed"):
        documents["environment"][place]["torch"] = "2.14.0"
    documents["environment"]["imported"]["torch"] = "2.14.0+cu130"
    assert outcome("ENV-01", documents).verdict is Verdict.PASS


def unconfigured(documents: Documents, *names: str) -> None:
    """Change some configurations, or all, into ones that this vLLM does not accept."""
    for configurations in documents["geometry"]["builds"].values():
        for name in names or list(configurations):
            configurations[name] = {"unsupported": "vLLM 0.32.0 does not accept this"}


def with_windows(**changes: Any) -> Callable[[Documents], None]:
    """Change every window of the soak."""
    return lambda documents: [window.update(changes) for window in documents["soak"]["windows"]] and None


def with_gpus(**changes: Any) -> Callable[[Documents], None]:
    """Change the first GPU in every window of the soak."""
    return lambda documents: [window["gpus"][0].update(changes) for window in documents["soak"]["windows"]] and None


@pytest.mark.parametrize(
    ("id", "change", "reason"),
    [
        ("ENV-01", lambda d: d["environment"].update(locked=None), "This run is unlocked"),
        ("MOE-01", lambda d: d["moe"].update(vllm_version="0.20.0"), "names no MoE backend"),
        ("MOE-07", lambda d: d["moe"].update(vllm_version="0.20.0"), "names no MoE backend"),
        ("DRAFT-02", lambda d: d["draft_load"]["draft"].update(linears={"unsupported": "vLLM x has no y"}), "has no y"),
        (
            "MOE-01",
            lambda d: d["moe"]["layers"]["model.layers.3.moe.experts"].update(backend={"unsupported": "no z"}),
            "no z",
        ),
        ("DRAFT-08", lambda d: d["wiring"]["described"].update(constant_draft_positions=MOVED), "has no z"),
        ("DRAFT-07", lambda d: d["wiring"]["described"].update(draft_kv_sharing=MOVED), "has no z"),
        ("NUM-01", lambda d: d["numerics"].update(experts=MOVED, routers=MOVED), "has no z"),
        ("NUM-01", lambda d: d["numerics"].update(backends=dict.fromkeys(("l0", "l1"), "EMULATION")), "on EMULATION"),
        ("NUM-02", lambda d: d["numerics"].update(draft_linears=MOVED), "has no z"),
        (
            "CKPT-01",
            lambda d: d["checkpoint"]["draft"]["config"].update(quantization_config={"bits": 4}),
            "The draft is quantised",
        ),
        (
            "CKPT-04",
            lambda d: d["checkpoint"]["draft"]["config"].update(backbone_hidden_size=100),
            "The draft is none of",
        ),
        (
            "CKPT-04",
            lambda d: d["checkpoint"]["draft"]["config"].update(quantization_config={"bits": 4}),
            "The draft is quantised",
        ),
        ("CKPT-05", lambda d: d["checkpoint"]["target"]["config"].update(hidden_size=100), "The target is none of"),
        (
            "CKPT-07",
            lambda d: d["checkpoint"]["target"]["config"].update(num_hidden_layers=31),
            "The target is none of",
        ),
        ("CKPT-08", lambda d: d["checkpoint"]["target"]["config"].update(hidden_size=100), "The target is none of"),
        (
            "CKPT-06",
            lambda d: d["checkpoint"]["target"]["config"]["quantization_config"].update(quant_method="gptq"),
            'does not know the target\'s quantisation, quant_method "gptq" with "NVFP4"',
        ),
        ("GEOM-01", unconfigured, "vLLM 0.32.0 does not accept this"),
        (
            "FEATURE-14",
            lambda d: features.step(d, "second").pop("computed"),
            "An earlier version of this suite recorded",
        ),
        (
            "FEATURE-14",
            lambda d: features.step(d, "second").update(computed=None),
            "This vLLM does not count the tokens",
        ),
        (
            "SOAK-04",
            with_windows(resident_mib=None),
            "processes of the server and their memory cannot be observed from here",
        ),
        (
            "SOAK-05",
            with_windows(gpus=[]),
            "No busy GPU reports its clock and the reasons for lower clocks (NVIDIA H100 (SM 90",
        ),
        ("SOAK-05", with_gpus(reasons=None), "No busy GPU reports its clock"),
        ("SOAK-05", with_gpus(busy=0), "No busy GPU reports its clock"),
        ("SOAK-05", with_gpus(sm_clock_mhz=None), "No busy GPU reports its clock"),
    ],
)
def test_what_cannot_be_known_is_unsupported(id: str, change: Callable[[Documents], None], reason: str) -> None:
    documents = synthetic.healthy()
    change(documents)
    found = outcome(id, documents)
    assert found.verdict is Verdict.UNSUPPORTED, found
    assert reason in found.sentence


def test_seeds_that_change_as_often_without_mtp_are_noise_and_the_note_counts_equal_texts() -> None:
    documents = synthetic.healthy()
    for arm in ("mtp", "plain"):
        features.choice(features.sampled(documents, 0, arm)[1])["token_ids"][3] = 99
    (finding,) = outcome("FEATURE-12", documents).findings
    assert finding.verdict is Verdict.PASS
    assert finding.note == (
        "4 of 5 texts with MTP are those without, which vLLM does not promise; "
        "without MTP, 1 of 3 requests differ from themselves"
    )


def test_a_whole_number_is_one_number_to_json() -> None:
    documents = synthetic.healthy()
    row = documents["tools"]["prompts"][0]
    row["expected"]["arguments"] = {"rate": [329.0, {"half": 0.5}]}
    row["whole"]["calls"][0]["arguments"] = '{"rate": [329, {"half": 0.5}]}'
    row["streamed"]["calls"][0]["arguments"] = '{"rate": [329.0, {"half": 0.5}]}'
    assert outcome("TOOL-01", documents).verdict is Verdict.PASS
    assert outcome("TOOL-02", documents).verdict is Verdict.PASS
    row["whole"]["calls"][0]["arguments"] = '{"rate": [true, {"half": 0.5}]}'
    row["expected"]["arguments"] = {"rate": [1.0, {"half": 0.5}]}
    assert outcome("TOOL-01", documents).verdict is Verdict.FAIL


def test_another_model_as_draft_is_an_error_with_the_key() -> None:
    documents = synthetic.healthy()
    documents["checkpoint"]["draft"]["config"] = {"model_type": "llama"}
    assert outcome("CKPT-01", documents).verdict is Verdict.ERROR
    assert "implies no tensors" in outcome("CKPT-01", documents).sentence


def test_conditional_rates_and_noise_are_noted() -> None:
    (first, *_) = outcome("ACC-02", synthetic.healthy()).findings
    assert first.note.startswith("conditional acceptance, given the position before: 1.0")
    assert first.note.count(";") == 3
    (length,) = outcome("ACC-01", synthetic.healthy()).findings
    assert re.search(r"% of \d+ drafted tokens accepted; length by category: code 4\.\d\d, ", length.note)
    (sequential,) = outcome("SPEED-01", synthetic.healthy()).findings
    assert re.search(r"A/A, .* itself: 0\.990 \[0\.990, 0\.990\] \(n = 12\)", sequential.note)
    assert "client 0.0" in sequential.note


@pytest.mark.parametrize("id", ["SPEED-01", "SPEED-02"])
def test_published_speedups_are_no_floor_for_a_cpu_that_multiplies_token_by_token(id: str) -> None:
    documents = synthetic.healthy()
    documents["load"]["linear_fallback"] = "Failed to create oneDNN linear, fallback to torch linear."
    found = outcome(id, documents)
    assert found.verdict is Verdict.UNSUPPORTED
    assert found.findings[0].floor == NO_FLOOR
    assert "there is no floor, because this CPU lacks the BF16 instructions that oneDNN needs" in found.sentence


def test_where_mtp_pays_is_a_sentence() -> None:
    (first, *_) = outcome("SPEED-05", synthetic.healthy()).findings
    assert first.note.startswith("MTP is faster at k = 4 up to concurrency 17, the highest tested")


def test_counts_of_a_whole_round_do_where_vllm_counts_no_request() -> None:
    documents = synthetic.healthy()
    for each in documents["load"]["rounds"]:
        for answer in each["mtp"]["answers"]:
            answer["counts"] = None
    found = outcome("ACC-01", documents)
    assert found.verdict is Verdict.PASS
    assert found.findings[0].n == sum(synthetic.ROUNDS.values())


def test_costs_and_the_best_k_are_noted() -> None:
    (finding,) = outcome("SPEED-03", synthetic.healthy()).findings
    assert finding.note.startswith("target 7.00 ms a step, draft 1.01 ms a token, overhead 0.30 target steps; speedup")
    assert "; k = 4: 4.51, 13.13 ms, 2.40; k = 5: " in finding.note
    assert finding.note.endswith("k = 7 was the fastest with 2.60 times; the pair's k = 4 gives 2.40 times.")
    assert finding.interval is not None
    assert finding.interval[0] > 0.9


def test_captures_of_an_earlier_suite_are_judged_by_what_they_hold() -> None:
    documents = synthetic.healthy()
    del documents["parity"]["unrecognised"]
    for row in documents["parity"]["rows"]:
        del row["carried"]
    found = outcome("PARITY-01", documents)
    assert found.verdict is Verdict.PASS
    said = "an earlier version of this suite, which did not record the inputs of later steps and unrecognised proposals"
    assert [said in finding.note for finding in found.findings] == [True, True, False, False]
    assert [finding.note for finding in outcome("PARITY-01", synthetic.healthy()).findings] == [""] * 4


def test_one_proposal_in_fifty_may_be_lost() -> None:
    documents = synthetic.healthy()
    documents["parity"]["unrecognised"] += [{"rows": 1, "place": 9, "token": 7, "request": None}]
    assert outcome("PARITY-01", documents).verdict is Verdict.FAIL
    alone = [row for row in documents["parity"]["rows"] if row["rows"] == 1]
    documents["parity"]["rows"] += [
        row | {"place": row["place"] + 100, "position": row["place"] + 100} for row in alone * 3
    ]
    assert outcome("PARITY-01", documents).verdict is Verdict.PASS


def test_a_text_that_changes_with_k_is_noted() -> None:
    documents = synthetic.healthy()
    documents["sweep"]["rows"][-1]["token_ids"] = [1, 2]
    (finding,) = outcome("SPEED-03", documents).findings
    assert finding.note.endswith("Answers differ from those without MTP at k = 8.")


def test_clients_that_differ_by_noise_alone_are_no_error() -> None:
    documents = synthetic.healthy()
    for number, run in enumerate(documents["bench"]["runs"]):
        run["seconds"] *= (1.2 if number < 8 else 0.9) if run["client"] == "ours" else 1
    assert outcome("SPEED-04", documents).verdict is Verdict.INCONCLUSIVE


def test_coins_that_fall_differently_for_both_clients_are_no_error() -> None:
    documents = synthetic.healthy()
    for number, run in enumerate(documents["bench"]["runs"]):
        run["accepted"] += 40 * (number % 3 - 1) - (40 if run["client"] == "ours" else 0)
    assert outcome("SPEED-04", documents).verdict is not Verdict.ERROR


def test_both_clients_and_their_costs_are_noted() -> None:
    finding, _ = outcome("SPEED-04", synthetic.healthy()).findings
    assert "590.2 and 590.2 output tokens/s (+0.0%)" in finding.note
    assert "client CPU 0.111 and 0.111 s for 1,000 tokens" in finding.note


@pytest.mark.parametrize("id", ["GEOM-01", "GEOM-02", "GEOM-03"])
def test_configurations_that_cannot_be_had_are_named_beside_the_others_verdict(id: str) -> None:
    documents = synthetic.healthy()
    unconfigured(documents, "fp8")
    found = outcome(id, documents)
    assert found.verdict is Verdict.PASS
    assert "31B under fp8 is unsupported: vLLM 0.32.0 does not accept this" in found.findings[0].note


def test_a_targets_template_is_named_by_generation_and_hash() -> None:
    (finding,) = outcome("CKPT-09", synthetic.healthy()).findings
    assert finding.note == "T2, SHA-256 d55e4296e37b7ae4… (T2, the miniature's)"


def test_an_older_template_is_one_of_gemma_4s_too() -> None:
    documents = synthetic.healthy()
    template = documents["checkpoint"]["target"]["chat_template"]
    template.update(sha256=64 * "0", renders=synthetic.FACTS.chat_template.goldens("T1", True))
    found = outcome("CKPT-09", documents)
    assert found.verdict is Verdict.PASS
    assert found.findings[0].note == f"T1, SHA-256 {16 * '0'}… (new)"


def test_a_targets_size_decides_on_the_empty_thought_and_an_unknown_size_may_have_it_or_not() -> None:
    documents = synthetic.healthy()
    target = documents["checkpoint"]["target"]
    for thought in (True, False):
        target["chat_template"]["renders"] = synthetic.FACTS.chat_template.goldens("T2", thought)
        target["config"]["hidden_size"] = 100
        assert outcome("CKPT-09", documents).verdict is Verdict.PASS
        target["config"]["hidden_size"] = 128
        assert outcome("CKPT-09", documents).verdict is (Verdict.PASS if thought else Verdict.FAIL)


def test_a_backend_may_have_two_words_in_the_log() -> None:
    said = (
        "Using FlashInfer CUTLASS Unquantized MoE backend out of potential backends: ['FlashInfer TRTLLM', 'TRITON']."
    )
    logged = Moe.of(synthetic.moe() | {"log_lines": [said, "Using 'MARLIN' NvFp4 MoE backend."]}, PROFILE).logged()
    assert list(logged.values()) == ["FlashInfer CUTLASS", "MARLIN"]


def public_workload(documents: Documents) -> None:
    """The same answers to prompts of MT-Bench: two categories of many prompts."""
    for id, prompt in documents["load"]["prompts"].items():
        prompt["category"] = "mt-bench/coding" if id.startswith("code") else "mt-bench/writing"


def on_e4b(documents: Documents, k: int = 4) -> Outcome:
    special = {"workload_floors": lambda _: load_workload_floors(FIXTURES / "workloads", "gemma-4-e4b", k)}
    return judged("ACC-05", documents, special)


def test_acceptance_on_a_public_workload_is_shown_by_category_and_judged_as_a_whole() -> None:
    documents = synthetic.healthy()
    public_workload(documents)
    found = on_e4b(documents, 2)  # the made-up answers have more tokens a step than two drafted ones allow
    assert found.verdict is Verdict.PASS
    whole, coding, writing = found.findings
    assert re.match(r"acceptance length on mt-bench 4\.\d+ \[.*\] reaches 2.166", whole.sentence)
    assert [each.floor for each in (coding, writing)] == [NO_FLOOR, NO_FLOOR]
    assert "on mt-bench/coding 4." in coding.sentence
    assert whole.n == (coding.n or 0) + (writing.n or 0)


def test_acceptance_without_a_figure_for_its_k_is_measured_and_not_judged() -> None:
    documents = synthetic.healthy()
    public_workload(documents)
    found = on_e4b(documents, 4)
    assert found.verdict is Verdict.UNSUPPORTED
    assert "there is no floor, because no figure of this pair is known for mt-bench at k = 4" in found.sentence


def test_categories_that_were_counted_together_are_unsupported() -> None:
    documents = synthetic.healthy()
    for each in documents["load"]["rounds"]:
        for answer in each["mtp"]["answers"]:
            answer["counts"] = None
    found = outcome("ACC-05", documents)
    assert found.verdict is Verdict.UNSUPPORTED
    assert "This vLLM counts no single request" in found.sentence
