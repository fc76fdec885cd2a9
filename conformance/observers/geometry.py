"""The draft as this vLLM builds it, without weights, for every published size and configuration of the target."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from conformance.evidence.folder import Evidence
from conformance.profile.facts import Facts, load_facts
from conformance.profile.profile import Profile
from conformance.serving.executors import HERE, Executor
from conformance.serving.json_subprocess import Together, ask_subprocess
from conformance.serving.pool import NOT_INSTALLED, ServerPool

COMMAND = (sys.executable, "-m", "conformance.inside_vllm.geometry")
TOKENIZER = "models/micro-26b-a4b/draft"  # in fixtures; any will do, because no text is read
K = 4


def observe(_profile: Profile, servers: ServerPool, _evidence: Evidence) -> Mapping[str, Any]:
    """The layers and tensors of each build, or why it failed; they depend neither on the machine nor on the pair."""
    servers.require_own_servers(NOT_INSTALLED)
    with servers.shared():  # importing vLLM uses a core for ten seconds
        return build(request(load_facts()), executor=servers.executor, together=servers.together)


def request(facts: Facts) -> dict[str, Any]:
    """The input of ``conformance.inside_vllm.geometry``: every draft and quantisation of the facts."""
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


def build(
    asked: Mapping[str, Any],
    command: Sequence[str] = COMMAND,
    executor: Executor = HERE,
    together: Together | None = None,
) -> dict[str, Any]:
    """The builds that the process describes.

    Raises:
        ObservationError: the process gives no answer.
    """
    return ask_subprocess(
        command,
        asked,
        doing="building the drafts",
        failed="vLLM built no draft",
        executor=executor,
        together=together,
    )
