"""The draft's steps as the running server makes them, beside transformers' own draft in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from conformance.checkpoints.headers import draft_folder, read_headers, target_folder
from conformance.errors import ObservationError, Unsupported
from conformance.evidence.folder import Evidence
from conformance.observers.draft_load import ask
from conformance.observers.refusals import require_sound_pair
from conformance.profile.arms import MTP
from conformance.profile.profile import Profile
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.workload.client import Answer, client
from conformance.workload.prompts import MIXED, Prompt, load_prompts, spread

TOGETHER = 3  # requests in a batch


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """Captured steps of requests asked alone and together, each row beside its reference."""
    require_later_steps(profile.pair.k)
    require_sound_pair(profile, servers, evidence)
    require_memory(target_folder(profile.pair))
    alone, together = chosen(load_prompts(profile.prompts / MIXED))
    with servers.exclusive():
        server, seconds = servers.mtp(), profile.hardware.bounds.request_seconds
        with client(server, seconds) as asking:
            for prompt in (*alone, *together):
                asking.ask(prompt)  # a first request may compile or fill something; what is captured has done so

            def captured(ask_for: Any) -> tuple[Path, list[Answer]]:
                file, answers = _captured(server, seconds, ask_for)
                return _kept(servers.place.fetched(file, evidence.directory / "snapshots" / MTP), answers), answers

            singly = [captured(lambda p=prompt: [asking.ask(p)]) for prompt in alone]
            jointly = captured(lambda: asking.ask_at_once(together)[0])
        return {"k": profile.pair.k} | compare(profile, [*singly, jointly])


def require_later_steps(k: int) -> None:
    """Unsupported where a proposal is one step: which of its rows goes on is told by the second."""
    if k < 2:
        raise Unsupported(f"A draft of {k} token has no second step, by which its first one is recognised.")


def require_memory(target: Path) -> None:
    """Unsupported where the target in float32 does not fit into this machine's free memory."""
    needed = 8 * sum(tensor.end - tensor.start for tensor in read_headers(target).values())  # NVFP4 grows eightfold
    free = psutil.virtual_memory().available
    if needed > free:
        raise Unsupported(f"A float32 reference of the target may need {needed >> 30} GiB; {free >> 30} GiB are free.")


def chosen(prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[Prompt]]:
    """Prompts to ask alone, the shortest and the longest (beyond the sliding window), and some for a batch."""
    by_length = sorted(spread(prompts, 10), key=lambda prompt: len(str(prompt.messages)))
    return [by_length[0], by_length[-1]], by_length[1 : 1 + TOGETHER]


def _captured(server: Server, seconds: float, ask_for: Any) -> tuple[Path, list[Answer]]:
    """What the draft did for some requests, in a file where the server runs."""
    ask(server, "conformance_capture_begin", seconds)
    try:
        answers: list[Answer] = ask_for()
    finally:
        ended = ask(server, "conformance_capture_end", seconds)
    return Path(ended["file"]), answers


def _kept(file: Path, answers: Sequence[Answer]) -> Path:
    """The file out of the way of the next capture."""
    if not file.is_file():
        raise ObservationError(f"the capture {file} is not on this machine")
    return file.rename(file.with_name(f"capture-{answers[0].id}.safetensors"))


def compare(profile: Profile, captured: Sequence[tuple[Path, Sequence[Answer]]]) -> dict[str, list[dict[str, Any]]]:
    """Every captured step beside its reference, and what has none; ObservationError where an answer lacks token ids."""
    from conformance.reference import draft_steps  # transformers takes seconds to import, and only this needs it

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
