r"""A user's data set instead of the mixed prompts, in JSON Lines.

- the format of ``vllm bench serve --dataset-name custom``: ``prompt``, and perhaps ``output_tokens`` and ``category``;
- MT-Bench (fastchat/llm_judge/data/mt_bench/question.jsonl of lm-sys/FastChat, or HuggingFaceH4/mt_bench_prompts):
  ``category`` and ``turns`` or a list ``prompt``;
- SPEED-Bench (nvidia/SPEED-Bench): the same with ``src_id``;
- GSM8K: ``question`` and ``answer``; HumanEval: ``task_id``, ``entry_point`` and ``prompt``. Both are asked as vLLM's
  own acceptance tests ask them (tests/v1/e2e/spec_decode/acceptance_rates/utils.py).

The category of a prompt names its workload, as in "mt-bench/writing" or "gsm8k". No data set comes with the suite.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from conformance.errors import UsageError
from conformance.evidence.folder import write_atomically
from conformance.formats import json_lines
from conformance.formats.json_files import parse_json
from conformance.judging.stats import MINIMUM_CLUSTERS
from conformance.profile.workload_floors import PARTS
from conformance.workload.prompts import Prompt
from conformance.workload.questions import Question

DEFAULT_TOKENS = 256  # of an answer, if the row does not say
STEP_BY_STEP = r"Please reason step by step, and put your final answer within \boxed{}."
EXAMPLE = '{"prompt": "What is the capital of India?", "output_tokens": 10}'


def load_dataset(path: Path) -> list[Prompt]:
    """The rows as prompts of one message.

    Raises:
        UsageError: the file is wrong or has too few rows; the sentence names the file, the line and the mend.
    """
    rows = numbered_rows(path, EXAMPLE)
    if len(rows) < MINIMUM_CLUSTERS:
        raise UsageError(
            f"{path} has {len(rows)} prompts, but an interval needs at least {MINIMUM_CLUSTERS}; add more."
        )
    return [_prompt(where, place, row) for place, (where, row) in enumerate(rows, 1)]


def numbered_rows(path: Path, example: str) -> list[tuple[str, Any]]:
    """The JSON values of a user's file, each with its place in words; a row that is no object is given as {}.

    Raises:
        UsageError: the file cannot be read, or a line is not JSON; the sentence has ``example``, a good row.
    """
    try:
        lines = list(json_lines.numbered_lines(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(
            f"{path} cannot be read ({reason}); name a JSON Lines file with rows like {example}."
        ) from None
    rows = []
    for number, line in lines:
        where = f"{path}:{number}"
        try:
            row = parse_json(line)
        except ValueError as error:
            raise UsageError(f"{where}: not valid JSON ({error}); write a row like {example}.") from None
        rows.append((where, row if isinstance(row, dict) else {}))
    return rows


def whole_number(where: str, key: str, value: Any, default: int) -> int:
    """A value of a row that counts something.

    Raises:
        UsageError: it is no whole number above 0.
    """
    found = default if value is None else value
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise UsageError(f'{where}: key "{key}" is {json.dumps(found)}; it must be a whole number above 0.')
    return found


def write_prompts(rows: Mapping[str, Sequence[Prompt | Question]], folder: Path, others: Path) -> None:
    """Write a folder of prompts like fixtures/prompts: these rows by file name, and the other files of ``others``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, found in rows.items():
        lines = ({key: value for key, value in asdict(row).items() if value not in ((), None)} for row in found)
        write_atomically(folder / name, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    for file in others.glob("*.jsonl"):
        if file.name not in rows:
            shutil.copyfile(file, folder / file.name)


def _prompt(where: str, place: int, row: Mapping[str, Any]) -> Prompt:
    found = next((made for shape in SHAPES if (made := shape(row))), None)
    if found is None:
        raise UsageError(f'{where}: key "prompt" must be a text; write a row like {EXAMPLE}.')
    category, text = found
    tokens = whole_number(where, "output_tokens", row.get("output_tokens"), DEFAULT_TOKENS)
    message = {"role": "user", "content": text}
    return Prompt(f"dataset-{place:04}", category, "unknown", (message,), tokens)


# --- the shapes of rows: each gives the category and the text of a prompt, or None for another row ------------------


def _turns(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """A row of MT-Bench or SPEED-Bench. The first turn is asked, as for the published figures of MT-Bench."""
    turns = row.get("turns") or row.get("prompt")
    if not isinstance(turns, list) or not turns or not _is_text(turns[0]) or not _is_text(row.get("category")):
        return None
    workload = "speed-bench" if "src_id" in row else "mt-bench"
    return f"{workload}{PARTS}{row['category']}", turns[0]


def _humaneval(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """A row of HumanEval, asked as vLLM's acceptance tests ask it."""
    if not _is_text(row.get("prompt")) or not {"task_id", "entry_point"} <= row.keys():
        return None
    asked = "Write a solution to the following problem and make sure that it passes the tests:"
    return "humaneval", f"{asked}\n```python\n{row['prompt']}\n```"


def _gsm8k(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """A row of GSM8K, asked in the same way."""
    if not _is_text(row.get("question")) or not _is_text(row.get("answer")):
        return None
    return "gsm8k", f"{row['question']}\n{STEP_BY_STEP}"


def _custom(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """A row of vLLM's own format, with or without a category."""
    if not _is_text(row.get("prompt")):
        return None
    return str(row["category"]) if _is_text(row.get("category")) else "dataset", str(row["prompt"])


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


SHAPES = (_turns, _humaneval, _gsm8k, _custom)
