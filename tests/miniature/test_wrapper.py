"""The miniature's target in the multimodal wrapper: the same text model under another name, beside a small tower."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Gemma4ForCausalLM, Gemma4ForConditionalGeneration

from conformance.checkpoints import pairing, quantisation
from conformance.checkpoints.headers import read_headers, read_json
from conformance.errors import UsageError
from conformance.miniature.wrapper import MINIATURE, main, wrap


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrapped")
    for name in ("target-bf16", "target-nvfp4"):
        wrap(MINIATURE / name, folder / name)
    return folder


def test_transformers_reads_the_same_text_model_from_it(wrapped: Path) -> None:
    ids = torch.arange(110, 140)[None]
    plain = Gemma4ForCausalLM.from_pretrained(MINIATURE / "target-bf16", dtype=torch.float32)
    other = Gemma4ForConditionalGeneration.from_pretrained(wrapped / "target-bf16", dtype=torch.float32)
    with torch.no_grad():
        assert torch.allclose(plain(input_ids=ids).logits, other(input_ids=ids).logits, atol=1e-4)


@pytest.mark.parametrize("name", ["target-bf16", "target-nvfp4"])
def test_nothing_forbids_serving_it_with_the_draft(wrapped: Path, name: str) -> None:
    assert pairing.refusals(wrapped / name, MINIATURE / "draft") == []


def test_its_quantisation_settings_fit_its_tensors(wrapped: Path) -> None:
    folder = wrapped / "target-nvfp4"
    held = {name: (tensor.dtype, tensor.shape) for name, tensor in read_headers(folder).items()}
    settings = read_json(folder / "config.json")
    assert quantisation.objections(settings, None, held) == []
    assert "model.language_model.layers.0.mlp*" in settings["quantization_config"]["ignore"]


def test_what_is_no_text_model_is_refused(
    wrapped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="give a text model"):
        wrap(wrapped / "target-bf16", tmp_path)
    monkeypatch.setattr("sys.argv", ["wrapper", "--source", str(wrapped), "--into", str(tmp_path)])
    assert main() == 2
    assert "give a text model" in capfd.readouterr().err
