"""``scripts/false_alarms [RUNS] [-- OPTION ...]``: runs the healthy main job in a loop and records every verdict.

A FAIL or an ERROR of a healthy run is a false alarm. Each run is recorded when it ends, so the loop goes on where it
stopped. Two keys of a recorded run are written by hand. ``explained`` says where its red verdicts come from; the run
counts. ``set_aside`` says what happened to the machine, so that the run says nothing about the suite; the run is listed
and does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from support import records
from support.paths import ROOT

RECORD = ROOT / "docs" / "results" / "false-alarms.json"
RUNS = 30
COMMAND = (sys.executable, "-m", "conformance")
RED = ("FAIL", "ERROR")
SHOWN = ("PASS", "INCONCLUSIVE", *RED)  # WAIVED and UNSUPPORTED are no alarms
CONFIDENCE = 0.95


def recorded(path: Path = RECORD) -> list[dict[str, Any]]:
    """The runs so far."""
    return list(records.read(path) or [])


def counted(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The runs that were not set aside."""
    return [run for run in runs if "set_aside" not in run]


def once(command: Sequence[str], options: Sequence[str], folder: Path) -> dict[str, Any]:
    """One run: its verdicts, and the sentences of the red ones.

    Raises:
        RuntimeError: it printed no report.
    """
    begin = time.monotonic()
    asked = [*command, *options, "--evidence", str(folder / "evidence"), "--json"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, cwd=ROOT)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        raise RuntimeError(
            f"{' '.join(asked)} ended with {done.returncode} and no report: {done.stderr[-300:]}"
        ) from None
    rows = report["verdicts"]
    return {
        **records.here(),
        "load": round(os.getloadavg()[2], 1),
        "options": list(options),
        "exit_code": done.returncode,
        "seconds": round(time.monotonic() - begin),
        "verdicts": {row["id"]: row["verdict"] for row in rows},
        "sentences": {row["id"]: row["sentence"][:300] for row in rows if row["verdict"] in RED},
    }


def record(runs: int, options: Sequence[str], path: Path = RECORD, command: Sequence[str] = COMMAND) -> None:
    """Run until so many runs with these options are recorded."""
    while len([run for run in counted(recorded(path)) if run["options"] == list(options)]) < runs:
        with tempfile.TemporaryDirectory(prefix="false-alarms-") as folder:
            rows = [*recorded(path), once(command, options, Path(folder))]
        path.parent.mkdir(parents=True, exist_ok=True)
        records.write(path, rows)
        print(f"run {len(rows)}: exit code {rows[-1]['exit_code']}, {rows[-1]['seconds']} s", flush=True)


def most_often(alarms: int, runs: int) -> float:
    """The largest share of false alarms that so many runs allow, with 95 % confidence (exact, one-sided)."""
    return 1.0 if alarms == runs else float(stats.beta.ppf(CONFIDENCE, alarms + 1, runs - alarms))


def table(every: Sequence[Mapping[str, Any]]) -> str:
    """A section of docs/detection.md."""
    head, runs = "## False alarms\n\n", counted(every)
    if not runs:
        return head + "No healthy run is recorded yet. `scripts/false_alarms` records 30.\n"
    counts: dict[str, Counter[str]] = {}
    for run in runs:
        for id, verdict in run["verdicts"].items():
            counts.setdefault(id, Counter())[verdict] += 1
    days, machines = sorted({run["date"] for run in runs}), Counter(run["machine"] for run in runs)
    loads = {name: max(run["load"] for run in runs if run["machine"] == name) for name in machines}
    where = "".join(f"- {machines[name]} on {name}, load up to {load:g}\n" for name, load in loads.items())
    quiet = [id for id, count in counts.items() if count["PASS"] == len(runs)]
    most = most_often(0, len(runs))
    text = head + (
        f"Healthy runs of the main job: {len(runs)} of {RUNS}, the last on {days[-1]}. {len(quiet)} checks passed each "
        f"time. Each of them has a false alarm in at most {most:.1%} of runs, with 95 % confidence. The runs by "
        f"machine:\n\n{where}"
    )
    text += _reasons("Runs with red verdicts, and why", "explained", runs)
    text += _reasons("Runs that do not count, and why", "set_aside", every)
    if rest := [id for id, count in counts.items() if any(count[word] for word in SHOWN[1:])]:
        text += "\n| checks | PASS | INCONCLUSIVE | FAIL | ERROR | false alarms at most | last red sentence |\n"
        text += "|---|---|---|---|---|---|---|\n" + _rows({id: counts[id] for id in rest}, runs)
    return text


def _reasons(title: str, key: str, runs: Sequence[Mapping[str, Any]]) -> str:
    found = Counter(run[key] for run in runs if key in run)
    return f"\n{title}:\n\n" + "".join(f"- {n}: {why}\n" for why, n in found.items()) if found else ""


def _rows(counts: Mapping[str, Counter[str]], runs: Sequence[Mapping[str, Any]]) -> str:
    """A row for all checks of equal numbers and the same last red sentence."""
    rows: dict[str, list[str]] = {}
    for id, count in counts.items():
        alarms = sum(count[word] for word in RED)
        said = next((run["sentences"][id] for run in reversed(runs) if id in run["sentences"]), "").replace("|", "\\|")
        numbers = " | ".join(str(count[word]) for word in SHOWN)
        rows.setdefault(f"{numbers} | {most_often(alarms, count.total()):.1%} | {said[:160]} |", []).append(id)
    return "".join(f"| {', '.join(ids)} | {row}\n" for row, ids in rows.items())


def main(arguments: list[str]) -> int:
    """Run the loop."""
    parser = argparse.ArgumentParser(prog="scripts/false_alarms", description=__doc__)
    parser.add_argument("runs", nargs="?", type=int, default=RUNS, help=f"how many runs in all ({RUNS})")
    parser.add_argument("options", nargs="*", help="options of qualify, after --")
    options = parser.parse_args(arguments)
    record(options.runs, options.options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
