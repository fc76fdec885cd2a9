"""What runs inside vLLM: it reports what is there, notices what is not, and changes nothing it looks at."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import conformance.inside_vllm
from conformance.errors import Unsupported
from conformance.inside_vllm import adapters, geometry, plugin, probe, snapshot
from conformance.inside_vllm.capture import TOP, Capture


class Fused(nn.Module):
    """A linear layer as vLLM fuses gate and up."""

    def __init__(self, rows: list[int], columns: int) -> None:
        super().__init__()
        self.output_partition_sizes = rows
        self.weight = nn.Parameter(torch.randn(sum(rows), columns, dtype=torch.bfloat16))


class Vocabulary(nn.Module):
    """An embedding whose rows are padded."""

    def __init__(self, rows: int, padded: int, columns: int) -> None:
        super().__init__()
        self.org_vocab_size = rows
        self.weight = nn.Parameter(torch.randn(padded, columns))


class Model(nn.Module):
    """A stand-in for a freshly loaded draft."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = Fused([6, 6], 4)
        self.embed_tokens = Vocabulary(10, 64, 4)
        self.lm_head = nn.Linear(4, 64, bias=False)
        self.lm_head.weight = self.embed_tokens.weight
        self.register_buffer("layer_scalar", torch.ones(1))
        self.register_buffer("normalizer", torch.tensor(2.0), persistent=False)


