"""docs/detection.md: what the checks made of the exhibits, what is no exhibit and why, and each layer in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mutation import page as mutants
from support import false_alarms, records
from support.paths import ROOT

from negative_controls.museum.exhibits import Exhibit, Museum

PAGE, RECORD = ROOT / "docs" / "detection.md", ROOT / "docs" / "results" / "museum.json"
Rows = Mapping[str, Mapping[str, Any]]
IDLE = 4  # the load of two cores that show an exhibit
BAD = ("FAIL", "ERROR")
INTRODUCTION = """# Detection

What this suite catches, and what it misses. Known defects are put back into the installed vLLM, one at a time, and the
checks judge it. `scripts/museum` shows them and records the result in `docs/results/museum.json`; this page is made
from that file and from `tests/negative_controls/museum/exhibits.toml`. A tour goes on where it stopped.

{summary}

- **Caught by**: the checks that fail. ERROR means that the suite refuses numbers that contradict each other. A check
  whose waiver allows all that it found is silent: the parser of vLLM 0.32.0 has defects of its own.
- **Missed by**: checks that had to fail and did not.
- **Silent**: checks that looked at the same server and passed, because this defect is not theirs. All other checks are
  not applicable: they look at something that the exhibit does not touch, and were not asked.
- **Diagnosis**: right if the first known failure that is named beside the checks that must fail is this defect, and
  none is named where the defect is no known failure. The names are those of `fixtures/known_failures`.
- **Seconds**: to observe and to judge; the servers of a room start once and are not counted.
"""
UNFORESEEN = """## What nobody has foreseen

The exhibits are known defects. These checks look at a whole layer and need not know what is wrong, so a new defect
should show in one of them. The last column says what none of them sees.

| layer | exhibits | checks that are expected to catch it | why | what no check sees |
|---|---|---|---|---|
"""


def recorded(path: Path = RECORD) -> dict[str, Any]:
    """What was recorded, by exhibit."""
    return dict(records.read(path) or {})


def page(museum: Museum, rows: Rows) -> str:
    """The page."""
    parts = [INTRODUCTION.format(summary=_summary(museum, rows))]
    for layer in museum.layers:
        named = {name: each for name, each in museum.named().items() if each.layer == layer}
        parts.append(_layer_table(layer, named, rows))
    parts += [_expectations(museum), _not_shown(museum)]
    parts += [mutants.section(mutants.recorded()), false_alarms.table(false_alarms.recorded())]
    return "\n".join(parts)


def _summary(museum: Museum, rows: Rows) -> str:
    named = museum.named()
    shown = {name: rows[name] for name in named if name in rows}
    caught = [name for name, row in shown.items() if row["as_expected"]]
    right = [name for name in caught if diagnosed_rightly(named[name], rows[name])]
    when = ", ".join(sorted({row["date"] for row in shown.values()})) or "never"
    where = "; ".join(sorted({f"vLLM {row['vllm']}, {row['machine']}" for row in shown.values()})) or "nowhere"
    load = max((row["load"] for row in shown.values()), default=0.0)
    busy = f" Other work ran beside it (load up to {load:g}), so the seconds are no measurement." if load > IDLE else ""
    minutes = sum(row["seconds"] for row in shown.values()) / 60
    return (
        f"**{len(shown)} of {len(named)} exhibits shown** ({when}; {where}): "
        f"{len(caught)} caught by the checks that must catch them, "
        f"{len(right)} with the right first diagnosis, in {minutes:.0f} minutes without the starts of servers.{busy}"
    )


def diagnosed_rightly(exhibit: Exhibit, row: Mapping[str, Any]) -> bool:
    """Whether the known failures that were named first are this defect, or none if it is no known failure."""
    return _named(row) == ({exhibit.failure} if exhibit.failure else set())


def _named(row: Mapping[str, Any]) -> set[str]:
    """The known failures that were named first beside the checks that must fail."""
    return {name for id, name in row.get("named", {}).items() if name and id in row["expected"]}


def _layer_table(layer: str, named: Mapping[str, Exhibit], rows: Rows) -> str:
    head = (
        "| exhibit | defect | caught by | missed by | silent | diagnosis | seconds |\n|---|---|---|---|---|---|---|\n"
    )
    body = "".join(_row(name, each, rows.get(name)) for name, each in named.items())
    return f"## Layer: {layer}\n\n{head}{body}"


def _row(name: str, exhibit: Exhibit, row: Mapping[str, Any] | None) -> str:
    defect = exhibit.defect + (f" ({exhibit.upstream})" if exhibit.upstream else "")
    if row is None or "verdicts" not in row:
        why = "not shown yet" if row is None else f"error: {row['error'].splitlines()[-1][:120]}"
        return f"| `{name}` | {defect} | {_cell(why)} |  |  |  |  |\n"
    verdicts = row["verdicts"]
    caught = [id + (" (ERROR)" if verdict == "ERROR" else "") for id, verdict in verdicts.items() if verdict in BAD]
    missed = [id for id in row["expected"] if verdicts.get(id) not in BAD]
    silent = [id for id, verdict in verdicts.items() if verdict not in BAD and id not in row["expected"]]
    right = "right" if diagnosed_rightly(exhibit, row) else "wrong"
    diagnosis = f"{right}: {', '.join(sorted(_named(row))) or 'none named'}"
    cells = (
        f"`{name}`",
        defect,
        ", ".join(caught),
        ", ".join(missed),
        ", ".join(silent),
        diagnosis,
        f"{row['seconds']:g}",
    )
    return f"| {' | '.join(map(_cell, cells))} |\n"


def _expectations(museum: Museum) -> str:
    """Layer by layer, what is expected to catch the unforeseen."""
    text = UNFORESEEN
    for name, layer in museum.layers.items():
        count = sum(each.layer == name for each in museum.named().values())
        text += f"| {name} | {count} | {', '.join(layer.checks)} | {layer.sees} | {layer.blind} |\n"
    return text


def _not_shown(museum: Museum) -> str:
    """The known failures that are no exhibits."""
    count = sum(len(each.failures) for each in museum.not_shown.values())
    text = f"## Known failures that are no exhibits: {count}\n\n| group | reason | known failures |\n|---|---|---|\n"
    for name, each in museum.not_shown.items():
        text += f"| {name} | {each.reason} | {', '.join(sorted(each.failures))} |\n"
    return text


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
