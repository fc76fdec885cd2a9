"""Reads TOML tables into frozen dataclasses: unknown keys, missing keys and wrong types are errors."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from conformance.errors import UsageError

# For ``pydantic.dataclasses.dataclass(frozen=True, config=STRICT)``: no unknown keys, no silent conversions.
STRICT: Final = ConfigDict(extra="forbid", strict=True)

_UNKNOWN = "unexpected_keyword_argument"  # pydantic's name of this error

T = TypeVar("T")


def read(path: Path, shape: type[T], **given: str) -> T:
    """The TOML file as a value of ``shape``; ``given`` are fields that are not in the file, such as its name.

    Raises:
        UsageError: the file is wrong; the sentence names the file, the key and the mend.
    """
    table = parse(path)
    for key in given.keys() & table.keys():
        raise UsageError(f'{path}: key "{key}" follows from the file itself; remove it.')
    return convert(path, table | given, shape)


def parse(path: Path) -> dict[str, Any]:
    """The TOML file as plain dicts.

    Raises:
        UsageError: there is no such file, or it is not valid TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(f"{path}: there is no such file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}.") from None


def convert(path: Path, table: dict[str, Any], shape: type[T], where: str = "") -> T:
    """A parsed table as a value of ``shape``; ``where`` is its key in the file, for the message.

    Raises:
        UsageError: the table is wrong; the sentence names the file, the key and the mend.
    """
    adapter = TypeAdapter(shape)
    try:
        # JSON is used because the strict conversion of Python objects refuses a list for a tuple.
        return adapter.validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        # A misspelt key is also a missing key; the misspelling is the better message.
        first = min(error.errors(include_url=False), key=lambda each: each["type"] != _UNKNOWN)
        problem = _problem(first, where, adapter)
        raise UsageError(f"{path}: {problem}") from None


def nearest(word: str, words: Iterable[str]) -> str:
    """`` Did you mean "x"?`` if one of the words is similar, else an empty string."""
    close = difflib.get_close_matches(word, list(words), n=1)
    return f' Did you mean "{close[0]}"?' if close else ""


def _problem(error: ErrorDetails, where: str, adapter: TypeAdapter[Any]) -> str:
    keys = [str(part) for part in error["loc"]]
    name = ".".join([where, *keys] if where else keys)
    if error["type"] == _UNKNOWN:
        return f'key "{name}" is unknown; remove it.{nearest(keys[-1], _known(adapter))}'
    if error["type"] == "missing":
        return f'key "{name}" is missing; add it.'
    demand = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f'key "{name}" is {json.dumps(error["input"], default=str)}; it must be {demand}.'


def _known(adapter: TypeAdapter[Any]) -> set[str]:
    schema = adapter.json_schema()
    tables = [schema, *schema.get("$defs", {}).values()]
    return {key for table in tables for key in table.get("properties", {})}
