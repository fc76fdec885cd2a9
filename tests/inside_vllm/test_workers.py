"""Servers whose layers several workers share out: put together, every part is judged, and a wrong one is seen."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from negative_controls.faux_servers import PROFILE, recording
from negative_controls.faux_servers.checkpoints import write_file
from negative_controls.judge_documents import Documents, judged
from negative_controls.museum.show import Shown, on_show
from support import synthetic

from conformance.checkpoints.headers import read_headers
from conformance.inside_vllm import adapters
from conformance.judging.verdict import Verdict
from conformance.observers import OBSERVERS
from conformance.observers.draft_load import merge_workers
from conformance.profile.arms import MTP
from conformance.profile.profile import load_profile

DOWN, GATE_UP = "model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.gate_up_proj.weight"
TWO = ("--distributed-executor-backend", "mp", "--tensor-parallel-size", "2")


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def part(rank: int, *, rows: int, columns: int, dimension: int, name: str, fused: int = 1) -> dict[str, Any]:
    row = {"kind": "parameter", "shape": [rows, columns], "dtype": "bfloat16", "aliases": [], "shared_out": dimension}
    sums = {"sha256": sha(f"{name} {rank}")}
    return row | sums | ({"parts": [sha(f"{name} {i} {rank}") for i in range(fused)]} if fused > 1 else {})


def model(rank: int) -> dict[str, Any]:
    whole = {"kind": "parameter", "shape": [4], "dtype": "bfloat16", "aliases": [], "sha256": sha("norm")}
    parameters = {
        DOWN: part(rank, rows=4, columns=3, dimension=1, name="down"),
        GATE_UP: part(rank, rows=6, columns=4, dimension=0, name="gate_up", fused=2),
        "model.norm.weight": whole,
    }
    return {"class": "M", "parameters": parameters, "linears": {}, "moe": {}}


@pytest.fixture
def documents() -> Documents:
    """Of two workers that hold what the checkpoint does."""
    uneven: list[str] = []

    def tensor(shape: list[int], name: str, rows: list[str], columns: list[str]) -> dict[str, Any]:
        return {"dtype": "BF16", "shape": shape, "sha256": sha(name), "shares": [rows, columns]}

    def fused(index: int) -> list[str]:
        return [sha(f"gate_up {index} {rank}") for rank in range(2)]

    tensors = {
        DOWN: tensor([4, 6], "down", uneven, [sha(f"down {rank}") for rank in range(2)]),
        GATE_UP.replace("gate_up", "gate"): tensor([6, 4], "gate", fused(0), uneven),
        GATE_UP.replace("gate_up", "up"): tensor([6, 4], "up", fused(1), uneven),
        "model.norm.weight": {"dtype": "BF16", "shape": [4], "sha256": sha("norm")},
    }
    made = copy.deepcopy(synthetic.healthy())
    made["checkpoint"]["draft"]["tensors"] = tensors
    made["draft_load"]["draft"] = merge_workers([model(0), model(1)])
    return made


def test_parts_are_one_whole(documents: Documents) -> None:
    parameters = documents["draft_load"]["draft"]["parameters"]
    assert parameters[DOWN]["shape"] == [4, 6]
    assert parameters[GATE_UP]["shape"] == [12, 4]
    assert len(parameters[GATE_UP]["shares"]) == 2
    for id in ("DRAFT-01", "DRAFT-03"):
        assert judged(id, documents, {}).verdict == Verdict.PASS, judged(id, documents, {})
    alone = merge_workers([model(0)])
    assert alone["parameters"][DOWN]["shape"] == [4, 3]


def test_a_wrong_part_of_the_second_worker_is_seen(documents: Documents) -> None:
    spoiled = model(1)
    spoiled["parameters"][GATE_UP]["parts"][1] = sha("noise")
    documents["draft_load"]["draft"] = merge_workers([model(0), spoiled])
    found = judged("DRAFT-03", documents, {})
    assert found.verdict == Verdict.FAIL
    assert "up_proj.weight" in found.sentence


def test_half_a_width_is_seen_however_it_is_shared_out(documents: Documents) -> None:
    halves = [model(0), model(1)]
    for half in halves:
        half["parameters"][GATE_UP]["shape"] = [2, 4]
    documents["draft_load"]["draft"] = merge_workers(halves)
    assert judged("DRAFT-01", documents, {}).verdict == Verdict.FAIL


def test_workers_that_the_profile_does_not_know_are_an_error(documents: Documents) -> None:
    for tensor in documents["checkpoint"]["draft"]["tensors"].values():
        tensor.pop("shares", None)
    found = judged("DRAFT-03", documents, {})
    assert found.verdict == Verdict.ERROR
    assert "the profile names no --tensor-parallel-size" in found.sentence


def test_what_is_padded_to_be_shared_out_is_unsupported(documents: Documents) -> None:
    documents["checkpoint"]["draft"]["tensors"][DOWN]["shares"][1] = []
    found = judged("DRAFT-03", documents, {})
    assert found.verdict == Verdict.UNSUPPORTED
    assert "vLLM pads" in found.sentence


def test_the_checkpoints_parts_are_those_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_file(path, {"w": ("BF16", (4, 6)), "odd": ("BF16", (3, 2))})
    values = np.arange(24, dtype="<u2").reshape(4, 6)
    tensors = read_headers(tmp_path)
    with path.open("r+b") as file:
        file.seek(tensors["w"].start)
        file.write(values.tobytes())
    rows, columns = tensors["w"].shares(2)
    assert rows == [hashlib.sha256(each.tobytes()).hexdigest() for each in (values[:2], values[2:])]
    assert columns == [hashlib.sha256(each.tobytes()).hexdigest() for each in (values[:, :3], values[:, 3:])]
    assert tensors["odd"].shares(2)[0] == []


@pytest.mark.parametrize(
    ("words", "workers"),
    [((), 1), (TWO, 2), (("-tp", "4"), 4), (("--tensor-parallel-size=8", "--enforce-eager"), 8)],
)
def test_the_profile_says_how_many_there_are(words: tuple[str, ...], workers: int) -> None:
    assert replace(PROFILE, hardware=replace(PROFILE.hardware, serve_args=words)).workers == workers


def test_each_worker_is_given_its_part_and_all_outputs_come_in_the_checkpoints_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.arange(12.0).reshape(2, 6)
    row = SimpleNamespace(input_is_parallel=True, tp_size=2, tp_rank=1, input_size_per_partition=3)
    assert adapters.own_part(row, x).tolist() == x[:, 3:].tolist()
    assert adapters.own_part(SimpleNamespace(), x) is x
    gathered = torch.tensor([[1.0, 1.0, 3.0, 3.0, 2.0, 2.0, 4.0, 4.0]])  # gate, up of the first; of the second
    monkeypatch.setattr(adapters, "upstream", lambda *_: lambda *_: gathered)
    column = SimpleNamespace(gather_output=False, tp_size=2, output_partition_sizes=[2, 2])
    assert adapters.all_parts(column, x).tolist() == [[1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]]
    assert adapters.all_parts(row, x) is x


@pytest.mark.server
def test_two_workers_on_two_cores(tmp_path: Path) -> None:
    """The real server: what looks inside it agrees with the checkpoint, part by part."""
    cpu = load_profile("cpu", "micro-26b-a4b-nvfp4", "smoke")
    words = [w for w in cpu.hardware.serve_args if w not in ("--distributed-executor-backend", "uni")]
    settings = {**(cpu.hardware.environment or {}), "VLLM_CPU_OMP_THREADS_BIND": "0|1"}
    del settings["VLLM_ENABLE_V1_MULTIPROCESSING"]
    profile = replace(cpu, hardware=replace(cpu.hardware, serve_args=(*words, *TWO), environment=settings))
    evidence = recording(tmp_path / "evidence")
    with on_show(profile, tmp_path, MTP) as up:
        shown = Shown(profile, evidence, up)
        names = ("checkpoint", "draft_load", "numerics", "wiring")
        seen = {name: evidence.observe(name, lambda n=name: OBSERVERS[n](profile, shown, evidence)) for name in names}
    shares = {name for name, row in seen["draft_load"]["draft"]["parameters"].items() if "shares" in row}
    assert {DOWN, GATE_UP} <= shares
    for id in ("DRAFT-01", "DRAFT-02", "DRAFT-03", "DRAFT-07", "NUM-01", "NUM-02"):
        assert judged(id, seen, {}).verdict == Verdict.PASS, judged(id, seen, {})
