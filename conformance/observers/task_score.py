"""Both arms answer the same questions greedily; what is right is left to the view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from conformance.evidence.folder import Evidence
from conformance.observers.refusals import require_sound_pair
from conformance.profile.arms import MTP, PLAIN
from conformance.profile.profile import Profile
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.workload.client import Answer, client
from conformance.workload.questions import QUESTIONS, Question, load_questions


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """Every question with its right answer, and the answers of both arms.

    Raises:
        ObservationError: a server failed, or a question got no usable answer.
        Unsupported: there is no server without MTP.
    """
    require_sound_pair(profile, servers, evidence)
    questions = load_questions(profile.prompts / QUESTIONS)
    work = partial(_answers, questions=questions, profile=profile)
    with servers.exclusive():  # if one server fits, the other is stopped first
        arms = {PLAIN: work(servers.plain()), MTP: work(servers.mtp())}
    rows = [
        {"id": each.id, "category": each.category, "rule": each.rule, "expected": each.expected}
        | {arm: _said(answers[place]) for arm, answers in arms.items()}
        for place, each in enumerate(questions)
    ]
    return {"at_once": profile.sizes.questions_at_once, "questions": rows}


def _answers(server: Server, questions: Sequence[Question], profile: Profile) -> list[Answer]:
    prompts = [question.prompt() for question in questions]
    with client(server, profile.hardware.bounds.request_seconds) as asking:
        answers, _ = asking.ask_at_once(prompts, at_once=profile.sizes.questions_at_once)
    return answers


def _said(answer: Answer) -> dict[str, Any]:
    return {
        "calls": [dict(call) for call in answer.tool_calls],
        "content": answer.content,
        "finish_reason": answer.finish_reason,
        "tokens": answer.output_tokens,
    }
