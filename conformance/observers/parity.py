"""The draft's steps in the running server, beside transformers' own draft in float32.

CUDA graphs run no hooks. A server with graphs gets an eager twin, which is asked instead of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from conformance.checkpoints.headers import draft_folder, read_headers, target_folder
from conformance.errors import ObservationError, Unsupported
from conformance.evidence.folder import Evidence
from conformance.observers.draft_load import ask
from conformance.observers.load import WARM_UP_TOKENS, cut
from conformance.observers.refusals import require_sound_pair
from conformance.profile.arms import EAGER
from conformance.profile.profile import Profile
from conformance.serving.command import captures, eager
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.workload.client import Answer, client
from conformance.workload.prompts import MIXED, Prompt, load_prompts, spread

TOGETHER = 3  # requests in a batch


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """The captured steps of requests that were asked alone and together, each row beside its reference.

    Raises:
        ObservationError: the capture failed, or the server returned no token ids.
        Unsupported: k is too small, memory is too short, or this vLLM lacks a name that the probe needs.
    """
    require_later_steps(profile.pair.k)
    require_sound_pair(profile, servers, evidence)
    require_memory(target_folder(profile.pair))
    alone, together = choose_prompts(load_prompts(profile.prompts / MIXED))
    with _eager_server(profile, servers) as server:
        seconds = profile.hardware.bounds.request_seconds
        with client(server, seconds) as asking:
            for prompt in (*alone, *together):  # warm up first, because a first request may compile code
                asking.ask(cut(prompt, WARM_UP_TOKENS))

            def capture(ask_for: Any) -> tuple[Path, list[Answer]]:
                file, answers = _capture(server, seconds, ask_for)
                return _rename_capture(
                    servers.executor.fetch(file, evidence.directory / "snapshots" / server.name), answers
                ), answers

            singly = [capture(lambda p=prompt: [asking.ask(p)]) for prompt in alone]
            jointly = capture(lambda: asking.ask_at_once(together)[0])
    return {"k": profile.pair.k} | compare(profile, [*singly, jointly])


@contextmanager
def _eager_server(profile: Profile, servers: ServerPool) -> Iterator[Server]:
    """The server with MTP, or its eager twin; nobody else uses a server meanwhile."""
    if captures(profile) and not servers.attached:
        with servers.extra(EAGER, eager) as twin:
            yield twin
    else:
        with servers.exclusive():
            yield servers.mtp()


def require_later_steps(k: int) -> None:
    """Require at least two steps in a draft, because the second step shows which row of the first one continues.

    Raises:
        Unsupported: k is less than 2.
    """
    if k < 2:
        raise Unsupported(f"A draft of {k} token has no second step, and PARITY needs it to recognise the first one.")


def require_memory(target: Path) -> None:
    """Require that the target in float32 fits into the free memory of this machine.

    Raises:
        Unsupported: there is less free memory.
    """
    needed = 8 * sum(tensor.end - tensor.start for tensor in read_headers(target).values())  # NVFP4 grows eightfold
    free = psutil.virtual_memory().available
    if needed > free:
        raise Unsupported(f"A float32 reference of the target may need {needed >> 30} GiB; {free >> 30} GiB are free.")


def choose_prompts(prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[Prompt]]:
    """Two prompts to ask alone, the shortest and the longest (beyond the sliding window), and some for a batch."""
    by_length = sorted(spread(prompts, 10), key=lambda prompt: len(str(prompt.messages)))
    return [by_length[0], by_length[-1]], by_length[1 : 1 + TOGETHER]


def _capture(server: Server, seconds: float, ask_for: Any) -> tuple[Path, list[Answer]]:
    """Capture the draft's steps for some requests into a file on the server's machine."""
    ask(server, "conformance_capture_begin", seconds)
    try:
        answers: list[Answer] = ask_for()
    finally:
        ended = ask(server, "conformance_capture_end", seconds)
    return Path(ended["file"]), answers


def _rename_capture(file: Path, answers: Sequence[Answer]) -> Path:
    """Rename the file, so that the next capture does not overwrite it.

    Raises:
        ObservationError: the file is not on this machine.
    """
    if not file.is_file():
        raise ObservationError(f"the capture {file} is not on this machine")
    return file.rename(file.with_name(f"capture-{answers[0].id}.safetensors"))


def compare(profile: Profile, captured: Sequence[tuple[Path, Sequence[Answer]]]) -> dict[str, list[dict[str, Any]]]:
    """Every captured step beside its reference, and the proposals without one.

    Raises:
        ObservationError: an answer has no token ids.
    """
    from conformance.reference import draft_steps  # imported here, because transformers takes seconds to import

    answers = [answer for _, group in captured for answer in group]
    if lacking := [answer.id for answer in answers if not (answer.prompt_ids and answer.token_ids)]:
        raise ObservationError(f"the server returned no token ids for {', '.join(lacking)}")
    requests = [draft_steps.Request(answer.id, (*answer.prompt_ids, *answer.token_ids)) for answer in answers]
    reference = draft_steps.Reference(target_folder(profile.pair), draft_folder(profile.pair), requests)
    found = [draft_steps.compare(file, profile.pair.k, reference) for file, _ in captured]
    return {
        "rows": [row for steps, _ in found for row in steps],
        "unrecognised": [row for _, proposals in found for row in proposals],
    }
