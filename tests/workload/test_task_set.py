"""``--task-set``: the user's own questions with checkable answers, in the formats of public benchmarks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from conformance import FIXTURES
from conformance.commands.main import main
from conformance.errors import UsageError
from conformance.evidence.folder import read_header
from conformance.run.session import Options, open_session
from conformance.views.task_score import RULES
from conformance.workload.prompts import MIXED
from conformance.workload.questions import QUESTIONS, load_questions
from conformance.workload.task_set import load_task_set

GSM8K = {"question": "How much is 6 times 7,000?", "answer": "It is 6*7000 = <<6*7000=42000>>42,000\n#### 42,000"}
CHOICES = {"query": "Baking: A man", "choices": ["flies.", "bakes."], "gold": 1}
MMLU = {"question": "Which is odd?", "subject": "arithmetic", "choices": ["1", "2", "4", "6"], "answer": 0}
TARGET = {"question": "Who wrote Faust?", "target": "Goethe"}
SAMPLE = {"doc_id": 0, "doc": GSM8K, "target": GSM8K["answer"], "resps": [["42"]]}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_rows_become_questions(tmp_path: Path) -> None:
    rows = (GSM8K, CHOICES, MMLU, TARGET, SAMPLE, {**TARGET, "output_tokens": 7})
    gsm8k, choices, mmlu, target, sample, short = load_task_set(write(tmp_path / "set.jsonl", *rows))
    assert (gsm8k.id, gsm8k.rule, gsm8k.expected, gsm8k.max_tokens) == ("question-0001", "number", "42000", 1024)
    assert gsm8k.messages[0]["content"].startswith("How much is 6 times 7,000?\nPlease reason step by step, and")
    assert (choices.rule, choices.expected, choices.category) == ("choice", "B", "choice")
    assert choices.messages[0]["content"] == (
        "Baking: A man\nA. flies.\nB. bakes.\nAnswer with the letter of the right choice alone."
    )
    assert (mmlu.rule, mmlu.expected, mmlu.category) == ("choice", "A", "arithmetic")
    assert (target.rule, target.expected) == ("text", "Goethe")
    assert (sample.rule, sample.expected, sample.messages) == ("number", "42000", gsm8k.messages)
    assert short.max_tokens == 7


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("{", r"set.jsonl:2: not valid JSON \(.*\); write a row like"),
        ("[]", 'set.jsonl:2: key "question" must be a text'),
        ({"answer": "#### 4"}, 'set.jsonl:2: key "question" must be a text'),
        ({"question": "x", "answer": "4"}, "set.jsonl:2: there is no answer to check"),
        ({"question": "x", "answer": "#### four"}, 'set.jsonl:2: "four" after #### is no number'),
        ({"question": "x", "choices": ["a"], "gold": 1}, 'set.jsonl:2: key "gold" is 1; it must be the index'),
        ({"question": "x", "choices": ["a"], "gold": "0"}, 'set.jsonl:2: key "gold" is "0"; it must be the index'),
        ({**TARGET, "output_tokens": 0}, 'set.jsonl:2: key "output_tokens" is 0; it must be a whole'),
    ],
)
def test_a_bad_row_is_named_with_its_mend(
    tmp_path: Path, row: Any, sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "set.jsonl", GSM8K, row)
    with pytest.raises(UsageError, match=sentence):
        load_task_set(file)
    assert main(["--task-set", str(file), "--evidence", str(tmp_path / "run")]) == 2
    assert "set.jsonl:2: " in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"set.jsonl has no questions; add rows like"):
        load_task_set(write(tmp_path / "set.jsonl"))


@pytest.mark.parametrize(
    ("rule", "content", "expected", "right"),
    [
        ("number", r"So it is 6 * 7,000 = \boxed{42,000}.", "42000", True),
        ("number", "It costs $42.00.", "42", True),
        ("number", "42 apples, or 43", "42", False),
        ("number", "The change is -3", "-3", True),
        ("number", "I do not know.", "42", False),
        ("choice", "B", "B", True),
        ("choice", "(B) bakes.", "B", True),
        ("choice", "**B.** bakes.", "B", True),
        ("choice", "Let me see. A flies, so the answer is **B**.", "B", True),
        ("choice", "Answer: C", "B", False),
        ("choice", "Both are possible.", "B", False),
        ("choice", "Because of that", "B", False),
        ("text", "Goethe", "Goethe", True),
        ("text", "It was written in Weimar.\ngoethe.", "Goethe", True),
        ("text", "Goethe wrote it.", "Goethe", False),
        ("text", "", "Goethe", False),
        ("json", '{"a": 1.0}', {"a": 1}, True),
        ("json", 'Here it is:\n```json\n{"a": 1}\n```', {"a": 1}, True),
        ("json", '{"a": "1"}', {"a": 1}, False),
        ("json", "{", {"a": 1}, False),
    ],
)
def test_what_is_right(rule: str, content: str, expected: Any, right: bool) -> None:
    assert RULES[rule]({"calls": [], "content": content}, expected) is right


def test_the_questions_are_recorded_and_the_other_prompts_stay(tmp_path: Path) -> None:
    file, directory = write(tmp_path / "set.jsonl", GSM8K, TARGET), tmp_path / "run"
    session = open_session(Options(evidence=directory, task_set=file), tmp_path)
    session.begin()
    header = read_header(directory)
    assert (header.task_set, header.task_set_sha256) == (str(file), hashlib.sha256(file.read_bytes()).hexdigest())
    assert session.profile.prompts == directory / "prompts"
    assert load_questions(session.profile.prompts / QUESTIONS) == load_task_set(file)
    assert (session.profile.prompts / MIXED).read_bytes() == (FIXTURES / "prompts" / MIXED).read_bytes()
    again = open_session(Options(evidence=directory), tmp_path)
    assert again.profile.prompts == directory / "prompts"
    other = write(tmp_path / "other.jsonl", TARGET)
    with pytest.raises(UsageError, match=r"was recorded with --task-set .*set.jsonl: leave out --task-set .*other"):
        open_session(Options(evidence=directory, task_set=other), tmp_path)


def test_the_suites_own_questions_are_many_and_different() -> None:
    questions = load_questions(FIXTURES / "prompts" / QUESTIONS)
    assert len(questions) == 120
    assert len({json.dumps(question.messages) for question in questions}) == 120
    assert {question.rule for question in questions} == {"calls", "json", "text"}
    mixed = {json.dumps(json.loads(line)["messages"]) for line in (FIXTURES / "prompts" / MIXED).open(encoding="utf-8")}
    assert not mixed & {json.dumps(question.messages) for question in questions}
