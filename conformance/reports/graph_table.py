"""The table of CUDA graphs: what vLLM captures for each hardware profile, and the batches without a full graph."""

from __future__ import annotations

import io
from collections import defaultdict

from rich import box
from rich.console import Console
from rich.table import Table

from conformance.reports.sanitize import json_text
from conformance.views.cuda_graphs import Captured, CudaGraphs, ranges

FORMAT = 1
BEGIN, END = "<!-- graph-table: begin -->", "<!-- graph-table: end -->"
COLUMNS = ("hardware", "requests", "largest by option", "k", "captured up to", "sizes", "decoding without a full graph")
WIDTH = 120
_TITLE = "the CUDA graphs that it captures, and what it cannot decode from one"

Row = tuple[str, ...]


def rows(graphs: CudaGraphs) -> list[Row]:
    """One row for all hardware and k with the same graphs, in the order of COLUMNS; without MTP is a row of its own."""
    groups: dict[tuple[Row, bool], list[Captured]] = defaultdict(list)
    for each in graphs.rows:
        groups[_cells(each), each.k > 0].append(each)
    found = []
    for (cells, _), alike in groups.items():
        names = ", ".join(dict.fromkeys(each.hardware for each in alike))
        found.append((names, *cells[:2], ranges({each.k for each in alike}), *cells[2:]))
    return found


def as_text(graphs: CudaGraphs) -> str:
    """The table for a terminal or a log, in plain characters."""
    table = Table(*COLUMNS, box=box.ASCII2, show_lines=False, title=f"vLLM {graphs.vllm_version}: {_TITLE}")
    for row in rows(graphs):
        table.add_row(*row)
    out = io.StringIO()
    Console(file=out, width=WIDTH, no_color=True, highlight=False, emoji=False).print(table)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def as_markdown(graphs: CudaGraphs) -> str:
    """The table for a document."""
    body = [f"| {' | '.join(cells)} |\n" for cells in [COLUMNS, ["---"] * len(COLUMNS), *rows(graphs)]]
    eager = f"\nWithout graphs (`--enforce-eager`): {', '.join(graphs.eager)}.\n" if graphs.eager else ""
    return f"vLLM {graphs.vllm_version}: {_TITLE}.\n\n{''.join(body)}{eager}"


def as_json(graphs: CudaGraphs) -> str:
    """The same for programs."""
    found = [
        {
            "hardware": row.hardware,
            "k": row.k,
            "requests": row.max_num_seqs,
            "maximum": row.maximum,
            "sizes": list(row.sizes),
            "batches": {kind: list(each) for kind, each in row.batches.items()},
            "error": row.error or None,
        }
        for row in graphs.rows
    ]
    return json_text(
        {"format": FORMAT, "vllm_version": graphs.vllm_version, "rows": found, "eager": list(graphs.eager)}
    )


def _cells(row: Captured) -> Row:
    """The cells of a row that do not name its hardware and its k."""
    missing = "; ".join(f"{kind}: {ranges(each)} requests" for kind, each in row.uncovered().items())
    asked = str(row.maximum) if row.maximum else "vLLM's default"
    return str(row.max_num_seqs), asked, str(row.largest), str(len(row.sizes)), row.error or missing or "none"
