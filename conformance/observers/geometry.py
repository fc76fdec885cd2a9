"""The draft as this vLLM builds it at every published size, under every configuration of its target; no weights."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from conformance.evidence.folder import Evidence
from conformance.profile.facts import Facts, load_facts
from conformance.profile.profile import Profile
from conformance.serving.executors import HERE, Executor
from conformance.serving.json_subprocess import ask_subprocess
from conformance.serving.pool import NOT_INSTALLED, ServerPool

COMMAND = (sys.executable, "-m", "conformance.inside_vllm.geometry")
TOKENIZER = "models/micro-26b-a4b/draft"  # in the fixtures of whoever builds; any will do: no text is read
K = 4


def observe(_profile: Profile, servers: ServerPool, _evidence: Evidence) -> Mapping[str, Any]:
    """Layers and tensors of each build, or why there is none; the same on every machine, whatever the pair."""
    servers.must_be_ours(NOT_INSTALLED)
    with servers.beside():  # importing vLLM takes a core for ten seconds
        return build(request(load_facts()), place=servers.place)


def request(facts: Facts) -> dict[str, Any]:
    """What ``conformance.inside_vllm.geometry`` reads: every draft of the facts under every quantisation of theirs."""
    pairs = [
        {
            "size": size,
            "configuration": configuration,
            "target": facts.targets[size].text_model(quantisation),
            "draft": dict(draft.config),
        }
        for size, draft in facts.drafts.items()
        for configuration, quantisation in facts.quantisations.items()
    ]
    return {"tokenizer": TOKENIZER, "k": K, "pairs": pairs}


def build(asked: Mapping[str, Any], command: Sequence[str] = COMMAND, place: Executor = HERE) -> dict[str, Any]:
    """What the process answers; ObservationError with its own error where it gives no answer."""
    return ask_subprocess(command, asked, doing="building the drafts", failed="vLLM built no draft", place=place)
