"""Which features the installed vLLM refuses beside MTP on this machine; no server is started."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from typing import Any

from conformance.checkpoints.headers import draft_folder, target_folder
from conformance.errors import Unsupported
from conformance.evidence.folder import Evidence
from conformance.profile.profile import Profile
from conformance.serving.json_subprocess import ask_subprocess
from conformance.serving.pool import NOT_INSTALLED, ServerPool

COMMAND = (sys.executable, "-m", "conformance.inside_vllm.combination_support")
WORKERS = ("-tp", "--tensor-parallel-size", "-dp", "--data-parallel-size")


def observe(profile: Profile, servers: ServerPool, _evidence: Evidence) -> Mapping[str, Any]:
    """vLLM's reason against each feature, or "".

    Raises:
        ObservationError: vLLM cannot be imported.
        Unsupported: the servers are attached, this vLLM lacks a name that the question needs, or the hardware has no
            configuration that people serve.
    """
    servers.require_own_servers(NOT_INSTALLED)
    question = request(profile)
    with servers.shared():  # importing vLLM uses a core for ten seconds
        found = ask_subprocess(
            COMMAND,
            question,
            doing="asking for what can be combined",
            failed="vLLM does not say what can be combined",
            executor=servers.executor,
            together=servers.together,
        )
    if "unsupported" in found:
        raise Unsupported(str(found["unsupported"]))
    return found


def request(profile: Profile) -> dict[str, Any]:
    """The input of ``conformance.inside_vllm.combination_support``.

    Raises:
        NotHere: a checkpoint is not on this machine.
        Unsupported: the hardware has no configuration that people serve.
    """
    profile.hardware.as_served()
    pair = profile.pair
    return {
        "target": str(target_folder(pair)),
        "draft": str(draft_folder(pair)),
        "k": pair.k,
        "quantisation": pair.quantisation,
        "workers": workers((*pair.serve_args, *profile.hardware.serve_args)),
    }


def workers(options: tuple[str, ...]) -> int:
    """The workers of a server with these options."""
    number = 1
    for option, value in itertools.pairwise(options):
        if option in WORKERS:
            number *= int(value)
    return number
