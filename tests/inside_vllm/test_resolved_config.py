"""The flat configuration: every field has a name and a value that is the same each time."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import PretrainedConfig

from conformance.errors import Unsupported
from conformance.inside_vllm import adapters, probe, resolved_config


class Mode(Enum):
    FULL = (2, 1)


class Level(IntEnum):
    O2 = 2


@dataclass
class Inner:
    sizes: list[int] = field(default_factory=lambda: [1, 2, 4])
    mode: Mode = Mode.FULL
    api_key: str = "abc"
    empty: dict[str, int] = field(default_factory=dict)
    layers: dict[str, Any] = field(default_factory=lambda: {"model.layers.0": object()})


@dataclass
class Config:
    inner: Inner = field(default_factory=Inner)
    level: Level = Level.O2
    drafts: Inner | None = None
    share: float = 0.9
    most: float = float("inf")
    kind: type = Inner
    names: frozenset[str] = frozenset({"b", "a"})


def test_every_field_is_named_by_its_path() -> None:
    found = dict(resolved_config.flat(Config()))
    assert found == {
        "inner.sizes": [1, 2, 4],
        "inner.mode": "FULL",
        "inner.empty": {},
        "inner.layers.model.layers.0": "object",
        "level": "O2",
        "drafts": None,
        "share": 0.9,
        "most": "inf",
        "kind": "Inner",
        "names": ["a", "b"],
    }
    assert json.loads(json.dumps(found)) == found
    assert "api_key" not in str(found)  # evidence keeps no secret


def test_a_field_that_cannot_be_read_says_so() -> None:
    class Computing(Inner):
        def __getattribute__(self, name: str) -> Any:
            if name == "sizes":
                raise KeyError(name)
            return super().__getattribute__(name)

    assert dict(resolved_config.flat(Computing()))["sizes"] == "unreadable: KeyError"


def test_the_checkpoints_config_is_one_value() -> None:
    assert dict(resolved_config.flat({"hf_config": PretrainedConfig()})) == {"hf_config": "PreTrainedConfig"}


def test_a_config_that_holds_itself_ends() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    (name, value), *rest = resolved_config.flat(loop)
    assert rest == []
    assert name.count("again") == resolved_config.DEEPEST
    assert value == "dict"


def test_the_probe_tells_what_the_worker_made_of_it_and_leaves_out_what_is_not_there() -> None:
    worker: Any = probe.Probe()
    worker.vllm_config = Config()
    worker.model_runner = SimpleNamespace()
    fields = resolved_config.of_worker(worker)
    assert fields["worker.model_runner"] == "types.SimpleNamespace"
    assert not [name for name in fields if name.startswith("worker.attention")]
    with pytest.raises(Unsupported, match="has no vllm_config"):
        resolved_config.of_worker(SimpleNamespace())
    assert "has no vllm_config" in probe.Probe().conformance_config()["unsupported"]


@pytest.mark.parametrize(
    ("world_size", "own", "used"),
    [
        (1, None, False),
        (2, None, False),
        (2, SimpleNamespace(disabled=True), False),
        (2, SimpleNamespace(disabled=False), True),
    ],
)
def test_the_all_reduce_of_the_workers_is_told(
    monkeypatch: pytest.MonkeyPatch, world_size: int, own: Any, used: bool
) -> None:
    communicator = None if world_size == 1 else SimpleNamespace(ca_comm=own)
    group = SimpleNamespace(world_size=world_size, device_communicator=communicator)
    monkeypatch.setattr(adapters, "upstream", lambda *_: lambda: group)
    monkeypatch.setattr(adapters, "on_cpu", lambda: False)
    assert adapters.custom_all_reduce(None) is used
    monkeypatch.setattr(adapters, "on_cpu", lambda: True)
    assert not adapters.custom_all_reduce(None)
