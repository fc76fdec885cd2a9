"""Tests vLLM's parser for Gemma 4 as a function of tokens, in a process of its own and without a server."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from conformance import FIXTURES
from conformance.checkpoints.headers import target_folder
from conformance.errors import ObservationError, Unsupported
from conformance.evidence.folder import Evidence
from conformance.profile.profile import Profile
from conformance.serving.executors import HERE, Executor
from conformance.serving.json_subprocess import Together, ask_subprocess
from conformance.serving.pool import NOT_INSTALLED, ServerPool
from conformance.workload.parser_cases import (
    PUBLISHED,
    REGRESSIONS,
    STREAMS,
    SUITE,
    TOOLS,
    load_instances,
    load_regressions,
    load_streams,
)

COMMAND = (sys.executable, "-m", "conformance.inside_vllm.parser_trials")
_SECONDS = 600.0


def observe(profile: Profile, servers: ServerPool, _evidence: Evidence) -> Mapping[str, Any]:
    """The number of examples for each property, and the smallest example that breaks it.

    Raises:
        ObservationError: the trials could not be made.
        Unsupported: the servers are attached, or vLLM or Hypothesis is missing what the trials need.
    """
    servers.require_own_servers(NOT_INSTALLED)
    question = build_request(profile)
    with servers.shared():  # importing vLLM uses a core for ten seconds
        return run_trials(question, executor=servers.executor, together=servers.together)


def build_request(profile: Profile) -> dict[str, Any]:
    """The input of ``conformance.inside_vllm.parser_trials``.

    Raises:
        ObservationError: the target has no chat template.
    """
    folder, prompts = target_folder(profile.pair), FIXTURES / "prompts"
    template = folder / "chat_template.jinja"
    if not template.is_file():
        raise ObservationError(f"{template}: there is no such file, but the trials need the chat template")
    return {
        "tokenizer": str(folder),
        "template": template.read_text(encoding="utf-8"),
        "examples": profile.sizes.parser_examples,
        "streams": load_streams(prompts / STREAMS),
        "instances": load_instances(prompts / PUBLISHED),
        "suite": [*load_instances(prompts / SUITE), *load_instances(prompts / TOOLS)],
        "regressions": load_regressions(prompts / REGRESSIONS),
    }


def run_trials(
    question: Mapping[str, Any],
    command: Sequence[str] = COMMAND,
    executor: Executor = HERE,
    together: Together | None = None,
) -> dict[str, Any]:
    """The results of the process.

    Raises:
        ObservationError: the process gives no answer.
        Unsupported: this vLLM lacks a name that the trials need, or the serving Python has no Hypothesis.
    """
    failed = "vLLM's parser could not be tried"
    try:
        found = ask_subprocess(
            command,
            question,
            doing="trying the parser",
            failed=failed,
            seconds=_SECONDS,
            executor=executor,
            together=together,
        )
    except ObservationError as error:
        if executor.same_python or "No module named 'hypothesis'" not in error.sentence:
            raise
        raise Unsupported(
            "The Python that serves has no Hypothesis, which generates the input of the parser."
        ) from None
    if "unsupported" in found:
        raise Unsupported(str(found["unsupported"]))
    return found
