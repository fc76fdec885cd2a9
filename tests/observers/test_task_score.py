"""Questions with checkable answers, asked of faux servers: nobody, and the one with MTP, is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from negative_controls.faux_servers import Observe, launch
from negative_controls.judge_documents import judged

from conformance.errors import ObservationError
from conformance.judging.verdict import Verdict
from conformance.profile.profile import Profile
from conformance.profile.tolerances import load_tolerances
from conformance.views.task_score import TaskScore
from conformance.workload.questions import QUESTIONS

COUNT = 80


@pytest.fixture(autouse=True)
def questions(profile: Profile) -> Path:
    """Questions that an echo answers rightly."""
    path = profile.prompts / QUESTIONS
    rows = [
        {
            "id": f"q{number:02}",
            "category": "echo",
            "licence": "Apache-2.0",
            "messages": [{"role": "user", "content": f"number {number}"}],
            "max_tokens": 16,
            "rule": "text",
            "expected": f"echo number {number}",
        }
        for number in range(COUNT)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_both_arms_are_asked_every_question(observe: Observe) -> None:
    seen = observe("task_score")
    assert seen["at_once"] == 4
    assert len(seen["questions"]) == COUNT
    for row in seen["questions"]:
        for arm in ("mtp", "plain"):
            assert row[arm] == {"calls": [], "content": row["expected"], "finish_reason": "stop", "tokens": 9}
    assert judged("TASK-01", {"task_score": seen}, {}).verdict is Verdict.PASS


def test_a_server_that_is_wrong_only_with_mtp_fails(observe: Observe) -> None:
    seen = observe("task_score", mtp=launch("good", "--k", "4", "--fault", "is wrong about odd numbers"))
    found = judged("TASK-01", {"task_score": seen}, {})
    assert found.verdict is Verdict.FAIL
    assert "minus that without -0.500" in found.sentence
    assert "lost: q01 (with MTP: echo not number 1), " in found.findings[0].note


def test_a_server_that_is_wrong_only_without_mtp_passes(observe: Observe) -> None:
    seen = observe("task_score", plain=launch("good", "--fault", "is wrong about odd numbers"))
    assert judged("TASK-01", {"task_score": seen}, {}).verdict is Verdict.PASS


def test_a_model_that_can_answer_nothing_proves_nothing(observe: Observe) -> None:
    seen = observe("task_score")
    for row in seen["questions"]:
        row["expected"] = "something else"
    with pytest.raises(ObservationError, match="answers 0 of 80 questions rightly, so a loss could not be seen"):
        TaskScore.of(seen, load_tolerances()["task_score_least"])
