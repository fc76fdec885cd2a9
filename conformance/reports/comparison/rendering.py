"""Renders a comparison for a terminal, for a comment on a pull request, and for programs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from conformance.judging.verdict import ExitCode
from conformance.reports.comparison.changes import BETTER, WORSE, Comparison, FigureChange, Side, VerdictChange
from conformance.reports.markdown import folded, plain, table
from conformance.reports.sanitize import json_text, printable
from conformance.reports.terminal import PLAIN_WIDTH, safe

FORMAT = 1
MARKS = {WORSE: "❌", BETTER: "✅"}
FIGURE_COLUMNS = ("figure", "A", "B", "change", "interval", "n", "")
VERDICT_COLUMNS = ("", "check", "A", "B", "what was found")
SUBJECT = ("pair", "hardware", "level", "vllm", "suite", "environment", "started")


def as_text(found: Comparison, *, width: int | None, colour: bool) -> str:
    """Tables of verdicts and figures; ``colour`` is for terminals, without it the text has only plain characters."""
    out = io.StringIO()
    console = Console(
        file=out, width=width or PLAIN_WIDTH, force_terminal=colour, no_color=not colour, highlight=False, emoji=False
    )
    lines = box.SIMPLE_HEAD if colour else box.ASCII2
    for name, side in _sides(found):
        console.print(safe(f"{name}: {side.run.evidence}: {side.judgement.sentence}"), soft_wrap=True)
    if found.verdicts:
        rows = [(each.direction, each.id, each.before, each.after, each.sentence) for each in found.verdicts]
        _print(console, lines, VERDICT_COLUMNS, rows)
    if found.figures:
        _print(console, lines, FIGURE_COLUMNS, [_cells(figure) for figure in found.figures])
        console.print(safe(_key(found), "dim"))
    for note in found.notes:
        console.print(safe(note), soft_wrap=True)
    style = "bold green" if found.exit_code is ExitCode.QUALIFIED else "bold red"
    console.print(safe(found.sentence, style), soft_wrap=True)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def as_markdown(found: Comparison) -> str:
    """The changes first, then all compared figures, folded."""
    worse = [each for each in found.verdicts if each.direction == WORSE]
    rest = [each for each in found.verdicts if each.direction != WORSE]
    changed = [_marked(figure) for figure in found.figures if figure.decides and figure.differs]
    every = [_escaped(_cells(figure)) for figure in found.figures]
    parts = [
        f"### {'✅' if found.exit_code is ExitCode.QUALIFIED else '❌'} {plain(found.sentence)}",
        *(plain(note) for note in found.notes),
        table(VERDICT_COLUMNS, map(_row, [*worse, *rest])) if found.verdicts else "No verdict changed.",
        table(FIGURE_COLUMNS, changed) if changed else "",
        folded(f"All {len(every)} figures", f"{table(FIGURE_COLUMNS, every)}\n\n{plain(_key(found))}") if every else "",
        folded("Both runs", _runs(found)),
    ]
    return printable("\n\n".join(filter(None, parts)) + "\n")


def as_json(found: Comparison) -> str:
    """One document, valid against reports/comparison/comparison.schema.json."""
    document = {
        "format": FORMAT,
        "exit_code": int(found.exit_code),
        "sentence": found.sentence,
        **{name: _subject(side) for name, (_, side) in zip(("before", "after"), _sides(found), strict=True)},
        "notes": list(found.notes),
        "verdicts": [{**vars(each), "direction": each.direction} for each in found.verdicts],
        "confidence": found.confidence,
        "figures": [_figure(each) for each in found.figures],
    }
    return json_text(document)


def _sides(found: Comparison) -> list[tuple[str, Side]]:
    return [("A", found.before), ("B", found.after)]


def _print(console: Console, lines: box.Box, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    shown = Table(box=lines, pad_edge=False, padding=(0, 1, 0, 0) if lines is box.SIMPLE_HEAD else (0, 1))
    for name in columns:
        number = columns is FIGURE_COLUMNS and name not in ("figure", "interval", "")
        shown.add_column(name, justify="right" if number else "left", no_wrap=name != "what was found")
    for row in rows:
        shown.add_row(*(safe(cell) for cell in row))
    console.print(shown)


def _cells(figure: FigureChange) -> tuple[str, ...]:
    """A row of the table of figures: a ratio as "… times", a difference with its sign."""
    change, form = figure.change, "{:.3f} times" if figure.is_ratio else "{:+.3f}"
    ends = "{:.3f} to {:.3f}" if figure.is_ratio else "{:+.3f} to {:+.3f}"
    interval = ends.format(change.low, change.high)
    said = figure.said if figure.decides else f"({figure.said})"
    name, n = figure.name, str(change.n)
    return name, f"{figure.before:.3f}", f"{figure.after:.3f}", form.format(change.value), interval, n, said


def _key(found: Comparison) -> str:
    return (
        f"Each interval has {found.confidence:.2%} confidence; all deciding figures together have 95 %. Figures in "
        "brackets decide nothing: speeds vary from day to day, and parts are included in the whole."
    )


def _marked(figure: FigureChange) -> list[str]:
    *cells, said = _escaped(_cells(figure))
    return [*cells, f"{MARKS[WORSE if figure.lower else BETTER]} {said}"]


def _escaped(cells: Sequence[str]) -> list[str]:
    return [plain(cell) for cell in cells]


def _row(change: VerdictChange) -> list[str]:
    verdicts = change.before, f"**{change.after}**"
    return [MARKS.get(change.direction, ""), change.id, *verdicts, plain(change.sentence)]


def _runs(found: Comparison) -> str:
    rows = [
        (name, plain(side.run.evidence), plain(side.judgement.sentence), *(plain(str(_of(side, it))) for it in SUBJECT))
        for name, side in _sides(found)
    ]
    return table(("", "evidence", "judgement", *SUBJECT), rows)


def _of(side: Side, name: str) -> Any:
    return getattr(side.header, name)


def _subject(side: Side) -> dict[str, Any]:
    judged = {"exit_code": int(side.judgement.exit_code), "sentence": side.judgement.sentence}
    return {"evidence": side.run.evidence, **{name: _of(side, name) for name in SUBJECT}, **judged}


def _figure(figure: FigureChange) -> dict[str, Any]:
    change = figure.change
    return {
        "name": figure.name,
        "before": figure.before,
        "after": figure.after,
        "kind": "ratio" if figure.is_ratio else "difference",
        "change": change.value,
        "interval": [change.low, change.high],
        "n": change.n,
        "method": change.method,
        "differs": figure.differs,
        "lower": figure.lower,
        "decides": figure.decides,
    }
