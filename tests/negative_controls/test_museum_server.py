"""Defects put back into a running server: each makes its checks fail, with the right sentence, and no others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from conformance.evidence.folder import Evidence
from conformance.judging.verdict import Outcome, Verdict
from conformance.observers import OBSERVERS
from conformance.observers import load as loading
from conformance.profile.arms import MTP
from conformance.profile.profile import load_profile
from conformance.reference import draft_steps, modules
from conformance.serving.server import Server
from conformance.workload.client import client
from conformance.workload.prompts import MIXED, load_prompts
from negative_controls.judge_documents import FUNCTIONS, judged
from negative_controls.museum.exhibits import Display, marked
from negative_controls.museum.show import Shown, on_show
from negative_controls.museum.worker import EXHIBITS

pytestmark = [pytest.mark.server, pytest.mark.quick]

PROFILE = load_profile("cpu", "micro-26b-a4b-nvfp4", "smoke")
WATCHING = [id for id in FUNCTIONS if id.startswith(("DRAFT-0", "DRAFT-10", "NUM", "PARITY", "GOLD-02"))]
ANSWER_TOKENS = 48  # of at most 256: where an exhibit changes a text, some text has changed by then
BY_THE_SNAPSHOT = {"DRAFT-01", "DRAFT-02", "DRAFT-03"}  # the snapshot is taken at load, before anything is broken

# exhibit -> the checks that fail, each with a part of its sentence
EXPECTED: dict[str, dict[str, str]] = {
    "embedding_not_shared": {"DRAFT-04": '"the draft uses the target\'s embedding" is False where True is expected'},
    "kv_of_the_first_layer": {"DRAFT-07": "layer 0 is layer 0 where layer 28 is expected", "PARITY-02": "is off by"},
    "scale_of_the_draft": {"DRAFT-06": "embedding scale 8 (expected 11.3137) is off by 29", "PARITY-02": "is off by"},
    "silu": {"NUM-02": ".mlp is off by", "PARITY-02": "is off by"},
    "advancing_positions": {
        "DRAFT-08": '"draft positions are constant" is False where True is expected',
        "PARITY-01": "step 1 is",
        "PARITY-02": "step 3 of a request",
    },
    # Of 128 values, on some CPUs one or two are the same by chance.
    "state_carried_on_late": {"PARITY-01": "step 2, hidden state is different in 12"},
    "matrix_off_by_6_percent": {"NUM-02": "model.layers.1.mlp.down_proj is off by 6."},
    "expert_scale_doubled": {"NUM-01": "model.layers.14.experts is off by"},
    "expert_returns_zeros": {"NUM-01": "model.layers.14.experts is off by"},
    "every_expert_returns_zeros": {
        "NUM-01": "model.layers.0.experts is all zeros",
        "GOLD-02": "differs from the gold answer",
        "PARITY-01": "is off by",
        "PARITY-02": "the worst step of",
    },
    "drafts_counted_one_token_short": {"DRAFT-10": "tokens per draft is 3.0 where 4 is expected"},
}


@pytest.fixture(scope="module", autouse=True)
def one_reference() -> Iterator[None]:
    """Compute the float32 reference once for all exhibits: it depends on the checkpoint and the texts alone."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("target_model", "run_target"):
            patch.setattr(draft_steps, name, functools.cache(getattr(draft_steps, name)))
        for name in ("draft_linear", "draft_mlp", "router", "experts"):
            patch.setattr(modules, name, once(getattr(modules, name)))
        yield


def once(compute: Callable[..., modules.Shown]) -> Callable[..., modules.Shown]:
    """The same function of a checkpoint and the name of a module, with a memory of names."""
    known = dict[tuple[object, ...], modules.Shown]()

    def remembered(weights: modules.Weights, *module: object) -> modules.Shown:
        if module not in known:
            known[module] = compute(weights, *module)
        return known[module]

    return remembered


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with on_show(PROFILE, tmp_path_factory.mktemp("museum"), MTP) as up:
        yield up[MTP]


def observed(server: Server, directory: Path) -> dict[str, Any]:
    """What the observers see of the server as it is now."""
    evidence = Evidence(directory, recording=True)
    for folder in ("observations", "logs", ".locks"):
        (directory / folder).mkdir()
    servers = Shown(PROFILE, evidence, {MTP: server})
    names = ("checkpoint", "wiring", "numerics", "parity", "gold")
    documents = {
        name: evidence.observe(name, lambda name=name: OBSERVERS[name](PROFILE, servers, evidence)) for name in names
    }
    return documents | {"load": load(server)}


def load(server: Server) -> dict[str, Any]:
    """Answers to the prose prompts, where a small error of the target shows first, as answers of both arms."""
    prose = [prompt for prompt in load_prompts(PROFILE.prompts / MIXED) if prompt.category.startswith("prose")]
    prompts = [loading.cut(prompt, ANSWER_TOKENS) for prompt in prose]
    with client(server, PROFILE.hardware.bounds.request_seconds) as asking:
        answers, seconds = asking.ask_at_once(prompts)
    block = loading.as_row(loading.Block(answers, seconds, 0.0, None))
    ids = [prompt.id for prompt in prompts]
    rounds = {"concurrency": len(ids), "prompts": ids, "warm_up": False, "mtp": block, "plain": block}
    known = {id: {"category": "prose", "token_ids": []} for id in ids}
    return {"k": PROFILE.pair.k, "prompts": known, "rounds": [rounds | {"plain_again": None}]}


def watched(documents: Mapping[str, Any]) -> dict[str, Outcome]:
    outcomes = {id: judged(id, documents, {}) for id in WATCHING if id not in BY_THE_SNAPSHOT}
    assert {outcome.verdict for outcome in outcomes.values()} <= {Verdict.PASS, Verdict.FAIL}, outcomes
    return outcomes


def failing(outcomes: Mapping[str, Outcome]) -> dict[str, Outcome]:
    return {id: outcome for id, outcome in outcomes.items() if outcome.verdict is Verdict.FAIL}


def test_a_healthy_server_passes(server: Server, tmp_path: Path) -> None:
    assert failing(watched(observed(server, tmp_path))) == {}


@pytest.mark.parametrize("exhibit", marked("draft", EXHIBITS))
def test_an_exhibit_is_caught(server: Server, tmp_path: Path, exhibit: str, display: Display) -> None:
    server.call("conformance_break", 30, exhibit=exhibit)
    try:
        outcomes = watched(observed(server, tmp_path))
    finally:
        server.call("conformance_mend", 30)
    display(EXPECTED[exhibit], outcomes)
    found = failing(outcomes)
    assert found.keys() == EXPECTED[exhibit].keys(), {id: outcome.sentence for id, outcome in found.items()}
    for id, sentence in EXPECTED[exhibit].items():
        assert sentence in found[id].sentence
