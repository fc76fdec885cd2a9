"""docs/sizes.md: a row for each published size and quantisation, with all that its runs showed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from conformance.judging.stats import Estimate
from conformance.reports.fleet_table import not_passed
from conformance.reports.markdown import plain, table
from conformance.views.fleet import SizeRow

BEGIN, END = "<!-- sizes: begin -->", "<!-- sizes: end -->"
SIZES = ("E2B", "E4B", "12B", "26B-A4B", "31B")
QUANTISATIONS = ("bf16", "fp8", "nvfp4")
COLUMNS = (
    *("pair", "run", "draft, byte for byte", "wiring", "experts", "attention", "weights, GiB"),
    *("ms a step without MTP", "with", "speedup in a row", "8 at once", "32 at once, later tokens", "not passed"),
)


def as_markdown(rows: Sequence[SizeRow]) -> str:
    """The table: what was not run is a row too, and so is what vLLM refused."""
    cells = []
    for size in SIZES:
        for quantisation in QUANTISATIONS:
            pair = f"{size} {quantisation.upper()}"
            found = [row for row in rows if (row.size, row.quantisation) == (size, quantisation)]
            cells += [_cells(pair, row) for row in found] or [(pair, "not run", *[""] * (len(COLUMNS) - 2))]
    others = [row for row in rows if row.size not in SIZES or row.quantisation not in QUANTISATIONS]
    cells += [_cells(f"{row.size} {row.quantisation}", row) for row in others]
    run = {(row.size, row.quantisation) for row in rows if row not in others}
    refused = [line for row in rows if row.refused for line in [f"- {_name(row)}: {plain(row.refused)}"]]
    parts = [
        f"{len(run)} of {len(SIZES) * len(QUANTISATIONS)} pairs were run, {len(refused)} runs were refused.",
        table(COLUMNS, cells),
        *(["What vLLM refused:", "\n".join(refused)] if refused else []),
    ]
    return "\n\n".join(parts) + "\n"


def _name(row: SizeRow) -> str:
    return f"{row.size} {row.quantisation.upper()} on {row.hardware}, vLLM {row.vllm}"


def _cells(pair: str, row: SizeRow) -> tuple[str, ...]:
    workers = f", {row.workers} workers" if row.workers > 1 else ""
    said = [plain(f"{row.archive}: {row.hardware}, vLLM {row.vllm}{workers}")]
    if row.refused:
        said.append("refused, see below")
    speeds = [_speed(row, name) for name in ("without MTP", "with MTP")]
    ratios = _estimate(row.in_a_row), _estimate(row.eight_at_once)
    later = "" if row.later_tokens is None else f"{row.later_tokens:.2f}"
    memory = "" if row.memory_gib is None else f"{row.memory_gib:.1f}"
    facts = (plain(row.draft), plain(row.wiring), plain(row.experts), plain(row.attention), memory)
    measured = (*speeds, *ratios, later)
    return (pair, "; ".join(said), *facts, *measured, plain(not_passed(row.not_passed)))


def _speed(row: SizeRow, arm: str) -> str:
    return f"{row.step_ms[arm]:.1f}" if arm in row.step_ms else ""


def _estimate(found: Estimate | None) -> str:
    return "" if found is None else f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def as_text(rows: Sequence[SizeRow]) -> Iterator[str]:
    """A line for each run."""
    for row in rows:
        outcome = (
            f"refused: {row.refused}" if row.refused else f"speedup in a row {_estimate(row.in_a_row) or 'not known'}"
        )
        yield f"{_name(row)}: draft {row.draft or 'not looked at'}, {outcome}\n"
