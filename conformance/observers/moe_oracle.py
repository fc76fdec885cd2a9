"""Which MoE kernel vLLM's own selection would choose on every device, asked of the installed vLLM without a GPU."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from conformance.errors import Unsupported
from conformance.evidence.folder import Evidence
from conformance.observers.environment import ask_interpreter
from conformance.profile.profile import Profile
from conformance.serving.executors import HERE, Executor
from conformance.serving.pool import NOT_INSTALLED, ServerPool


def observe(_profile: Profile, servers: ServerPool, _evidence: Evidence) -> Mapping[str, Any]:
    """Order, choice and every backend's answer by device; the experts are Gemma 4's, whatever the pair's."""
    servers.must_be_ours(NOT_INSTALLED)
    with servers.beside():  # importing vLLM takes a core for ten seconds
        return ask_vllm(servers.place)


def ask_vllm(place: Executor = HERE) -> dict[str, Any]:
    """The same, in a process of its own; Unsupported where vLLM moved a name."""
    found = ask_interpreter([sys.executable, "-m", "conformance.inside_vllm.moe_oracle"], place)
    if "unsupported" in found:
        raise Unsupported(str(found["unsupported"]))
    return found
