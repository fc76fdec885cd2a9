"""Replaces secrets before anything is written, because people send evidence and reports to others.

Three kinds of secrets are recognised: the values of environment variables with a secret name, tokens with a known form,
and, in logs and sentences, the text after a secret name. Code that takes text from outside into evidence must call this
module. Prompts belong to the user and are not changed.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from conformance.formats.secrets import SECRET_FLAG, SECRET_NAME, SECRET_WORDS, is_secret

MARK = "<redacted>"
LARGEST_LOG = 1 << 26  # bytes that evidence keeps of a log: half from its beginning, half from its end
SHORTEST = 6  # characters; a shorter value is a placeholder such as EMPTY, and may be part of other words

_SHAPES = re.compile(
    r"""\b(?:hf_[A-Za-z0-9]{16,}                       # Hugging Face
        |(?:sk|nvapi|glpat)-[\w-]{16,}                 # OpenAI and its likes, NVIDIA, GitLab
        |gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,} # GitHub
        |(?:AKIA|ASIA)[A-Z0-9]{16}\b                   # AWS
        |xox[abeoprs]-[\w-]{10,}                       # Slack
        |(?<=Bearer\ )[\w.~+/-]{8,}=*)
        |(?<=://)[^\s/:@"'<>]*:[^\s/@"'<>]+(?=@)       # user:password@host""",
    re.VERBOSE,
)
# The text after a secret name: --api-key VALUE, 'api_key': ['VALUE'], HF_TOKEN=VALUE, Authorization: Basic VALUE.
_BEHIND = re.compile(
    rf"""((?:--(?:token|(?:[\w-]+-)?{SECRET_WORDS})["']?[\s=,]+["']?
        |["'](?:\w+[_-])?{SECRET_WORDS}["']\s*:\s*[\[(]?\s*["']
        |(?-i:\b[A-Z][A-Z0-9_]*_(?:TOKEN|KEY|SECRET|PASSWORD))\s*=\s*["']?
        |authorization["']?\s*[:=]\s*["']?(?:(?:basic|bearer|token)\s+)?))
        (?!<redacted>|-|(?:basic|bearer|token)\s)[^\s"',;\])}}]+""",
    re.VERBOSE | re.IGNORECASE,
)

