"""What must not be read by others is replaced before it is written: evidence and reports are made to be sent around.

Three kinds are known: the values of environment variables whose names say so, tokens whose shape says so, and, in logs
and sentences, what stands behind a name that says so. Whoever adds a place where text from outside enters evidence
calls this there; prompts are the user's own and stay as they are.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from conformance.formats.secrets import SECRET_FLAG, SECRET_NAME, SECRET_WORDS, is_secret

MARK = "<redacted>"
SHORTEST = 6  # characters of a value; what is shorter is a stopgap such as EMPTY, and part of other words

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
# What stands behind a name: --api-key VALUE, 'api_key': ['VALUE'], HF_TOKEN=VALUE, Authorization: Basic VALUE.
_BEHIND = re.compile(
    rf"""((?:--(?:token|(?:[\w-]+-)?{SECRET_WORDS})["']?[\s=,]+["']?
        |["'](?:\w+[_-])?{SECRET_WORDS}["']\s*:\s*[\[(]?\s*["']
        |(?-i:\b[A-Z][A-Z0-9_]*_(?:TOKEN|KEY|SECRET|PASSWORD))\s*=\s*["']?
        |authorization["']?\s*[:=]\s*["']?(?:(?:basic|bearer|token)\s+)?))
        (?!<redacted>|-|(?:basic|bearer|token)\s)[^\s"',;\])}}]+""",
    re.VERBOSE | re.IGNORECASE,
)


def redact_text(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """A log or a sentence without secrets."""
    return _BEHIND.sub(rf"\1{MARK}", _without_tokens(text, _values(environment)))


def redact_document(document: Any, environment: Mapping[str, str] = os.environ) -> Any:
    """The same for JSON values, string by string; names stay, and so does what merely stands behind one.

    Facts are compared with each other, and the same text may stand in one of them with its name and in another without.
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
    """A command without the values of secret options, of which there may be several."""
    found, secret = [], False
    for word in words:
        secret = SECRET_FLAG.fullmatch(word) is not None or (secret and not word.startswith("-"))
        found.append(MARK if secret and not word.startswith("-") else redact_text(word, environment))
    return found


def redact_environment(chosen: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment variables with the values of secret ones replaced."""
    return {name: MARK if is_secret(name) else redact_text(value, environment) for name, value in chosen.items()}


def redact_file(path: Path, environment: Mapping[str, str] = os.environ) -> None:
    """Rewrite a text that somebody else has written, when he is done with it; what is no text, or gone, stays."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return
    if b"\0" in raw:
        return
    text = raw.decode("utf-8", errors="surrogateescape")
    clean = redact_text(text, environment)
    if clean != text:
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.write_bytes(clean.encode("utf-8", errors="surrogateescape"))
        part.replace(path)


def _without_tokens(text: str, values: re.Pattern[str] | None) -> str:
    return _SHAPES.sub(MARK, values.sub(MARK, text) if values else text)


def _values(environment: Mapping[str, str]) -> re.Pattern[str] | None:
    secrets = {value for name, value in environment.items() if SECRET_NAME.search(name)}
    return _alternatives(frozenset(secrets))


@functools.lru_cache(maxsize=8)
def _alternatives(secrets: frozenset[str]) -> re.Pattern[str] | None:
    """All ways in which these values may be written, the longest first."""
    ways = {way for secret in secrets for way in _ways(secret)}
    found = sorted((way for way in ways if len(way) >= SHORTEST), key=lambda way: (-len(way), way))
    return re.compile("|".join(map(re.escape, found))) if found else None


def _ways(secret: str) -> Iterator[str]:
    """As it is, line by line, inside JSON, and inside an address."""
    for text in (secret, *secret.splitlines()):
        yield from (text.strip(), json.dumps(text)[1:-1], quote(text, safe=""))
