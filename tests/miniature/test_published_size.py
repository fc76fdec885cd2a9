"""The pair of published size with random weights: tried on the miniature's sizes, which are made in a second."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open
from support.paths import ROOT
from transformers import AutoTokenizer

from conformance.checkpoints import pairing, quantisation
from conformance.checkpoints.headers import read_headers, read_json
from conformance.errors import UsageError
from conformance.miniature.published_size import (
    QUANTISATION,
    Maker,
    main,
    make,
    target_config,
    write_draft,
    write_target,
)
from conformance.profile.facts import load_facts

FACTS = load_facts()
DRAFT, TARGET = FACTS.miniature
CONFIG = target_config(TARGET, FACTS.quantisations[QUANTISATION])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, maker = tmp_path_factory.mktemp("random"), Maker.of("cpu", seed=3)
    write_target(folder / "target", CONFIG, maker)
    write_draft(folder / "draft", DRAFT.config, {name: shape for name, (_, shape) in DRAFT.tensors.items()}, maker)
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


def test_the_same_seed_gives_the_same_numbers(made: Path, tmp_path: Path) -> None:
    write_target(tmp_path, CONFIG, Maker.of("cpu", seed=3))
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
