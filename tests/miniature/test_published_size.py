"""The pair of published size with random weights: tried on the miniature's sizes, and at its own without numbers."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest
from negative_controls.judge_documents import outcome
from safetensors import safe_open
from support.paths import ROOT
from transformers import AutoTokenizer

from conformance.checkpoints import pairing
from conformance.checkpoints.headers import read_headers, read_json
from conformance.checkpoints.quantisation import objections
from conformance.checkpoints.small_files import special_tokens
from conformance.errors import UsageError
from conformance.judging.verdict import Verdict
from conformance.miniature.published_size import (
    LAYOUTS,
    TOKENIZER,
    Maker,
    main,
    make,
    resized,
    shapes_of,
    target_config,
    write_draft,
    write_target,
)
from conformance.observers.checkpoint import describe
from conformance.profile.facts import load_facts
from conformance.profile.profile import load_pair

FACTS = load_facts()
MINIATURE = "micro-26b-a4b"
DRAFT, TARGET = FACTS.miniatures[MINIATURE]
TOKENS = FACTS.tokens.of(MINIATURE)
LAYOUT = LAYOUTS["nvfp4"]
CONFIG = target_config(TARGET, FACTS.quantisations[LAYOUT], TOKENS)
SIZE = "26B-A4B"
ABOUT_THE_PAIR = [f"CKPT-0{number}" for number in range(1, 9)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, maker = tmp_path_factory.mktemp("random"), Maker.of("cpu", seed=3)
    write_target(folder / "target", CONFIG, LAYOUT, maker, TOKENS)
    shapes = {name: shape for name, (_, shape) in DRAFT.tensors.items()}
    write_draft(folder / "draft", DRAFT.config, shapes, maker, TOKENS)
    return folder


def test_nothing_forbids_serving_it(made: Path) -> None:
    assert pairing.refusals(made / "target", made / "draft") == []


def test_its_tensors_are_those_of_a_modelopt_file(made: Path) -> None:
    held = {name: (tensor.dtype, tensor.shape) for name, tensor in read_headers(made / "target").items()}
    assert objections(read_json(made / "target" / "config.json"), None, held) == []
    shipped = read_headers(ROOT / "fixtures/models/micro-26b-a4b/target-nvfp4")
    assert held == {name: (tensor.dtype, tensor.shape) for name, tensor in shipped.items()}


def test_every_token_has_a_name(made: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(made / "target")
    assert len(tokenizer) == CONFIG["vocab_size"]


def test_it_stops_where_an_instruction_tuned_target_stops(made: Path) -> None:
    for role in ("target", "draft"):
        assert read_json(made / role / "generation_config.json")["eos_token_id"] == [1, 106, 50]


def test_special_tokens_have_the_published_ids(tmp_path: Path) -> None:
    tokens, vocabulary = FACTS.tokens.of("26B-A4B"), FACTS.targets["26B-A4B"].text_config["vocab_size"]
    small = json.loads((TOKENIZER / "tokenizer.json").read_text(encoding="utf-8"))
    made = resized(small, vocabulary, tokens)
    assert {row["content"]: row["id"] for row in made["added_tokens"]}.items() >= tokens.items()
    assert sorted(made["model"]["vocab"].values()) == list(range(vocabulary))
    assert {name: made["model"]["vocab"][name] for name in tokens} == tokens
    (tmp_path / "tokenizer.json").write_text(json.dumps(made), encoding="utf-8")
    held = special_tokens(tmp_path)
    assert held is not None
    assert {name: held[name] for name in tokens} == tokens


def test_the_same_seed_gives_the_same_numbers(made: Path, tmp_path: Path) -> None:
    write_target(tmp_path, CONFIG, LAYOUT, Maker.of("cpu", seed=3), TOKENS)
    for path in sorted(tmp_path.glob("*.safetensors")):
        with safe_open(path, "pt") as mine, safe_open(made / "target" / path.name, "pt") as theirs:
            for name in mine.keys():  # noqa: SIM118
                assert mine.get_tensor(name).equal(theirs.get_tensor(name))


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pair at its own size, without numbers."""
    folder = tmp_path_factory.mktemp("published")
    make(folder, SIZE, "nvfp4", "meta")
    return folder


@pytest.fixture(scope="module")
def observed(headers: Path) -> dict[str, Any]:
    """What level static observes of it."""
    cases = FACTS.chat_template.case
    refused = pairing.refusals(headers / "target", headers / "draft")
    checkpoint = {role: describe(headers / role, cases, hashed=role == "draft") for role in ("target", "draft")}
    return {"checkpoint": checkpoint, "refusals": {"refusals": refused}}


