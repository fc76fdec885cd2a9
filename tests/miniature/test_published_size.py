"""The pair of published size with random weights: tried on the miniature's sizes, which are made in a second."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from support.paths import ROOT
from transformers import AutoTokenizer

from conformance.checkpoints import pairing, quantisation
from conformance.checkpoints.headers import read_headers, read_json
from conformance.checkpoints.small_files import special_tokens
from conformance.errors import UsageError
from conformance.miniature.published_size import (
    QUANTISATION,
    TOKENIZER,
    Maker,
    main,
    make,
    resized,
    target_config,
    write_draft,
    write_target,
)
from conformance.profile.facts import MINIATURE, load_facts

FACTS = load_facts()
DRAFT, TARGET = FACTS.miniature
CONFIG = target_config(TARGET, FACTS.quantisations[QUANTISATION])
TOKENS = FACTS.tokens.of(MINIATURE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, maker = tmp_path_factory.mktemp("random"), Maker.of("cpu", seed=3)
    write_target(folder / "target", CONFIG, maker, TOKENS)
    shapes = {name: shape for name, (_, shape) in DRAFT.tensors.items()}
    write_draft(folder / "draft", DRAFT.config, shapes, maker, TOKENS)
    return folder


def test_nothing_forbids_serving_it(made: Path) -> None:
    assert pairing.refusals(made / "target", made / "draft") == []


def test_its_tensors_are_those_of_a_modelopt_file(made: Path) -> None:
    held = {name: (tensor.dtype, tensor.shape) for name, tensor in read_headers(made / "target").items()}
    assert quantisation.objections(read_json(made / "target" / "config.json"), None, held) == []
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
    write_target(tmp_path, CONFIG, Maker.of("cpu", seed=3), TOKENS)
    for path in sorted(tmp_path.glob("*.safetensors")):
        with safe_open(path, "pt") as mine, safe_open(made / "target" / path.name, "pt") as theirs:
            for name in mine.keys():  # noqa: SIM118
                assert mine.get_tensor(name).equal(theirs.get_tensor(name))


@pytest.mark.parametrize("size", ["31B", "27B"])
def test_a_size_without_experts_is_refused_by_name(tmp_path: Path, size: str) -> None:
    with pytest.raises(UsageError, match="choose 26B-A4B"):
        make(tmp_path, size, "cpu")


def test_the_command_says_so_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["published_size", "--size", "E2B", "--into", str(tmp_path)])
    assert main() == 2
    assert '"E2B" is not a published size with routed experts' in capfd.readouterr().err
