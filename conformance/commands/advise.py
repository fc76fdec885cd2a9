"""``qualify advise``: what to expect of the installed vLLM on some hardware, before anything is started."""

from __future__ import annotations

import argparse

from conformance import FIXTURES
from conformance.commands.output.documents import show
from conformance.commands.parsers import FOR_PROGRAMS, Subparsers, add_command, add_forms
from conformance.errors import UsageError
from conformance.judging.diagnose import load_known_failures
from conformance.judging.verdict import ExitCode
from conformance.profile.profile import load_profile
from conformance.profile.release_facts import load_releases
from conformance.reports.releases.expectation import expectation
from conformance.reports.sanitize import json_text
from conformance.run.session import DEFAULT_LEVEL, DEFAULT_PAIR, detect_hardware
from conformance.serving.installed import installed_here


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, "advise", "say what to expect of the installed vLLM, and which release to take", run)
    parser.add_argument("--hardware", metavar="NAME", help="name in fixtures/hardware (default: the detected one)")
    parser.add_argument("--vllm", metavar="X.Y.Z", help="another release than the installed one")
    add_forms(parser, json=FOR_PROGRAMS)


def run(options: argparse.Namespace) -> int:
    """Print plain sentences; nothing is started and nothing is downloaded.

    Raises:
        UsageError: no vLLM is installed and none is named, or the hardware is unknown.
    """
    vllm = options.vllm or installed_here().vllm
    if vllm is None:
        raise UsageError("No vLLM is installed here: name a release by --vllm X.Y.Z.")
    hardware = load_profile(options.hardware or detect_hardware(), DEFAULT_PAIR, DEFAULT_LEVEL).hardware
    found = expectation(vllm, hardware, load_releases(), load_known_failures(FIXTURES / "known_failures"))
    show(
        options,
        table=lambda: "".join(f"{line}\n" for line in found.lines()),
        json=lambda: json_text(found.document()),
    )
    return ExitCode.QUALIFIED
