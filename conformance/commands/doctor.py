"""``qualify doctor``: whether this machine can do a run, in seconds and without a server."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

from conformance.commands.output.documents import show_and_draw
from conformance.commands.parsers import FOR_PROGRAMS, Subparsers, add_command, add_forms, add_picture
from conformance.errors import UsageError
from conformance.profile.profile import UNLOCKED, Profile, load_profile
from conformance.reports.doctor_table import Diagnosed, as_json, as_text
from conformance.run.doctor import Line, ask_executor, examine, exit_code
from conformance.run.options import RUN, add_to_command
from conformance.run.session import DEFAULT_LEVEL, DEFAULT_PAIR, detect_hardware
from conformance.serving.executor_options import check_options, choose_executor, describe_executor
from conformance.serving.machine import look_at_machine

OF_PYTHON = ("vLLM", "import", "lock")  # of this Python, which serves nothing if servers run in an image or elsewhere
OF_MACHINE = ("GPU", "memory", "GPU memory", "/dev/shm", "compile cache")  # which serves nothing with --ssh
TAKEN = ("pair", "hardware", "unlocked", "image", "container", "ssh", "ssh_python", "level", "evidence")


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, "doctor", "look at this machine before a run; start no server", run)
    add_to_command(parser, [option for option in RUN if option.name in TAKEN])
    add_forms(parser, json=FOR_PROGRAMS)
    add_picture(parser)


def run(options: argparse.Namespace) -> int:
    """Print a line for each thing; 1 where the run cannot succeed."""
    found = diagnose(options)
    show_and_draw(options, "qualify doctor", lambda **form: as_text(found, **form), lambda: as_json(found))
    return found.exit_code


def diagnose(options: argparse.Namespace) -> Diagnosed:
    """Look at this machine, and at the image or the host that the options name.

    Raises:
        UsageError: the options name something that does not exist, or contradict each other.
    """
    check_options(options, None)
    if options.ssh and not options.hardware:
        raise UsageError(f"--ssh {options.ssh} is another machine: name its hardware by --hardware NAME.")
    profile = _profile(options)
    lines: list[Line] = examine(look_at_machine(Path(options.evidence or "evidence")), profile)
    if options.image or options.ssh:
        idle = (*OF_PYTHON, *(OF_MACHINE if options.ssh else ()))
        lines = [line for line in lines if line.name not in idle]
        lines.append(ask_executor(describe_executor(options), lambda: choose_executor(options)))
    return Diagnosed(profile.hardware.name, profile.pair.name, profile.level, lines, exit_code(lines))


def _profile(options: argparse.Namespace) -> Profile:
    profile = load_profile(
        options.hardware or detect_hardware(), options.pair or DEFAULT_PAIR, options.level or DEFAULT_LEVEL
    )
    environment = UNLOCKED if options.unlocked else os.environ.get("CONFORMANCE_ENV")
    if environment:
        profile = replace(profile, hardware=replace(profile.hardware, locked_environment=environment))
    return profile
