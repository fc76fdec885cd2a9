"""``qualify export``: recorded evidence in the form of a public registry, of a recipe, or of GitHub Actions."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from conformance.commands.output.documents import write, writing
from conformance.commands.parsers import Subparsers, add_command, add_evidence
from conformance.errors import UsageError
from conformance.evidence.folder import MANIFEST, is_finished, sha256
from conformance.judging.verdict import ExitCode
from conformance.profile.recipes import recipe_hardware
from conformance.reports.exports import inferencex
from conformance.reports.exports.github import workflow_commands
from conformance.reports.exports.recipe_entry import as_yaml
from conformance.reports.markdown import as_markdown
from conformance.reports.report import gather
from conformance.reports.source import Source
from conformance.run.judge_evidence import judge_again
from conformance.run.session import Options, Session, open_session

INFERENCEX, RECIPES, GITHUB = FORMATS = "inferencex", "recipes", "github"
SUMMARY = "GITHUB_STEP_SUMMARY"  # the file that a step of GitHub Actions may write Markdown into


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, "export", "write recorded evidence in the form of others", run)
    add_evidence(parser)
    parser.add_argument(
        "--format",
        choices=FORMATS,
        required=True,
        help="the rows of InferenceX, the verified entry of vllm-project/recipes, or annotations and the step summary "
        "of GitHub Actions",
    )
    parser.add_argument(
        "--into", type=Path, metavar="FOLDER", help="write a file for each row into this folder (inferencex only)"
    )


def run(options: argparse.Namespace) -> int:
    """Print the evidence in that form, or write its files.

    Raises:
        UsageError: the evidence is not finished or lacks what the form needs, or a file cannot be written.
    """
    if options.into and options.format != INFERENCEX:
        raise UsageError(f"--into is for --format {INFERENCEX}; leave it out with --format {options.format}.")
    if options.format == GITHUB:
        return tell_github(options.evidence)
    if options.format == RECIPES:
        print(recipe_entry(options.evidence), end="")
        return ExitCode.QUALIFIED
    found = rows(options.evidence)
    if options.into is None:
        print(as_json(found), end="")
        return ExitCode.QUALIFIED
    with writing(options.into):
        options.into.mkdir(parents=True, exist_ok=True)
    for row in found:
        write(options.into / inferencex.file_name(row), as_json(row))
    return ExitCode.QUALIFIED


def rows(evidence: Path) -> list[inferencex.Row]:
    """The rows of finished evidence.

    Raises:
        UsageError: the evidence is not finished or has no load.
    """
    session = _finished(evidence)
    source = Source(session.evidence, session.profile)
    if not source.holds("load"):
        raise UsageError(f"{evidence} has no measured speeds; name evidence of level qualify.")
    return list(inferencex.rows(source.load, session.profile, session.header, _digest(session)))


def recipe_entry(evidence: Path) -> str:
    """The verified entry of a recipe, for evidence that qualifies.

    Raises:
        UsageError: the evidence is not finished, does not qualify, or recipes do not name its hardware.
    """
    session, names = _finished(evidence), recipe_hardware()
    name = session.profile.hardware.name
    if name not in names:
        raise UsageError(f"{evidence}: recipes have no name for hardware {name}; they have {', '.join(names)}.")
    judged, judgement = judge_again(session.evidence.directory)
    if judgement.exit_code is not ExitCode.QUALIFIED:
        raise UsageError(f"{evidence} verifies nothing, its result is: {judgement.sentence}")
    return as_yaml(session.header, judged, judgement, names[name], _digest(session))


def tell_github(evidence: Path) -> int:
    """Print annotations; append the report to the step summary, or print it where there is none.

    Raises:
        UsageError: the summary cannot be written.
    """
    session = _open(evidence)
    judged, judgement = judge_again(session.evidence.directory)
    report = as_markdown(gather(judged, judgement, session.profile))
    print(workflow_commands(judged, judgement), end="")
    if summary := os.environ.get(SUMMARY):
        with writing(Path(summary)), Path(summary).open("a", encoding="utf-8") as file:
            file.write(report)
    else:
        print(report, end="")
    return judgement.exit_code


def as_json(value: Any) -> str:
    """JSON as it is printed and written."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _open(evidence: Path) -> Session:
    return open_session(Options(evidence=evidence, recorded_only=True), Path.cwd())


def _finished(evidence: Path) -> Session:
    """The session of finished evidence.

    Raises:
        UsageError: it is not finished.
    """
    session = _open(evidence)
    if not is_finished(session.evidence.directory):
        where = session.evidence.directory
        raise UsageError(f"{where} is unfinished, so its hash may change; qualify --resume {where} finishes it.")
    return session


def _digest(session: Session) -> str:
    return sha256(session.evidence.directory / MANIFEST)
