"""The MoE kernel that the installed vLLM would choose on every device; this needs no GPU."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from conformance.errors import Unsupported
from conformance.evidence.folder import Evidence
from conformance.observers.environment import ask_interpreter
from conformance.profile.profile import Profile
from conformance.serving.executors import HERE, Executor
from conformance.serving.json_subprocess import Together
from conformance.serving.pool import NOT_INSTALLED, ServerPool

COMMAND = (sys.executable, "-m", "conformance.inside_vllm.moe_oracle")


def observe(_profile: Profile, servers: ServerPool, _evidence: Evidence) -> Mapping[str, Any]:
    """The order, the choice and every backend's answer for each device, for Gemma 4's experts and not the pair's."""
    servers.require_own_servers(NOT_INSTALLED)
    with servers.shared():  # importing vLLM uses a core for ten seconds
        return ask_vllm(servers.executor, servers.together)


def ask_vllm(executor: Executor = HERE, together: Together | None = None) -> dict[str, Any]:
    """The same, from a process of its own.

    Raises:
        ObservationError: vLLM cannot be imported.
        Unsupported: this vLLM lacks a name that the question needs.
    """
    found = ask_interpreter(COMMAND, executor, together)
    if "unsupported" in found:
        raise Unsupported(str(found["unsupported"]))
    return found