def test_headers_alone_take_no_space(headers: Path) -> None:
    files = [path.stat() for path in headers.rglob("*.safetensors")]
    assert sum(file.st_size for file in files) > 18e9
    assert 512 * sum(file.st_blocks for file in files) < 30e6


def test_safetensors_reads_the_headers(headers: Path) -> None:
    with safe_open(next((headers / "target").glob("model-00002-*")), "pt") as file:
        assert any(name.endswith(".weight_scale") for name in file.keys())  # noqa: SIM118


@pytest.mark.parametrize(("size", "fewer", "idle"), [(SIZE, 0, 0), ("E2B", 60, 18_880_512), ("E4B", 54, 55_055_616)])
def test_its_modules_have_the_published_number_of_parameters(size: str, fewer: int, idle: int) -> None:
    config = target_config(FACTS.targets[size], FACTS.quantisations["bf16"], FACTS.tokens.of(size))
    shapes, totals = shapes_of(config), FACTS.targets[size].totals
    sizes = [prod(shape) for shape in shapes.values() if shape]
    assert (len(shapes) + fewer, sum(sizes) + idle) == (totals.tensors, totals.parameters)


@pytest.mark.parametrize("id", ABOUT_THE_PAIR)
def test_it_passes_the_checks_of_a_published_pair(observed: dict[str, Any], id: str) -> None:
    found = outcome(id, observed)
    assert found.verdict is Verdict.PASS, found.sentence


def only_text(target: dict[str, Any]) -> None:
    target["config"]["architectures"] = ["Gemma4ForCausalLM"]


def base_model(target: dict[str, Any]) -> None:
    target["generation_config"]["eos_token_id"] = 1


def small_ids(target: dict[str, Any]) -> None:
    target["special_tokens"]["<|image>"] = 1529


@pytest.mark.parametrize(("id", "damage"), [("CKPT-05", only_text), ("CKPT-07", base_model), ("CKPT-08", small_ids)])
def test_the_checks_see_a_pair_that_is_not(
    observed: dict[str, Any], id: str, damage: Callable[[dict[str, Any]], None]
) -> None:
    damaged = copy.deepcopy(observed)
    damage(damaged["checkpoint"]["target"])
    assert outcome(id, damaged).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("size", "quantisation"),
    [("E2B", "bf16"), ("12B", "bf16"), ("26B-A4B", "fp8"), ("31B", "bf16"), ("31B", "nvfp4"), ("31B", "fp8")],
)
def test_every_size_and_quantisation_is_sound(tmp_path: Path, size: str, quantisation: str) -> None:
    make(tmp_path, size, quantisation, "meta")
    held = {name: (tensor.dtype, tensor.shape) for name, tensor in read_headers(tmp_path / "target").items()}
    assert pairing.refusals(tmp_path / "target", tmp_path / "draft") == []
    assert objections(read_json(tmp_path / "target" / "config.json"), None, held) == []
    pair = load_pair(next(tmp_path.glob("*.toml")))
    assert (pair.name, pair.quantisation, pair.target) == (
        f"random-{size.lower()}-{quantisation}",
        quantisation,
        "./target",
    )
    if (size, quantisation) == ("31B", "bf16"):
        totals = FACTS.targets[size].totals
        sizes = [prod(shape) for _, shape in held.values() if shape]
        assert (len(sizes), sum(sizes)) == (totals.tensors, totals.parameters)
    if (size, quantisation) == ("31B", "nvfp4"):
        packed = sum(name.endswith(".weight_scale_2") for name in held)
        assert packed == FACTS.targets[size].quantised_linears["modelopt"]


def test_an_ordered_draft_holds_every_token_once() -> None:
    order = Maker.of("cpu", seed=1).plain("masked_embedding.token_ordering", (64,))
    assert sorted(order.tolist()) == list(range(64))
    assert order.tolist() != list(range(64))


def test_fp8_keeps_the_variance_of_what_goes_through() -> None:
    stored = dict(Maker.of("cpu", seed=1).quantised("fp8", "q_proj", (64, 512)))
    weight = stored["q_proj.weight"].float() * stored["q_proj.weight_scale"]
    assert weight.std().item() == pytest.approx(512**-0.5, rel=0.02)


@pytest.mark.parametrize(("size", "quantisation", "choice"), [("27B", "bf16", "E2B"), ("E2B", "int4", "bf16")])
def test_what_is_not_published_is_refused_by_name(tmp_path: Path, size: str, quantisation: str, choice: str) -> None:
    with pytest.raises(UsageError, match=f"is not known; choose one of {choice}"):
        make(tmp_path, size, quantisation, "cpu")


def test_the_command_says_so_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["published_size", "--size", "27B", "--into", str(tmp_path)])
    assert main() == 2
    assert '"27B" is not known' in capfd.readouterr().err
