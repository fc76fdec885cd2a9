r"""A user's questions with checkable answers instead of the suite's own, in the JSON Lines of public benchmarks.

- GSM8K (grade_school_math/data/test.jsonl of openai/grade-school-math): ``question``, and an ``answer`` whose last line
  is ``#### 42``. The question is asked as vLLM's own acceptance tests ask it (run_acceptance_length_eval in
  tests/v1/e2e/spec_decode/acceptance_rates/utils.py).
- Documents of EleutherAI's lm-evaluation-harness: ``question`` or ``query`` with a ``target``; or with ``choices`` and
  the index of the right one, ``gold`` (lm_eval/tasks/hellaswag/utils.py) or ``answer``.
- Its logs of samples (``--log_samples``), whose rows have such a document as ``doc``.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from decimal import InvalidOperation
from pathlib import Path
from typing import Any

from conformance.errors import UsageError
from conformance.formats.decimals import number
from conformance.workload.dataset import STEP_BY_STEP, numbered_rows, whole_number
from conformance.workload.questions import Question, Rule

DEFAULT_TOKENS = 1024  # of an answer, if the row has no output_tokens
EXAMPLE = r'{"question": "What is 6 times 7?", "answer": "6 * 7 = 42\n#### 42"}'
MARK = "####"  # before GSM8K's answer
LETTERS = string.ascii_uppercase

BY_LETTER = "Answer with the letter of the right choice alone."
BY_LAST_LINE = "Write the answer alone on the last line."

Row = Mapping[str, Any]


def load_task_set(path: Path) -> list[Question]:
    """The rows as questions of one message.

    Raises:
        UsageError: the file is wrong; the sentence names the file, the line and the mend.
    """
    rows = numbered_rows(path, EXAMPLE)
    if not rows:
        raise UsageError(f"{path} has no questions; add rows like {EXAMPLE}.")
    return [_question(where, place, row) for place, (where, row) in enumerate(rows, 1)]


def _question(where: str, place: int, row: Row) -> Question:
    document = {"target": row.get("target"), **row["doc"]} if isinstance(row.get("doc"), dict) else row
    asked = document.get("question") or document.get("query")
    if not isinstance(asked, str) or not asked.strip():
        raise UsageError(f'{where}: key "question" must be a text; write a row like {EXAMPLE}.')
    text, rule, expected = _checkable(where, asked.strip(), document)
    category = next((str(document[key]) for key in ("category", "subject") if document.get(key)), rule)
    message = {"role": "user", "content": text}
    tokens = whole_number(where, "output_tokens", row.get("output_tokens"), DEFAULT_TOKENS)
    return Question(f"question-{place:04}", category, "unknown", (message,), tokens, rule, expected)


def _checkable(where: str, asked: str, document: Row) -> tuple[str, Rule, Any]:
    """The text to ask, the rule of its answer, and the right answer.

    Raises:
        UsageError: the document has no answer that can be checked.
    """
    choices, answer, target = document.get("choices"), document.get("answer"), document.get("target")
    if isinstance(choices, list) and choices:
        gold = document.get("gold", answer)
        if not isinstance(gold, int) or isinstance(gold, bool) or not 0 <= gold < min(len(choices), len(LETTERS)):
            raise UsageError(f'{where}: key "gold" is {json.dumps(gold)}; it must be the index of one of the choices.')
        offered = "\n".join(f"{LETTERS[place]}. {choice}" for place, choice in enumerate(choices))
        return f"{asked}\n{offered}\n{BY_LETTER}", "choice", LETTERS[gold]
    if isinstance(answer, str) and MARK in answer:
        return f"{asked}\n{STEP_BY_STEP}", "number", _number(where, answer)
    if isinstance(target, (str, int, float)) and str(target).strip():
        return f"{asked}\n{BY_LAST_LINE}", "text", str(target).strip()
    raise UsageError(
        f'{where}: there is no answer to check: "answer" with {MARK}, "target", or "choices" with "gold"; '
        f"write a row like {EXAMPLE}."
    )


def _number(where: str, answer: str) -> str:
    said = answer.rpartition(MARK)[2].strip()
    try:
        return str(number(said))
    except InvalidOperation:
        raise UsageError(f'{where}: "{said}" after {MARK} is no number; write a row like {EXAMPLE}.') from None
