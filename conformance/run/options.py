"""The options of a run, declared once: the command and pytest both read them from here."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from conformance.errors import UsageError
from conformance.formats.toml_tables import nearest
from conformance.profile.profile import LEVELS
from conformance.reports.terminal import SHOWN
from conformance.serving.containers import PROGRAMS

WHAT, WHERE, HOW_MUCH, OUTPUT = "what to judge", "where it runs", "how much", "output"


@dataclass(frozen=True)
class Option:
    """One option; ``keywords`` are what argparse's and pytest's ``add_argument`` both take."""

    flag: str
    group: str
    help: str
    keywords: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The attribute that holds its value."""
        return self.flag.lstrip("-").replace("-", "_")


def _flag(flag: str, group: str, help: str) -> Option:
    return Option(flag, group, help, {"action": "store_true"})


# What a run depends on; an option that is not given has the value None or False.
RUN = (
    Option("--pair", WHAT, "name in fixtures/models, or a TOML file (default: micro-26b-a4b-nvfp4)"),
    Option("--hardware", WHAT, "name in fixtures/hardware, or a TOML file (default: the detected one)"),
    Option(
        "--dataset",
        WHAT,
        'prompts to ask instead of the mixed ones: JSON Lines as "vllm bench serve --dataset-name custom" reads them, '
        "or those of MT-Bench, SPEED-Bench, GSM8K or HumanEval",
        {"metavar": "FILE"},
    ),
    Option(
        "--task-set",
        WHAT,
        "questions with checkable answers to ask instead of the suite's own: JSON Lines of GSM8K or of documents of "
        "lm-evaluation-harness",
        {"metavar": "FILE"},
    ),
    _flag("--unlocked", WHAT, "compare installed versions with no lock; the verdict says so"),
    _flag("--certify", WHAT, "accept no waiver, no unsupported check and no check that was left out"),
    Option(
        "--attach",
        WHERE,
        "judge a running server with MTP and start none; its API key comes from OPENAI_API_KEY",
        {"metavar": "URL"},
    ),
    Option(
        "--attach-plain", WHERE, "a running server without MTP, to compare the attached one with", {"metavar": "URL"}
    ),
    Option("--model", WHERE, "the model to ask, where the attached servers offer more than one", {"metavar": "NAME"}),
    Option("--image", WHERE, "start the servers in containers of this image, such as vllm/vllm-openai:TAG"),
    Option(
        "--container",
        WHERE,
        "program that runs the image (default: docker, or podman if there is no docker)",
        {"choices": PROGRAMS},
    ),
    Option("--ssh", WHERE, "start the servers on this host by OpenSSH; needs --hardware", {"metavar": "HOST"}),
    Option(
        "--ssh-python",
        WHERE,
        "the Python on that host that has vLLM and this suite (default: the path of this Python)",
        {"metavar": "PATH"},
    ),
    Option("--level", HOW_MUCH, "how much to inspect (default: qualify)", {"choices": LEVELS}),
    Option(
        "--minutes",
        HOW_MUCH,
        "how long level soak holds its load (default: see fixtures/levels.toml)",
        {"type": float, "metavar": "N"},
    ),
    Option(
        "--evidence",
        OUTPUT,
        "folder to record into (default: a new one in ./evidence); a finished recording is judged again",
        {"metavar": "DIR"},
    ),
    Option("--resume", OUTPUT, "continue an unfinished recording", {"metavar": "DIR"}),
)
# How the end of a run is told.
SHOW = Option(
    "--show",
    OUTPUT,
    "what to print at the end: the summary (default), all checks, what did not pass in full, or the figures",
    {"choices": SHOWN, "default": SHOWN[0]},
)
QUIET = Option("--quiet", OUTPUT, "show no progress", {"action": "store_true"})
PLANNED = ("hardware", "pair", "level", "minutes")  # what a plan depends on
PLAN = _flag("--plan", HOW_MUCH, "print how many samples each floor needs, and start nothing")
CERTIFY = next(option for option in RUN if option.name == "certify")

# For those who call pytest themselves.
PYTEST_ONLY = (
    _flag("--recorded-only", OUTPUT, "judge what --evidence holds and observe nothing"),
    _flag("--no-reports", OUTPUT, "leave the reports beside the evidence as they are"),
    _flag("--moe-table", OUTPUT, "print the MoE kernel that vLLM chooses on each GPU, and exit"),
    _flag("--list-checks", OUTPUT, "print the catalogue of checks, and exit"),
)
CHECKED_LATER = ("choices", "type")  # of a value that pytest takes, see ``check_values``


def add_to_command(parser: argparse.ArgumentParser, options: Iterable[Option]) -> dict[str, Any]:
    """Add the options under the titles of their groups; the groups by title, for options of the command alone."""
    groups: dict[str, Any] = {}
    for option in options:
        group = groups.get(option.group) or groups.setdefault(option.group, parser.add_argument_group(option.group))
        group.add_argument(option.flag, help=option.help, **option.keywords)
    return groups


def add_to_pytest(parser: pytest.Parser) -> None:
    """Add all options of a run, and pytest's own, to ``pytest --help``."""
    group = parser.getgroup("conformance")
    for option in (*RUN, SHOW, PLAN, *PYTEST_ONLY):
        checked = {name: value for name, value in option.keywords.items() if name not in CHECKED_LATER}
        group.addoption(option.flag, help=option.help, **checked)


def check_values(options: argparse.Namespace) -> None:
    """Check and convert in place what pytest took as text: for a bad value, its own parser exits with 4.

    Raises:
        UsageError: a value is none of the choices, or not a number.
    """
    for option in (*RUN, SHOW):
        value, choices = getattr(options, option.name), option.keywords.get("choices")
        if value is not None and choices and value not in choices:
            hint = nearest(value, choices)
            raise UsageError(f'{option.flag} "{value}" is unknown; choose one of {", ".join(choices)}.{hint}')
        if value is not None and option.keywords.get("type") is float:
            try:
                setattr(options, option.name, float(value))
            except ValueError:
                raise UsageError(f'{option.flag} "{value}" is not a number.') from None


def pytest_arguments(options: argparse.Namespace) -> list[str]:
    """The options of a run that were given, as pytest takes them."""
    given = [(option, getattr(options, option.name)) for option in (*RUN, SHOW, QUIET)]
    return [
        option.flag if value is True else f"{option.flag}={value}"
        for option, value in given
        if value is not None and value is not False
    ]
