"""vLLM's parser of Gemma 4 as a function of tokens, tried in a process of its own; no server."""

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
from conformance.serving.json_subprocess import ask_subprocess
from conformance.serving.pool import NOT_INSTALLED, ServerPool
from conformance.workload.parser_cases import (
    PUBLISHED,
    REGRESSIONS,
    STREAMS,
    load_instances,
    load_regressions,
    load_streams,
)

COMMAND = (sys.executable, "-m", "conformance.inside_vllm.parser_trials")
_SECONDS = 600.0


def observe(profile: Profile, servers: ServerPool, _evidence: Evidence) -> Mapping[str, Any]:
    """For each property the number of examples, and the smallest one that breaks it."""
    servers.must_be_ours(NOT_INSTALLED)
    question = asked(profile)
    with servers.beside():  # importing vLLM takes a core for ten seconds
        return tried(question, place=servers.place)


def asked(profile: Profile) -> dict[str, Any]:
    """What ``conformance.inside_vllm.parser_trials`` reads."""
    folder, prompts = target_folder(profile.pair), FIXTURES / "prompts"
    template = folder / "chat_template.jinja"
    if not template.is_file():
        raise ObservationError(f"{template}: there is no such file, so nobody knows how calls are written")
    return {
        "tokenizer": str(folder),
        "template": template.read_text(encoding="utf-8"),
        "examples": profile.sizes.parser_examples,
        "streams": load_streams(prompts / STREAMS),
        "instances": load_instances(prompts / PUBLISHED),
        "regressions": load_regressions(prompts / REGRESSIONS),
    }


def tried(question: Mapping[str, Any], command: Sequence[str] = COMMAND, place: Executor = HERE) -> dict[str, Any]:
    """What the process found; ObservationError with its own error where it gives no answer."""
    failed = "vLLM's parser could not be tried"
    try:
        found = ask_subprocess(
            command, question, doing="trying the parser", failed=failed, seconds=_SECONDS, place=place
        )
    except ObservationError as error:
        if place.same_python or "No module named 'hypothesis'" not in error.sentence:
            raise
        raise Unsupported("The Python that serves has no hypothesis, which thinks up what the parser reads.") from None
    if "unsupported" in found:
        raise Unsupported(str(found["unsupported"]))
    return found
