"""``qualify graph-table``: the CUDA graphs that the installed vLLM captures for each hardware, asked without a GPU."""

from __future__ import annotations

import argparse

from conformance.commands.output.documents import put_between, show, with_table
from conformance.commands.parsers import FOR_PROGRAMS, Subparsers, add_command, add_forms
from conformance.judging.verdict import ExitCode
from conformance.observers.cuda_graphs import ask_vllm, cases
from conformance.reports import graph_table
from conformance.views.cuda_graphs import CudaGraphs


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, "graph-table", "print the CUDA graphs that vLLM captures for each hardware", run)
    add_forms(parser, into=True, markdown="as the table of docs/cuda-graphs.md", json=FOR_PROGRAMS)


def run(options: argparse.Namespace) -> int:
    """Ask vLLM, then print the table or put it into a document."""
    if options.into:
        with_table(options.into, graph_table.BEGIN, graph_table.END, "")  # before seconds are spent on it
    graphs = CudaGraphs.of(ask_vllm(cases()))
    if options.into:
        put_between(options.into, graph_table.BEGIN, graph_table.END, graph_table.as_markdown(graphs))
        return ExitCode.QUALIFIED
    show(
        options,
        table=lambda: graph_table.as_text(graphs),
        markdown=lambda: graph_table.as_markdown(graphs),
        json=lambda: graph_table.as_json(graphs),
    )
    return ExitCode.QUALIFIED
