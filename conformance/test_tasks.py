"""TASK: with MTP, the model answers as many questions rightly as without."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_at_least
from conformance.profile.tolerances import Tolerances
from conformance.views.task_score import TaskScore


@check(
    "TASK-01",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="paired",
    claim="The share of right answers with MTP is not lower than without, within the margin.",
)
def test_task_score(task_score: TaskScore, tolerances: Tolerances) -> None:
    """Questions with one right answer each, asked of both servers. Texts may differ, and both may be wrong."""
    margin = tolerances.floor("task_score_lost", 0.0, "share of right answers with MTP minus that without")
    expect_at_least(task_score.difference(), margin, source=task_score, note=task_score.note())
