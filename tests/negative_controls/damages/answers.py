"""What can go wrong with tool calls and the comparison with gold; each function damages the documents in one way."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from support import synthetic

from negative_controls.damages.load import answers_of, write

Documents = synthetic.Documents
Row = tuple[str, Callable[[Documents], None], str]


def fifth(d: Documents, arm: str) -> dict[str, Any]:
    """The first answer to the fifth gold prompt."""
    return list(answers_of(d, arm))[4]


def at_row_4(d: Documents, place: int, token: int) -> None:
    for arm in ("mtp", "plain"):
        fifth(d, arm)["token_ids"][place] = token


def leaves_gold_far_from_a_tie(d: Documents) -> None:
    row = synthetic.GOLD_ROWS[4]
    place = next(place for place, gap in enumerate(row["gap"]) if gap > 3)
    at_row_4(d, place, row["runner_up"][place])


def leaves_gold_for_a_third_token(d: Documents) -> None:
    at_row_4(d, 1, 3)


def stops_early(d: Documents) -> None:
    answer = fifth(d, "mtp")
    write(answer, answer["token_ids"][:2])
    answer["counts"] = None


def follows_little(d: Documents) -> None:
    for answer in answers_of(d, "mtp", "plain"):
        answer["token_ids"][1] = 3


def integer_as_text(d: Documents) -> None:
    call = d["tools"]["prompts"][3]["whole"]["calls"][0]
    call["arguments"] = json.dumps({"city": "Oslo", "days": "3", "metric": True})


def leaked_call(d: Documents) -> None:
    d["tools"]["prompts"][0]["whole"].update(calls=[], content="<|tool_call>call:get_weather{days:0}")


def lost_arguments(d: Documents) -> None:
    d["tools"]["prompts"][0]["streamed"]["calls"][0]["arguments"] = "{}"


def broken_json(d: Documents) -> None:
    d["tools"]["prompts"][0]["streamed"]["calls"][0]["arguments"] = '{"city": "Os'


def forgets_arguments_with_mtp(d: Documents) -> None:
    lose_questions(d, 14)


def lose_questions(d: Documents, count: int) -> None:
    """Answers with MTP to so many questions lose their arguments."""
    for row in d["task_score"]["questions"][:count]:
        row["mtp"]["calls"][0]["arguments"] = "{}"


# check -> damages, each with a part of the sentence that the check must give
DAMAGES: list[Row] = [
    (
        "GOLD-01",
        leaves_gold_far_from_a_tie,
        " differs from the gold answer at token 0: its token is the second most likely one, which is ",
    ),
    (
        "GOLD-01",
        leaves_gold_for_a_third_token,
        "at token 1: its token is not even the second most likely one, which is",
    ),
    ("GOLD-02", stops_early, " differs from the gold answer at token 2"),
    ("GOLD-02", follows_little, "share of gold tokens compared 0.0"),
    (
        "TASK-01",
        forgets_arguments_with_mtp,
        "share of right answers with MTP minus that without -0.117 [-0.186, -0.071] misses -0.05",
    ),
    ("TOOL-01", integer_as_text, 't03 is get_weather({"city": "Oslo", "days": "3", "metric": true}) where'),
    ("TOOL-01", leaked_call, "t00 is no call but the text <|tool_call>call:get_weather"),
    ("TOOL-02", lost_arguments, 't00 is get_weather({}) where get_weather({"city": "Oslo"'),
    ("TOOL-02", broken_json, "t00 is get_weather with arguments that are not JSON"),
]


def other_weights(d: Documents) -> None:
    d["gold"]["weights_sha256"] = synthetic.digest("retrained")


def no_gold_prompt(d: Documents) -> None:
    for each in d["load"]["rounds"]:
        each["prompts"] = [f"other {name}" for name in each["prompts"]]
    prompts = d["load"]["prompts"]
    d["load"]["prompts"] = {f"other {name}": prompt for name, prompt in prompts.items()}


def no_questions(d: Documents) -> None:
    d["task_score"]["questions"] = []


def nobody_knows(d: Documents) -> None:
    for row in d["task_score"]["questions"]:
        row["mtp"]["calls"] = row["plain"]["calls"] = []


def no_tools(d: Documents) -> None:
    d["tools"]["prompts"] = []


def no_calls(d: Documents) -> None:
    for row in d["tools"]["prompts"]:
        row["whole"]["calls"] = row["streamed"]["calls"] = []


# check -> an empty or contradictory document, and a part of the sentence that the check must give
NOTHING: list[Row] = [
    ("GOLD-01", other_weights, "was computed from other weights"),
    ("GOLD-01", no_gold_prompt, "nothing was looked at"),
    ("GOLD-02", no_gold_prompt, "nothing was looked at"),
    ("TASK-01", no_questions, "no questions, so there is nothing to compare"),
    ("TASK-01", nobody_knows, "answers 0 of 120 questions rightly, so a loss could not be seen"),
    ("TOOL-01", no_tools, "nothing to compare"),
    ("TOOL-02", no_tools, "no tool call came back"),
    ("TOOL-02", no_calls, "no tool call came back"),
]
