"""``scripts/faults``: writes docs/faults.md from the declarations of the tests in this folder."""

from __future__ import annotations

import importlib
from pathlib import Path

from support.faults import CODES, FAULTS, GROUPS, Fault
from support.paths import ROOT

PAGE = ROOT / "docs" / "faults.md"
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
HEAD = "| fault | what is done | verdict | exit code | bound | what the user reads |\n|---|---|---|---|---|---|\n"


def page() -> str:
    """The page."""
    for path in sorted(Path(__file__).parent.glob("test_faults_*.py")):
        importlib.import_module(path.stem)
    parts = [INTRODUCTION.format(quick=sum(fault.quick for fault in FAULTS.values()), every=len(FAULTS))]
    for group, title in GROUPS.items():
        rows = [_row(fault) for fault in FAULTS.values() if fault.group == group]
        parts.append(f"## {title}: {len(rows)} faults\n\n{HEAD}{''.join(rows)}")
    return "\n".join(parts)


def _row(fault: Fault) -> str:
    verdict = "—" if fault.verdict == "-" else fault.verdict
    code = f"{fault.code}: {CODES[fault.code]}" if fault.code in CODES else "that of the signal"
    says = f"`{_cell(fault.says)}`" if fault.says else "nothing"
    cells = (_cell(fault.name), _cell(fault.done), verdict, code, f"{fault.seconds:g} s", says)
    return f"| {' | '.join(cells)} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
