"""``--dataset``: the user's own prompts, recorded with the evidence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from conformance import FIXTURES
from conformance.commands.main import main
from conformance.errors import UsageError
from conformance.evidence.folder import read_header
from conformance.run.session import Options, open_session
from conformance.workload.dataset import load_dataset
from conformance.workload.prompts import MIXED, SAMPLING, TOOLS, load_prompts

ROWS = [{"prompt": f"What is {i} plus {i}?", "output_tokens": 10 + i} for i in range(10)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_rows_become_prompts(file: Path) -> None:
    file.write_text(file.read_text() + '\n{"prompt": "Grüße", "other": 1}\n')
    first, *_, last = load_dataset(file)
    assert (first.id, first.category, first.licence, first.max_tokens) == ("dataset-0001", "dataset", "unknown", 10)
    assert last.messages == ({"role": "user", "content": "Grüße"},)
    assert (last.id, last.max_tokens) == ("dataset-0011", 256)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("{", r"data.jsonl:11: not valid JSON \(.*\); write a row like \{\"prompt\""),
        ("[" * 100_000, r"data.jsonl:11: not valid JSON \(maximum recursion depth"),
        ("[]", 'data.jsonl:11: key "prompt" must be a text'),
        ('{"text": "x"}', 'data.jsonl:11: key "prompt" must be a text'),
        ('{"prompt": " "}', 'data.jsonl:11: key "prompt" must be a text'),
        ('{"prompt": "x", "output_tokens": "9"}', 'data.jsonl:11: key "output_tokens" is "9"; it must be a whole'),
        ('{"prompt": "x", "output_tokens": 0}', 'data.jsonl:11: key "output_tokens" is 0; it must be a whole'),
    ],
)
def test_a_bad_row_is_named_with_its_mend(
    file: Path, row: str, sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file.write_text(file.read_text() + row + "\n")
    with pytest.raises(UsageError, match=sentence):
        load_dataset(file)
    assert main(["--dataset", str(file), "--evidence", str(file.parent / "run")]) == 2
    assert "data.jsonl:11: " in capfd.readouterr().err
    assert not (file.parent / "run").exists()


def test_too_few_rows_and_no_file(file: Path, tmp_path: Path) -> None:
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:3]))
    with pytest.raises(UsageError, match="has 3 prompts, but an interval needs at least 10; add more"):
        load_dataset(file)
    with pytest.raises(
        UsageError, match=r"nowhere.jsonl cannot be read \(No such file or directory\); name a JSON Lines"
    ):
        load_dataset(tmp_path / "nowhere.jsonl")


def test_the_data_set_is_recorded_and_asked(file: Path, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    session = open_session(Options(evidence=directory, dataset=file), tmp_path)
    session.begin()
    header = read_header(directory)
    assert (header.dataset, header.dataset_sha256) == (str(file), hashlib.sha256(file.read_bytes()).hexdigest())
    assert session.profile.prompts == directory / "prompts"
    assert load_prompts(session.profile.prompts / MIXED) == load_dataset(file)
    others = {file.name for file in (FIXTURES / "prompts").glob("*.jsonl")} - {MIXED}
    assert others >= {TOOLS, SAMPLING, "chat.jsonl", "misuse.jsonl"}
    for name in others:
        assert (session.profile.prompts / name).read_bytes() == (FIXTURES / "prompts" / name).read_bytes()


def test_recording_goes_on_with_the_same_data_set_only(file: Path, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    open_session(Options(evidence=directory, dataset=file), tmp_path).begin()
    for dataset in (None, file):
        again = open_session(Options(evidence=directory, dataset=dataset), tmp_path)
        assert again.profile.prompts == directory / "prompts"
        assert again.header == read_header(directory)
    other = tmp_path / "other.jsonl"
    other.write_text(file.read_text() + '{"prompt": "x"}\n')
    with pytest.raises(
        UsageError, match=r"was recorded with --dataset .*data.jsonl: leave out --dataset .*other.jsonl"
    ):
        open_session(Options(evidence=directory, dataset=other), tmp_path)


def test_a_header_without_data_set_is_still_read(file: Path, tmp_path: Path) -> None:
    session = open_session(Options(evidence=tmp_path / "run"), tmp_path)
    session.begin()
    path = tmp_path / "run" / "header.json"
    header = json.loads(path.read_text())
    del header["dataset"], header["dataset_sha256"]
    path.write_text(json.dumps(header))
    assert open_session(Options(evidence=tmp_path / "run"), tmp_path).profile.prompts == FIXTURES / "prompts"
    with pytest.raises(UsageError, match="was recorded with the suite's own prompts: leave out --dataset"):
        open_session(Options(evidence=tmp_path / "run", dataset=file), tmp_path)


MT_BENCH = {"question_id": 81, "category": "writing", "turns": ["Compose a post.", "Rewrite it."], "reference": []}
HUB = {"prompt_id": 1, "category": "math", "prompt": ["What is 2 + 2?", "And twice that?"], "reference": []}
SPEED_BENCH = {
    **{"question_id": "a", "category": "coding", "sub_category": "", "turns": ["Sort a list."], "source": "x"},
    **{"src_id": "7", "difficulty": "", "multiturn": False},
}
GSM8K = {"question": "How much is 6 times 7?", "answer": "6 * 7 = 42\n#### 42"}
HUMANEVAL = {"task_id": "HumanEval/0", "prompt": "def f():\n", "entry_point": "f", "canonical_solution": "", "test": ""}


def test_public_data_sets_are_recognised_by_their_rows(file: Path) -> None:
    rows = [MT_BENCH, HUB, SPEED_BENCH, GSM8K, HUMANEVAL, {"prompt": "x", "category": "mine"}, {"prompt": "y"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *ROWS]))
    found = load_dataset(file)[: len(rows)]
    assert [prompt.category for prompt in found] == [
        *("mt-bench/writing", "mt-bench/math", "speed-bench/coding", "gsm8k", "humaneval", "mine", "dataset"),
    ]
    texts = [prompt.messages[0]["content"] for prompt in found]
    assert texts[:3] == ["Compose a post.", "What is 2 + 2?", "Sort a list."]
    assert texts[3] == "How much is 6 times 7?\nPlease reason step by step, and put your final answer within \\boxed{}."
    assert texts[4].endswith("passes the tests:\n```python\ndef f():\n\n```")
    assert {len(prompt.messages) for prompt in found} == {1}


@pytest.mark.parametrize(
    "row", [{**MT_BENCH, "turns": []}, {**MT_BENCH, "turns": [" "]}, {**MT_BENCH, "category": None}, {"question": "x"}]
)
def test_a_public_row_without_its_text_is_named(file: Path, row: dict[str, object]) -> None:
    file.write_text(file.read_text() + json.dumps(row) + "\n")
    with pytest.raises(UsageError, match=r'data\.jsonl:11: key "prompt" must be a text'):
        load_dataset(file)
