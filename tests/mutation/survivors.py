"""What mutmut has found so far, read from its folder ``mutants``: counts by module, and what each survivor changes."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

KILLED, SURVIVED, UNTESTED, TIMED_OUT, UNCHECKED = "killed", "survived", "no test", "timed out", "not checked"
# https://github.com/boxed/mutmut/blob/3.8.1/mutmut/stats.py; a signal has a negative code, or 128 more than its number
STATUSES = {1: KILLED, 3: KILLED, 0: SURVIVED, 5: UNTESTED, 33: UNTESTED, None: UNCHECKED}
STATUSES |= dict.fromkeys((24, -24, 36, 152, 255), TIMED_OUT)


@dataclass(frozen=True)
class Mutant:
    """One change: ``module`` and ``function`` say where it is, ``was`` and ``now`` are the lines that differ."""

    module: str
    function: str
    status: str
    was: str = ""
    now: str = ""
    seconds: float = 0.0  # that its tests took

    @property
    def text(self) -> str:
        """One line that names the change."""
        return f"{self.module}.{self.function}: {self.was} -> {self.now}"


def mutants(folder: Path) -> Iterator[Mutant]:
    """Every mutant that mutmut made; those that no test kills with their lines.

    Raises:
        KeyError: mutmut ended a mutant with a code that this module does not know.
    """
    for meta in sorted(folder.glob("conformance/**/*.py.meta")):
        source = meta.with_suffix("")
        module = ".".join(source.relative_to(folder / "conformance").with_suffix("").parts)
        found = json.loads(meta.read_text(encoding="utf-8"))
        for key, code in found["exit_code_by_key"].items():
            name, status = key.rpartition(".")[2], STATUSES[code]
            function = name.partition("__mutmut_")[0].removeprefix("x").removeprefix("_").strip("ǁ").replace("ǁ", ".")
            lines = ("", "") if status in (KILLED, UNCHECKED) else _lines(source, name)
            yield Mutant(module, function, status, *lines, seconds=found["durations_by_key"].get(key, 0.0))


def counts(every: list[Mutant]) -> dict[str, Counter[str]]:
    """How many mutants of each module ended in which way."""
    found: dict[str, Counter[str]] = {}
    for each in every:
        found.setdefault(each.module, Counter())[each.status] += 1
    return found


def _lines(source: Path, name: str) -> tuple[str, str]:
    """The lines of a function that a mutant changes, and what it makes of them."""
    text, spans = _read(source)
    function = name.partition("__mutmut_")[0]
    both = []
    for each in (f"{function}__mutmut_orig", name):
        first, last = spans[each]
        both.append([line.replace(each, function).strip() for line in text[first - 1 : last]])
    changed = list(difflib.ndiff(*both))
    was, now = (" ".join(line[2:] for line in changed if line.startswith(sign)) for sign in ("- ", "+ "))
    return was, now


@cache
def _read(source: Path) -> tuple[list[str], dict[str, tuple[int, int]]]:
    """The lines of a file with mutants, and the first and last line of each function."""
    spans = json.loads(source.with_name(f"{source.name}.spans").read_text(encoding="utf-8"))["spans"]
    return source.read_text(encoding="utf-8").splitlines(), spans
