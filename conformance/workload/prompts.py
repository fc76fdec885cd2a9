"""Prompts: rows of fixtures/prompts and of the user's own data sets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic.dataclasses import dataclass as table

from conformance.errors import UsageError
from conformance.formats import json_lines, toml_tables
from conformance.formats.json_files import parse_json
from conformance.formats.toml_tables import STRICT

MIXED, TOOLS, SAMPLING = "mixed.jsonl", "tools.jsonl", "sampling.jsonl"  # in the profile's folder of prompts
LONG = "long.jsonl"  # also there: texts that fill several blocks of a cache


@table(frozen=True, config=STRICT)
class Prompt:
    """One row of fixtures/prompts."""

    id: str
    category: str
    licence: str
    messages: tuple[dict[str, Any], ...]
    max_tokens: int
    tools: tuple[dict[str, Any], ...] = ()
    chat_template_kwargs: dict[str, Any] | None = None
    expected: dict[str, Any] | None = None  # the expected call: name and arguments


@table(frozen=True, config=STRICT)
class Prefix:
    """One row of sampling.jsonl: the beginning of a text, without a chat."""

    id: str
    category: str
    licence: str
    text: str


class Identified(Protocol):
    """A row with an id."""

    @property
    def id(self) -> str: ...


Row = TypeVar("Row", bound=Identified)


def load_prompts(path: Path) -> list[Prompt]:
    """The prompts of a JSON Lines file.

    Raises:
        UsageError: the file is wrong; the sentence names the file, the line and the mend.
    """
    return load_rows(path, Prompt)


def load_prefixes(path: Path) -> list[Prefix]:
    """The prefixes of a JSON Lines file.

    Raises:
        UsageError: the file is wrong; the sentence names the file, the line and the mend.
    """
    return load_rows(path, Prefix)


def load_rows(path: Path, shape: type[Row]) -> list[Row]:
    """The rows of a JSON Lines file; ``shape`` is any dataclass with an id.

    Raises:
        UsageError: the file is wrong; the sentence names the file, the line and the mend.
    """
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file; name a JSON Lines file.")
    prompts: list[Row] = []
    for number, line in json_lines.numbered_lines(path.read_text(encoding="utf-8")):
        where = Path(f"{path}:{number}")
        try:
            row = parse_json(line)
        except ValueError as error:
            raise UsageError(f"{where}: not valid JSON ({error}); correct this line.") from None
        prompts.append(toml_tables.convert(where, row, shape))
    ids = [prompt.id for prompt in prompts]
    for repeated in sorted({name for name in ids if ids.count(name) > 1}):
        raise UsageError(f'{path}: id "{repeated}" occurs more than once; rename one.')
    if not prompts:
        raise UsageError(f"{path} holds no prompts; add some.")
    return prompts


def spread(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """The first ``count`` prompts, taken from each category in turn."""
    by_category: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        by_category.setdefault(prompt.category, []).append(prompt)
    turns = chain.from_iterable(zip_longest(*by_category.values()))
    return [prompt for prompt in turns if prompt is not None][:count]