# A chunk without these has no match of _SHAPES, and one without a name that looks secret has none of _BEHIND. Both
# patterns are far slower than a search for some words.
_SHAPE_WORDS = (
    *("hf_", "sk-", "nvapi-", "glpat-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    *("AKIA", "ASIA", "xox", "Bearer "),
)
_NAME_WORDS = ("secret", "passw", "passphrase", "authorization")
_NAME_ENDS = (re.compile(r"token[\s\"'=,]"), re.compile(r"key[\s\"'=,]"))
_ALSO_LETTERS = "\u0130\u0131\u017f"  # which equal i and s where case is ignored, but not in lower case
_CHUNK = 1 << 16  # characters
_CHUNK_END = re.compile(r"[0-9.)\]}%]\n")  # where no match goes on: after a secret name, or between it and its value

_clean: dict[Path, tuple[tuple[int, int, int], re.Pattern[str] | None]] = {}  # files without secrets, as they were then


def redact_text(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """A log or a sentence without secrets."""
    chunks = _chunks(_without_values(text, _values(environment)))
    return "".join(_without_named(_without_shapes(chunk)) for chunk in chunks)


def redact_document(document: Any, environment: Mapping[str, str] = os.environ) -> Any:
    """JSON values with secrets replaced in every string. Keys stay, and so does text that only follows a secret name.

    Facts are compared with each other, and the same text may occur in one with a name before it and in another without.
    """
    values = _values(environment)

    def walk(part: Any) -> Any:
        if isinstance(part, str):
            return _without_tokens(part, values)
        if isinstance(part, Mapping):
            return {name: walk(value) for name, value in part.items()}
        if isinstance(part, (list, tuple)):
            return [walk(each) for each in part]
        return part

    return walk(document)


def redact_command(words: Sequence[str], environment: Mapping[str, str] = os.environ) -> list[str]:
    """A command without the values of secret options; one option may have several values."""
    found, secret = [], False
    for word in words:
        secret = SECRET_FLAG.fullmatch(word) is not None or (secret and not word.startswith("-"))
        found.append(MARK if secret and not word.startswith("-") else redact_text(word, environment))
    return found


def redact_environment(chosen: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment variables with the values of secret ones replaced."""
    return {name: MARK if is_secret(name) else redact_text(value, environment) for name, value in chosen.items()}


def redact_file(path: Path, environment: Mapping[str, str] = os.environ) -> None:
    """Replace the secrets in a file that another program has written, and cut the middle out of a log that is too long.

    A binary or missing file is left alone, and one that has not changed since its secrets were replaced.
    """
    secrets = _values(environment)
    try:
        state = _state(path)
        if _clean.get(path) == (state, secrets):
            return
        with path.open("rb") as file:
            raw = both_ends(file, LARGEST_LOG) if path.suffix == ".log" else file.read()
        size = path.stat().st_size
    except FileNotFoundError:
        return
    if b"\0" in raw:
        return
    text = raw.decode("utf-8", errors="surrogateescape")
    clean = redact_text(text, environment)
    if clean != text or len(raw) != size:
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.write_bytes(clean.encode("utf-8", errors="surrogateescape"))
        state = _state(part)
        part.replace(path)
    _clean[path] = state, secrets  # whoever writes to it meanwhile gives it another state


def _state(path: Path) -> tuple[int, int, int]:
    """What changes with the content of a file."""
    seen = path.stat()
    return seen.st_ino, seen.st_size, seen.st_mtime_ns


def both_ends(file: BinaryIO, largest: int) -> bytes:
    """The content of a file; if it is larger, its first and last lines, and between them how much is missing."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size <= largest:
        return file.read(largest)
    head = file.read(largest // 2).rpartition(b"\n")[0]
    file.seek(size - largest // 2)
    tail = file.read(largest // 2).partition(b"\n")[2]
    return b"%b\n[%d bytes are left out here]\n%b" % (head, size - len(head) - len(tail), tail)


def _without_tokens(text: str, values: re.Pattern[str] | None) -> str:
    return _without_shapes(_without_values(text, values))


def _without_values(text: str, values: re.Pattern[str] | None) -> str:
    return values.sub(MARK, text) if values else text


def _without_shapes(text: str) -> str:
    possible = ("://" in text and "@" in text) or any(word in text for word in _SHAPE_WORDS)
    return _SHAPES.sub(MARK, text) if possible else text


def _without_named(text: str) -> str:
    return _BEHIND.sub(rf"\1{MARK}", text) if _may_name_secret(text) else text


def _may_name_secret(text: str) -> bool:
    lower = text.lower()
    return (
        any(word in lower for word in _NAME_WORDS)
        or any(end.search(lower) for end in _NAME_ENDS)
        or any(letter in text for letter in _ALSO_LETTERS)
    )


def _chunks(text: str) -> Iterator[str]:
    """The text in parts that no secret crosses, so that a word in one line costs no slow search of the whole log."""
    begin = 0
    while len(text) - begin > _CHUNK and (end := _CHUNK_END.search(text, begin + _CHUNK)):
        yield text[begin : end.end()]
        begin = end.end()
    yield text[begin:]


def _values(environment: Mapping[str, str]) -> re.Pattern[str] | None:
    # Another thread may change the environment meanwhile: pytest sets a variable for each test.
    secrets = {environment.get(name, "") for name in list(environment) if SECRET_NAME.search(name)}
    return _alternatives(frozenset(secrets))


@functools.lru_cache(maxsize=8)
def _alternatives(secrets: frozenset[str]) -> re.Pattern[str] | None:
    """A pattern of all forms in which these values may occur, the longest first."""
    ways = {way for secret in secrets for way in _ways(secret)}
    found = sorted((way for way in ways if len(way) >= SHORTEST), key=lambda way: (-len(way), way))
    return re.compile("|".join(map(re.escape, found))) if found else None


def _ways(secret: str) -> Iterator[str]:
    """The forms of a secret: as it is, line by line, inside JSON, and inside a URL."""
    for text in (secret, *secret.splitlines()):
        yield from (text.strip(), json.dumps(text)[1:-1], quote(text, safe=""))