DRAFT, TARGET = SimpleNamespace(runner_type="draft"), SimpleNamespace(runner_type="generate")


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in for vLLM's loader module, which counts its calls and empties the weights as vLLM's CPU does."""
    module = ModuleType("base_loader")
    module.calls = []  # type: ignore[attr-defined]

    def process_weights_after_loading(model: nn.Module, model_config: Any, target_device: str) -> str:
        module.calls.append((model, model_config, target_device))
        for parameter in model.parameters():
            parameter.data = torch.empty(0)
        return "done"

    module.process_weights_after_loading = process_weights_after_loading  # type: ignore[attr-defined]
    monkeypatch.setattr(adapters, "loader", lambda: module)
    return module


# The snapshot


def test_snapshot_tells_shapes_dtypes_kinds_and_aliases() -> None:
    seen = snapshot.parameters(Model(), hashed=False)
    assert seen == {
        "gate_up_proj.weight": {"kind": "parameter", "shape": [12, 4], "dtype": "bfloat16", "aliases": []},
        "embed_tokens.weight": {
            "kind": "parameter",
            "shape": [64, 4],
            "dtype": "float32",
            "aliases": ["lm_head.weight"],
        },
        "layer_scalar": {"kind": "buffer", "shape": [1], "dtype": "float32", "aliases": []},
    }


def test_snapshot_hashes_the_parts_that_the_checkpoint_has() -> None:
    model = Model()
    seen = snapshot.parameters(model, hashed=True)
    gate, up = model.gate_up_proj.weight[:6], model.gate_up_proj.weight[6:]
    assert seen["gate_up_proj.weight"]["parts"] == [snapshot.sha256(gate), snapshot.sha256(up)]
    assert seen["embed_tokens.weight"]["parts"] == [snapshot.sha256(model.embed_tokens.weight[:10])]
    assert "parts" not in seen["layer_scalar"]


def test_snapshot_sees_one_changed_byte() -> None:
    model = Model()
    before = snapshot.parameters(model, hashed=True)
    model.gate_up_proj.weight.data.view(torch.uint8)[11, 7] ^= 1
    after = snapshot.parameters(model, hashed=True)
    changed = [name for name in before if before[name] != after[name]]
    assert changed == ["gate_up_proj.weight"]
    first, second = zip(before[changed[0]]["parts"], after[changed[0]]["parts"], strict=True)
    assert first[0] == first[1]  # gate
    assert second[0] != second[1]  # up


def test_snapshot_does_not_call_equal_tensors_aliases() -> None:
    model = nn.ModuleDict({name: nn.Linear(2, 2, bias=False) for name in ("a", "b")})
    model["b"].load_state_dict(model["a"].state_dict())
    assert list(snapshot.parameters(model, hashed=True)) == ["a.weight", "b.weight"]


def test_loading_goes_on_unchanged_under_the_snapshot(loader: Any, tmp_path: Path) -> None:
    snapshot.install(tmp_path)
    model = Model()
    expected = snapshot.parameters(model, hashed=True)
    assert loader.process_weights_after_loading(model, DRAFT, target_device="cpu") == "done"
    assert loader.calls == [(model, DRAFT, "cpu")]
    seen = snapshot.read(tmp_path)["models"]["draft"]
    assert seen["class"] == "Model"
    assert seen["parameters"] == expected


def test_a_failing_snapshot_does_not_fail_the_server(
    loader: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    snapshot.install(tmp_path / "file")
    assert loader.process_weights_after_loading(Model(), DRAFT, "cpu") == "done"
    assert "no snapshot of Model" in caplog.text


def test_only_a_draft_is_hashed(loader: Any, tmp_path: Path) -> None:
    snapshot.install(tmp_path)
    loader.process_weights_after_loading(Model(), TARGET, "cpu")
    loader.process_weights_after_loading(Model(), DRAFT, "cpu")
    models = snapshot.read(tmp_path)["models"]
    assert all("sha256" not in entry for entry in models["target"]["parameters"].values())
    assert all("sha256" in entry for entry in models["draft"]["parameters"].values())


def test_a_target_begins_the_file_anew(loader: Any, tmp_path: Path) -> None:
    snapshot.install(tmp_path)
    loader.process_weights_after_loading(Model(), TARGET, "cpu")
    loader.process_weights_after_loading(Model(), DRAFT, "cpu")
    loader.process_weights_after_loading(Model(), TARGET, "cpu")
    assert list(snapshot.read(tmp_path)["models"]) == ["target"]


def test_installing_twice_records_once(loader: Any, tmp_path: Path) -> None:
    snapshot.install(tmp_path)
    once = loader.process_weights_after_loading
    snapshot.install(tmp_path)
    assert loader.process_weights_after_loading is once


# Adapters and probe


class MovedRunner:
    """A model runner of some later vLLM, in which the draft hangs elsewhere."""

    def __init__(self) -> None:
        self.model = Model()


def worker(runner: Any) -> Any:
    compilation = SimpleNamespace(static_forward_context={})
    config = SimpleNamespace(speculative_config=object(), compilation_config=compilation)
    return SimpleNamespace(model_runner=runner, vllm_config=config)


def test_a_moved_attribute_is_unsupported_with_version_and_name() -> None:
    with pytest.raises(Unsupported, match="speculator in MovedRunner") as raised:
        adapters.draft_model(worker(MovedRunner()))
    assert adapters.vllm_version() in str(raised.value)


@pytest.mark.parametrize(
    ("module", "name"), [("vllm.no_such_module", "Thing"), ("vllm.version", "no_such_name")], ids=["module", "name"]
)
def test_a_moved_name_is_unsupported_with_version_and_name(module: str, name: str) -> None:
    with pytest.raises(Unsupported, match=f"{module}.{name}") as raised:
        adapters.upstream(module, name)
    assert adapters.vllm_version() in str(raised.value)


def test_a_module_that_cannot_be_imported_is_no_matter_of_the_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_installed.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="no_such_library"):
        adapters.upstream("half_installed", "anything")


@pytest.mark.parametrize("holder", ["drafter", "speculator"])
def test_the_draft_is_found_in_both_runners(holder: str) -> None:
    draft = Model()
    runner = SimpleNamespace(model=Model(), **{holder: SimpleNamespace(model=draft)})
    assert adapters.draft_model(worker(runner)) is draft


@pytest.mark.parametrize(
    ("drafter", "constant"),
    [
        (SimpleNamespace(constant_draft_positions=True), True),
        (SimpleNamespace(constant_draft_positions=False), False),
        (SimpleNamespace(advance_draft_positions=False), True),
        (SimpleNamespace(advance_draft_positions=True), False),
    ],
)
def test_constant_positions_are_told_by_either_name(drafter: Any, constant: bool) -> None:
    assert adapters.constant_draft_positions(worker(SimpleNamespace(drafter=drafter))) is constant


def test_an_embedding_of_its_own_is_told_from_the_targets() -> None:
    target = SimpleNamespace(model=SimpleNamespace(embed_tokens=object()))
    draft = SimpleNamespace(model=SimpleNamespace(embed_tokens=target.model.embed_tokens))
    subject = worker(SimpleNamespace(model=target, drafter=SimpleNamespace(model=draft)))
    assert adapters.draft_embedding_is_targets(subject)
    draft.model.embed_tokens = object()
    assert not adapters.draft_embedding_is_targets(subject)


def test_a_description_survives_a_moved_name() -> None:
    described = probe.Probe.conformance_describe(worker(MovedRunner()))
    assert described["target_class"] == "Model"
    assert "speculator" in described["draft_class"]["unsupported"]
    json.dumps(described)


def test_a_server_without_draft_is_described_with_nulls() -> None:
    subject = worker(MovedRunner())
    subject.vllm_config.speculative_config = None
    described = probe.Probe.conformance_describe(subject)
    assert {described[name] for name in described if name.startswith("draft")} == {None}


def test_a_snapshot_that_was_not_asked_for_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(plugin.SNAPSHOT_DIRECTORY, raising=False)
    assert plugin.SNAPSHOT_DIRECTORY in probe.Probe().conformance_snapshot()["unsupported"]


def test_a_snapshot_that_was_not_taken_is_unsupported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(plugin.SNAPSHOT_DIRECTORY, str(tmp_path))
    assert str(tmp_path) in probe.Probe().conformance_snapshot()["unsupported"]


# The capture of draft steps


class Predictor(nn.Module):
    """The draft's layers; they return the draft's hidden states and those of the target's width."""

    def forward(self, input_ids: torch.Tensor, **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return input_ids[:, None] * torch.ones(4), torch.zeros(len(input_ids), 8)


class DenseHead(nn.Module):
    """``LogitsProcessor``: called with the head and the hidden states."""

    def forward(self, head: nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
        return head(hidden)  # type: ignore[no-any-return]


class MaskedHead(nn.Module):
    """``Gemma4MTPMaskedEmbedder``: called with the hidden states and the head's weight."""

    def forward(self, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        logits = hidden @ weight.T
        return logits.masked_fill(torch.arange(len(weight)) < TOP, torch.finfo(logits.dtype).min)


class Draft(nn.Module):
    """A draft that computes its logits as ``Gemma4MTP.compute_logits`` does."""

    def __init__(self, masked: MaskedHead | None) -> None:
        super().__init__()
        self.model, self.logits_processor, self.masked_embedding = Predictor(), DenseHead(), masked
        self.lm_head = nn.Linear(4, 64, bias=False)

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.masked_embedding is None:
            return self.logits_processor(self.lm_head, hidden)  # type: ignore[no-any-return]
        return self.masked_embedding(hidden, self.lm_head.weight)  # type: ignore[no-any-return]


def worker_of(draft: Draft, **drafter: Any) -> SimpleNamespace:
    config = SimpleNamespace(model_config=SimpleNamespace(enforce_eager=True))
    runner = SimpleNamespace(speculator=SimpleNamespace(model=draft, **drafter))
    return SimpleNamespace(vllm_config=config, model_runner=runner)


@pytest.mark.parametrize("masked", [None, MaskedHead()], ids=["all tokens", "the likeliest clusters"])
def test_the_logits_of_both_kinds_of_draft_are_captured(masked: MaskedHead | None, tmp_path: Path) -> None:
    draft = Draft(masked)
    capture = Capture(worker_of(draft))
    hidden, _ = draft.model(torch.tensor([1, 2]), positions=torch.tensor([0, 1]), hidden_states=torch.zeros(2, 8))
    logits = draft.compute_logits(hidden)
    assert capture.end(tmp_path / "capture.safetensors") == 1
    draft.compute_logits(hidden)  # nothing is recorded after the end
    found = load_file(tmp_path / "capture.safetensors")
    assert {name.split(".")[0] for name in found} == {"call", "logits"}
    assert torch.equal(found["logits.00000.hidden"], hidden)
    assert torch.equal(found["logits.00000.values"], logits.topk(TOP).values)


def test_a_head_with_graphs_of_its_own_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="has CUDA graphs for the draft's head even with --enforce-eager"):
        Capture(worker_of(Draft(MaskedHead()), _centroids_sizes=[1, 2, 4]))


# The plugin


def test_vllm_finds_the_plugin() -> None:
    found = [point.value for point in entry_points(group="vllm.general_plugins") if point.name == "conformance"]
    assert found == ["conformance.inside_vllm.plugin:register"]


def test_importing_the_plugin_imports_neither_torch_nor_vllm() -> None:
    code = "import sys, conformance.inside_vllm.plugin; print(sorted({'torch', 'vllm'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_registering_twice_is_registering_once(
    pristine: Any, loader: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(plugin.SNAPSHOT_DIRECTORY, str(tmp_path))
    plugin.register()
    installed = pristine.modelopt.ModelOptNvFp4Config.FusedMoEMethodCls, loader.process_weights_after_loading
    plugin.register()
    assert installed == (pristine.modelopt.ModelOptNvFp4Config.FusedMoEMethodCls, loader.process_weights_after_loading)
    assert len(pristine.kernels[pristine.cpu]) == 1


def test_the_plugin_does_nothing_on_a_gpu_unasked(pristine: Any, loader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = loader.process_weights_after_loading
    monkeypatch.delenv(plugin.SNAPSHOT_DIRECTORY, raising=False)
    monkeypatch.setattr(adapters, "on_cpu", lambda: False)
    plugin.register()
    assert pristine.modelopt.ModelOptNvFp4Config.FusedMoEMethodCls is pristine.modelopt.ModelOptNvFp4FusedMoE
    assert pristine.cpu not in pristine.kernels
    assert loader.process_weights_after_loading is before


def test_a_moved_loader_costs_the_snapshot_only(
    pristine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def moved() -> Any:
        return adapters.upstream("vllm.model_executor.model_loader", "no_such_loader")

    monkeypatch.setenv(plugin.SNAPSHOT_DIRECTORY, str(tmp_path))
    monkeypatch.setattr(adapters, "loader", moved)
    with caplog.at_level("WARNING", logger="vllm.conformance"):
        plugin.register()
    assert "no_such_loader" in caplog.text
    assert pristine.cpu in pristine.kernels


@pytest.mark.usefixtures("loader")
def test_a_moved_name_costs_the_last_resort_only(
    pristine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(conformance.inside_vllm, "cpu_nvfp4", raising=False)
    monkeypatch.setitem(sys.modules, "conformance.inside_vllm.cpu_nvfp4", None)
    with caplog.at_level("WARNING", logger="vllm.conformance"):
        plugin.register()
    assert f"no NVFP4 on the CPU with vLLM {adapters.vllm_version()}" in caplog.text
    assert pristine.cpu not in pristine.kernels


# The geometry


PYDANTIC = "1 validation error for M\n  Value error, fp8 is off. [type=value_error, x=1]\n    For more information"
SEVERAL_LINES = "Failed to find a kernel. Reasons:\n  K: for GPUs only\n"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError(PYDANTIC), "fp8 is off"),
        (ValueError(SEVERAL_LINES), "Failed to find a kernel. Reasons: K: for GPUs only"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_what_vllm_says_fits_in_one_line(error: Exception, sentence: str) -> None:
    assert geometry._said(error) == sentence


def test_a_refusal_is_unsupported_and_a_crash_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def raising(error: Exception) -> Any:
        def configure(*_: Any) -> Any:
            raise error

        return configure

    monkeypatch.setattr(adapters, "vllm_version", lambda: "9")
    said = {}
    for error in (
        ValueError("no fp8"),
        NotImplementedError("no"),
        Unsupported("vLLM 9 has no x."),
        KeyError("head_dim"),
    ):
        monkeypatch.setattr(adapters, "engine_config", raising(error))
        said[type(error)] = geometry.build(tmp_path, tmp_path, 4, ExitStack())
    assert said == {
        ValueError: {"unsupported": "vLLM 9 does not accept this configuration: no fp8."},
        NotImplementedError: {"unsupported": "vLLM 9 does not accept this configuration: no."},
        Unsupported: {"unsupported": "vLLM 9 has no x."},
        KeyError: {"error": "KeyError: 'head_dim'"},
    }
