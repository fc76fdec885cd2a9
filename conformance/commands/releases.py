"""``qualify releases``: judge the archives of releases again, hold known failures against them, and write the page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from conformance import FIXTURES
from conformance.commands.output.documents import print_to_stderr, put_between, show, write
from conformance.commands.parsers import FOR_PROGRAMS, Subparsers, add_command, add_forms
from conformance.judging.diagnose import load_known_failures
from conformance.judging.verdict import ExitCode
from conformance.judging.version_ranges import range_problems
from conformance.profile.release_facts import RELEASES, Release, load_releases, releases_to_json
from conformance.reports.progress import Progress
from conformance.reports.releases import page, picture
from conformance.reports.releases.outlook import sentence
from conformance.reports.sanitize import json_text
from conformance.run.judge_releases import judge_archives


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, "releases", "say of every judged vLLM release what it can be used for", run)
    parser.add_argument("--archives", type=Path, metavar="DIR", help="judge the archives in this folder again first")
    parser.add_argument("--record", action="store_true", help="keep what that found in fixtures/releases.json")
    add_forms(parser, into=True, markdown="as in docs/releases.md", json=FOR_PROGRAMS)


def run(options: argparse.Namespace) -> int:
    """Print or write the page; exit code 4 if a known failure is wrong about a release."""
    progress = Progress(print_to_stderr, terminal=False)
    releases = judge_archives(options.archives, progress) if options.archives else load_releases()
    if options.record:
        write(RELEASES, json_text(releases_to_json(releases)))
    known = load_known_failures(FIXTURES / "known_failures")
    if options.into:
        put_between(options.into, page.BEGIN, page.END, page.as_markdown(releases, known))
        write_pictures(options.into.parent, releases)
    else:
        show(
            options,
            table=lambda: "".join(f"{sentence(each, {it.id: it for it in known})}\n" for each in releases),
            markdown=lambda: page.as_markdown(releases, known),
            json=lambda: json_text(releases_to_json(releases)),
        )
    problems = range_problems(known, releases)
    for problem in problems:
        print(f"ERROR {problem}", file=sys.stderr)
    return ExitCode.INSTRUMENT if problems else ExitCode.QUALIFIED


def write_pictures(folder: Path, releases: tuple[Release, ...]) -> None:
    """Write the pictures of the page beside it."""
    write(folder / page.PICTURE, picture.as_svg(releases))
    if any(each.figures for each in releases):
        from conformance.reports.releases import figure_by_release  # matplotlib takes a second to import

        write(folder / page.FIGURE, figure_by_release.as_svg(releases))
