"""``scripts/faults [RUN.xml …]``: writes docs/faults.md from the declarations of the tests in this folder.

Each RUN.xml is what ``pytest tests/faults --junitxml RUN.xml`` wrote. Such runs in a row replace those of the page.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from support.faults import CODES, FAULTS, GROUPS, Fault
from support.paths import ROOT

PAGE = ROOT / "docs" / "faults.md"
RESULTS = ROOT / "docs" / "results" / "faults"  # what scripts/fuzz and scripts/leaks wrote
INTRODUCTION = """# Faults

What a run does when its server, its machine, its user or a checkpoint is at fault. Each row is a test in
`tests/faults`, which runs the whole command while the fault happens, and requires

- the verdict of the check that needs what the fault spoils, the exit code, and the sentence;
- an end within the bound;
- evidence that can be read: what is finished matches its manifest;
- nothing left: no process, no socket, no shared memory, no temporary file.

`scripts/test` runs {quick} of the {every} faults, `scripts/test --all` all of them. This page is made from the tests by
`scripts/faults`. A bound holds on two CPU cores beside other tests. "—" means that nothing is judged.
"""
FUZZING = """## Fuzzing

`scripts/fuzz` feeds edited samples to every reader of text that others write. A reader must read an input or refuse it
in its own words. An input on which one failed stays in `tests/fuzz/corpus`, and `scripts/test` reads it again.
"""
RUNS = """## Recorded runs

All faults, with `pytest tests/faults -n 3 --junitxml RUN.xml`. `scripts/faults RUN.xml …` records such runs, one after
the other. A test that passes has seen everything that its row requires.
"""
LEAKS = """## Leaks

`scripts/leaks` runs the main job at level smoke in one loop, with real servers, and compares the last third of the runs
with the first.
"""
FIGURES = {
    "memory_mib": "memory of the command, MiB",
    "descriptors": "its file descriptors",
    "processes": "processes that are left",
    "temporary": "entries in TMPDIR",
    "cache": "entries in the cache",
    "shared": "entries in /dev/shm",
}
HEAD = "| fault | what is done | verdict | exit code | bound | what the user reads |\n|---|---|---|---|---|---|\n"


def page() -> str:
    """The page."""
    for path in sorted(Path(__file__).parent.glob("test_faults_*.py")):
        importlib.import_module(path.stem)
    parts = [INTRODUCTION.format(quick=sum(fault.quick for fault in FAULTS.values()), every=len(FAULTS))]
    for group, title in GROUPS.items():
        rows = [_row(fault) for fault in FAULTS.values() if fault.group == group]
        parts.append(f"## {title}: {len(rows)} faults\n\n{HEAD}{''.join(rows)}")
    for name, section in (("runs.json", _runs), ("fuzz.json", _fuzzing), ("leaks.json", _leaks)):
        if (RESULTS / name).exists():
            parts.append(section(json.loads((RESULTS / name).read_text())))
    return "\n".join(parts)


def record(paths: Sequence[str]) -> None:
    """Keep what runs of all faults counted."""
    rows = []
    for path in paths:
        suite = ElementTree.parse(path).getroot()[0].attrib
        counts = {name: int(suite[name]) for name in ("tests", "failures", "errors", "skipped")}
        rows.append({"began": suite["timestamp"][:16], "seconds": round(float(suite["time"])), **counts})
    seen = {"python": platform.python_version(), "cores": os.cpu_count(), "runs": rows}
    (RESULTS / "runs.json").write_text(json.dumps(seen, indent=1) + "\n", encoding="utf-8")


def _runs(seen: Any) -> str:
    """What the recorded runs counted."""
    rows = [
        f"| {run['began'].replace('T', ' ')} | {run['seconds']} | {run['tests']} | {run['failures'] + run['errors']} "
        f"| {run['skipped']} |\n"
        for run in seen["runs"]
    ]
    told = f"On {seen['cores']} CPU cores, with Python {seen['python']}:"
    head = "| began | seconds | tests | failed | skipped |\n|---|---|---|---|---|\n"
    return f"{RUNS}\n{told}\n\n{head}{''.join(rows)}"


def _fuzzing(seen: Any) -> str:
    """What the last long campaign of ``scripts/fuzz`` counted."""
    rows = [
        f"| {name} | {count['inputs']:,} | {len(count['failures']) or 'none'} |\n"
        for name, count in seen["readers"].items()
    ]
    told = f"On {seen['date']}, `{seen['command']}` fed {seen['inputs']:,} inputs in {seen['seconds']} s."
    return f"{FUZZING}\n{told}\n\n| reader | inputs | failures |\n|---|---|---|\n{''.join(rows)}"


def _leaks(seen: Any) -> str:
    """What the last loop of ``scripts/leaks`` saw: each figure in its runs, from the least to the most."""
    rows = [_spread(name, what, seen["runs"]) for name, what in FIGURES.items()]
    grows = "; ".join(seen["grows"]) or "Nothing grows"
    told = f"On {seen['date']}, `{seen['command']}` ran level smoke {len(seen['runs'])} times. {grows}."
    return f"{LEAKS}\n{told}\n\n| figure | least | most | last |\n|---|---|---|---|\n{''.join(rows)}"


def _spread(name: str, what: str, runs: Sequence[Mapping[str, float]]) -> str:
    values = [round(run[name]) for run in runs]
    return f"| {what} | {min(values)} | {max(values)} | {values[-1]} |\n"


def _row(fault: Fault) -> str:
    verdict = "—" if fault.verdict == "-" else fault.verdict
    code = f"{fault.code}: {CODES[fault.code]}" if fault.code in CODES else "that of the signal"
    says = f"`{_cell(fault.says)}`" if fault.says else "nothing"
    cells = (_cell(fault.name), _cell(fault.done), verdict, code, f"{fault.seconds:g} s", says)
    return f"| {' | '.join(cells)} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    if sys.argv[1:]:
        record(sys.argv[1:])
    PAGE.write_text(page(), encoding="utf-8")
