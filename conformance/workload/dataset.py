"""A user's data set instead of the mixed prompts, in the format of ``vllm bench serve --dataset-name custom``."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from conformance.errors import UsageError
from conformance.evidence.folder import write_atomically
from conformance.formats import json_lines
from conformance.formats.json_files import parse_json
from conformance.judging.stats import MINIMUM_CLUSTERS
from conformance.workload.prompts import MIXED, Prompt

DEFAULT_TOKENS = 256  # of an answer, if the row does not say
EXAMPLE = '{"prompt": "What is the capital of India?", "output_tokens": 10}'


def load_dataset(path: Path) -> list[Prompt]:
    """The rows as prompts of one message.

    Raises:
        UsageError: the file is wrong or has too few rows; the sentence names the file, the line and the mend.
    """
    try:
        rows = list(json_lines.numbered_lines(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(
            f"{path} cannot be read ({reason}); name a JSON Lines file with rows like {EXAMPLE}."
        ) from None
    if len(rows) < MINIMUM_CLUSTERS:
        raise UsageError(
            f"{path} has {len(rows)} prompts, but an interval needs at least {MINIMUM_CLUSTERS}; add more."
        )
    return [_prompt(f"{path}:{number}", place, line) for place, (number, line) in enumerate(rows, 1)]


def write_prompts(prompts: list[Prompt], folder: Path, others: Path) -> None:
    """Write a folder of prompts like fixtures/prompts: these as the mixed ones, and the rest from ``others``."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ({key: value for key, value in asdict(prompt).items() if value} for prompt in prompts)
    write_atomically(folder / MIXED, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    for file in others.glob("*.jsonl"):
        if file.name != MIXED:
            shutil.copyfile(file, folder / file.name)


def _prompt(where: str, place: int, line: str) -> Prompt:
    try:
        row = parse_json(line)
    except ValueError as error:
        raise UsageError(f"{where}: not valid JSON ({error}); write a row like {EXAMPLE}.") from None
    prompt = row.get("prompt") if isinstance(row, dict) else None
    if not isinstance(prompt, str) or not prompt.strip():
        raise UsageError(f'{where}: key "prompt" must be a text; write a row like {EXAMPLE}.')
    tokens = row.get("output_tokens")
    tokens = DEFAULT_TOKENS if tokens is None else tokens
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
        raise UsageError(f'{where}: key "output_tokens" is {json.dumps(tokens)}; it must be a whole number above 0.')
    message = {"role": "user", "content": prompt}
    return Prompt(f"dataset-{place:04}", "dataset", "unknown", (message,), tokens)
