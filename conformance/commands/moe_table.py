"""``qualify moe-table``: the MoE kernel that the installed vLLM chooses on each GPU, asked without one."""

from __future__ import annotations

import argparse

from conformance.commands.output.documents import put_between, show, with_table
from conformance.commands.parsers import FOR_PROGRAMS, Subparsers, add_command, add_forms
from conformance.judging.verdict import ExitCode
from conformance.observers.moe_oracle import ask_vllm
from conformance.profile.moe_facts import load_moe_facts
from conformance.reports import moe_table
from conformance.views.moe_oracle import MoeOracle


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, "moe-table", "print the MoE kernel that vLLM chooses on each GPU", run)
    add_forms(parser, into=True, markdown="as the table of docs/moe-backends.md", json=FOR_PROGRAMS)


def run(options: argparse.Namespace) -> int:
    """Ask vLLM, then print the table or put it into a document."""
    if options.into:
        with_table(options.into, moe_table.BEGIN, moe_table.END, "")  # before seconds are spent on it
    oracle = MoeOracle.of(ask_vllm(), load_moe_facts().expected)
    if options.into:
        put_between(options.into, moe_table.BEGIN, moe_table.END, moe_table.as_markdown(oracle))
        return ExitCode.QUALIFIED
    show(
        options,
        table=lambda: moe_table.as_text(oracle),
        markdown=lambda: moe_table.as_markdown(oracle),
        json=lambda: moe_table.as_json(oracle),
    )
    return ExitCode.QUALIFIED
