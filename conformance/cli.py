"""The command: observe and judge a pair on a hardware, judge recorded evidence again, or print a table.

exit codes: 0 qualified (everything asked for passed), 1 not qualified, 2 usage, 3 inconclusive, 4 instrument error,
5 nothing inspected; sign and verify: 0 signed or authentic, 1 not authentic, 2 usage
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conformance import FIXTURES, comparing, completion
from conformance.harness import attestation, combine
from conformance.harness.catalogue import BEGIN, END, as_markdown, as_text, between, catalogue
from conformance.harness.containers import PROGRAMS
from conformance.harness.coverage import published_coverage
from conformance.harness.errors import ObservationError, Unsupported, UsageError
from conformance.harness.evidence import ATTESTATION, REPORTS, Evidence
from conformance.harness.floors import load_floors
from conformance.harness.judging import run_checks
from conformance.harness.moe_facts import load_moe_facts
from conformance.harness.observers.moe_oracle import ask_vllm
from conformance.harness.profile import LEVELS, held_for, load_profile
from conformance.harness.session import DEFAULT_LEVEL, DEFAULT_PAIR, Options, hardware_here, open_session
from conformance.harness.streams import REGRESSIONS, keep_regressions
from conformance.harness.verdict import ExitCode
from conformance.harness.views.oracle import MoeOracle
from conformance.reports import comparison, coverage_table, fleet, moe_table, plan
from conformance.reports.characters import json_text, printable
from conformance.reports.document import as_json
from conformance.reports.progress import Progress
from conformance.reports.source import Source
from conformance.reports.terminal import picture, screen

COMMANDS = (
    *("qualify", "rejudge", "compare", "combine", "sign", "verify"),
    *("catalogue", "moe-table", "calibrate", "figure", "keep-regressions", "completion"),
)
DEFAULT = "qualify"
FORMAT = 1  # of the JSON documents that are made here
FOR_PROGRAMS = "for programs"
# Options that have a value, as pytest has them too.
TAKEN = (
    *("hardware", "pair", "level", "minutes", "evidence", "resume", "dataset"),
    *("attach", "attach_plain", "model", "image", "container", "ssh", "ssh_python"),
)
PLANNED = ("hardware", "pair", "level", "minutes")  # those that a plan depends on


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0] not in COMMANDS and words[0] not in ("-h", "--help")):
        words.insert(0, DEFAULT)
    options = _parser().parse_args(words)
    try:
        return int(options.run(options))
    except (UsageError, ObservationError, Unsupported) as error:
        print(f"qualify: {error}", file=sys.stderr)
        return ExitCode.USAGE if isinstance(error, UsageError) else ExitCode.INSTRUMENT


def qualify(options: argparse.Namespace) -> int:
    """Observe what is not recorded yet, and judge; with ``--plan`` only say what that takes."""
    if options.plan:
        return show_plan(options)
    return _judge([*as_words(options), *["-n", str(options.workers)] * bool(options.workers)], options)


def as_words(options: argparse.Namespace) -> list[str]:
    """What was asked of a run, as this command and pytest both take it."""
    values = {_option(name): getattr(options, name) for name in TAKEN}
    given = [f"{option}={value}" for option, value in values.items() if value is not None]
    return [*given, *["--certify"] * options.certify, *["--unlocked"] * options.unlocked]


def show_plan(options: argparse.Namespace) -> int:
    """Print what will run, in which memory, and how many samples each floor needs; nothing is started."""
    for name in (*TAKEN, "certify", "unlocked", "workers", "picture"):
        if name not in PLANNED and getattr(options, name) not in (None, False):
            raise UsageError(f"--plan starts nothing and reads no {_option(name)}: leave out the one or the other.")
    profile = load_profile(
        options.hardware or hardware_here(), options.pair or DEFAULT_PAIR, options.level or DEFAULT_LEVEL
    )
    if options.minutes is not None:
        profile = held_for(profile, options.minutes)
    floors = load_floors(FIXTURES / "floors", profile.hardware.name, profile.pair.name, profile.pair.k)
    _show(options, table=lambda: plan.as_text(profile, floors), json=lambda: plan.as_json(profile, floors))
    return ExitCode.QUALIFIED


def rejudge(options: argparse.Namespace) -> int:
    """Judge what a directory holds, with today's floors and waivers; no server is started."""
    words = [f"--evidence={options.evidence}", "--recorded-only", *["--certify"] * options.certify]
    return _judge(words, options)


def show_comparison(options: argparse.Namespace) -> int:
    """Print how the second run differs from the first; 1 where it is worse."""
    found = comparing.compared(options.before, options.after)
    _show(
        options,
        table=lambda: comparison.as_text(found, **screen(sys.stdout.isatty())),
        markdown=lambda: comparison.as_markdown(found),
        json=lambda: comparison.as_json(found),
    )
    return found.exit_code


def show_fleet(options: argparse.Namespace) -> int:
    """Judge several runs again and print them beside each other; the exit code is the gravest of theirs."""
    groups = combine.combine(options.evidence, Progress(_to_stderr, terminal=False))
    _show(
        options,
        table=lambda: fleet.as_text(groups, **screen(sys.stdout.isatty())),
        markdown=lambda: fleet.as_markdown(groups),
        json=lambda: fleet.as_json(groups),
    )
    return combine.worst(groups)


def sign(options: argparse.Namespace) -> int:
    """State what a finished run found, and sign it."""
    statement = attestation.sign(options.evidence, options.key, options.identity)
    said = f"Signed: {options.evidence / ATTESTATION[0]} says {statement['predicate']['result']}\n"
    _show(options, table=lambda: said, json=lambda: json_text(statement))
    return ExitCode.QUALIFIED


def verify(options: argparse.Namespace) -> int:
    """Say whether evidence is what was signed; what it is worth is another question."""
    document = {"format": FORMAT, "evidence": str(options.evidence)}
    try:
        found = attestation.authenticate(options.evidence, options.signers, options.identity)
    except attestation.NotAuthentic as error:
        print(f"Not authentic: {printable(str(error))}", file=sys.stderr)  # which may be anybody's words
        document |= {"authentic": False, "reason": str(error)}
        _show(options, table=str, json=lambda: json_text(document))
        return ExitCode.NOT_QUALIFIED
    result, reports = found.statement["predicate"]["result"], _reports(options.evidence)
    lines = [f"Authentic: {options.evidence}, signed by {found.signer}, says {result}"]
    if reports:
        lines.append(f"Not covered: {', '.join(reports)}; qualify rejudge {options.evidence} makes them again")
    document |= {"authentic": True, "signer": found.signer, "result": result, "not_covered": reports}
    _show(options, table=lambda: "".join(f"{line}\n" for line in lines), json=lambda: json_text(document))
    return ExitCode.QUALIFIED


def list_checks(options: argparse.Namespace) -> int:
    """Print the catalogue, or put its table into a document."""
    checks = catalogue()
    if options.into:
        _put(options.into, BEGIN, END, as_markdown(checks))
        return ExitCode.QUALIFIED
    _show(
        options,
        table=lambda: as_text(checks),
        markdown=lambda: as_markdown(checks),
        json=lambda: json_text([vars(check) for check in checks]),
    )
    return ExitCode.QUALIFIED


def show_moe_table(options: argparse.Namespace) -> int:
    """Ask the installed vLLM for its choice of MoE kernels; print it, or put it into a document."""
    if options.into:
        _with_table(options.into, moe_table.BEGIN, moe_table.END, "")  # before seconds are spent on it
    oracle = MoeOracle.of(ask_vllm(), load_moe_facts().expected)
    if options.into:
        _put(options.into, moe_table.BEGIN, moe_table.END, moe_table.as_markdown(oracle))
        return ExitCode.QUALIFIED
    _show(
        options,
        table=lambda: moe_table.as_text(oracle),
        markdown=lambda: moe_table.as_markdown(oracle),
        json=lambda: moe_table.as_json(oracle),
    )
    return ExitCode.QUALIFIED


def draw(options: argparse.Namespace) -> int:
    """Draw acceptance and speedup of recorded evidence, with their intervals, floors and noise."""
    from conformance.reports import figure  # matplotlib takes a second to import, and only this needs it

    _must_have_a_folder(options.into)
    session = open_session(Options(evidence=options.evidence, recorded_only=True), Path.cwd())
    source, header = Source(session.evidence, session.profile), session.header
    caption = f"{header.pair} on {header.hardware}, vLLM {header.vllm}, {header.started[:10]}"
    _write(options.into, figure.as_svg(source.load, source.floors, caption))
    return ExitCode.QUALIFIED


def keep(options: argparse.Namespace) -> int:
    """Keep what broke the parser in recorded evidence, so that every later run begins with it."""
    found = Evidence(options.evidence, recording=False).observe("parsers", dict)
    path = FIXTURES / "prompts" / REGRESSIONS
    with _writing(path):
        new = keep_regressions(path, found)
    document = {"format": FORMAT, "file": str(path), "new": new}
    _show(options, table=lambda: f"{new} new in {path}\n", json=lambda: json_text(document))
    return ExitCode.QUALIFIED


def calibrate(options: argparse.Namespace) -> int:
    """Make many trials at known rates on the real server; print how often the intervals hold, or put it in a document.

    Not qualified where CAL-01 would fail, or where the coverage is outside of what is published as sound.
    """
    if options.into:
        _with_table(options.into, coverage_table.BEGIN, coverage_table.END, "")  # before an hour is spent on it
    profile = load_profile(options.hardware or hardware_here(), options.pair or DEFAULT_PAIR, "qualify")
    sizes = replace(profile.sizes, calibration_trials=options.trials, calibration_prompts=options.prompts)
    found = published_coverage(replace(profile, sizes=sizes), Progress(_to_stderr, terminal=False))
    today, wrong = datetime.now(UTC).date(), found.calibration.wrong()
    table = coverage_table.as_markdown(found, today)
    if options.into:
        _put(options.into, coverage_table.BEGIN, coverage_table.END, table)
    else:
        _show(options, table=lambda: table, json=lambda: coverage_table.as_json(found, today))
    print("".join(f"{sentence}\n" for sentence in wrong), end="", file=sys.stderr)
    return ExitCode.NOT_QUALIFIED if wrong else ExitCode.QUALIFIED


def complete(parser: argparse.ArgumentParser, commands: Any, shell: str) -> int:
    """Print what the shell has to read."""
    print(completion.script(parser, commands, DEFAULT, shell))
    return ExitCode.QUALIFIED


def _to_stderr(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)


def _show(options: argparse.Namespace, **forms: Callable[[], str]) -> None:
    """Print the result in the form that was asked for."""
    print(forms[options.form](), end="")


def _put(document: Path, begin: str, end: str, table: str) -> None:
    """Write the table between its markers; UsageError where the document lacks them."""
    _write(document, _with_table(document, begin, end, table))


def _with_table(document: Path, begin: str, end: str, table: str) -> str:
    """The document's text with the table; UsageError where it is none, or lacks the markers."""
    try:
        text = document.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"{document} cannot be read ({error}): name a document that has the markers.") from None
    return between(text, begin, end, table, str(document))


def _must_have_a_folder(file: Path) -> None:
    """UsageError for a file that cannot be written after all the work."""
    if not file.parent.is_dir():
        raise UsageError(f"{file} cannot be written, since {file.parent} is no folder: make it, or name another file.")


def _write(file: Path, text: str) -> None:
    with _writing(file):
        file.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _writing(file: Path) -> Iterator[None]:
    """UsageError where the file that was asked for cannot be written."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{file} cannot be written ({error.strerror}): mend that, or name another file.") from None


def _option(name: str) -> str:
    """As it is written on a command line."""
    return f"--{name.replace('_', '-')}"


def _reports(evidence: Path) -> list[str]:
    """Those that lie beside the evidence."""
    return [name for name in REPORTS if (evidence / name).is_file()]


def _judge(words: Sequence[str], options: argparse.Namespace) -> int:
    """pytest over the package's own checks; with ``--json`` its table goes to stderr and the result to stdout."""
    if options.picture:
        _must_have_a_folder(options.picture)
    as_document = options.form == "json"
    quiet = contextlib.redirect_stdout(sys.stderr) if as_document else contextlib.nullcontext()
    with quiet:
        code, found = run_checks([*["-v"] * options.verbose, *words])
    if as_document and found:
        print(as_json(*found), end="")
    if options.picture and found:
        _write(options.picture, picture(*found))
    return code


def _forms(parser: argparse.ArgumentParser, *, into: bool = False, **helps: str) -> None:
    """Let the result be told in one of these forms instead of the command's own, or put into a document."""
    forms = parser.add_mutually_exclusive_group()
    for name, what in helps.items():
        forms.add_argument(f"--{name}", dest="form", action="store_const", const=name, help=what)
    if into:
        forms.add_argument(
            "--into", type=Path, metavar="FILE", help="write the table between the markers in a document"
        )
    parser.set_defaults(form="table")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qualify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    judging = argparse.ArgumentParser(add_help=False)
    judging.add_argument(
        "--certify", action="store_true", help="allow no waiver, nothing unsupported, nothing left out"
    )
    _forms(judging, json="the result as JSON on stdout, the table on stderr")
    judging.add_argument("--picture", type=Path, metavar="FILE", help="the table as an SVG picture too")
    judging.add_argument("-v", "--verbose", action="store_true", help="pytest's own account of every check")

    run = commands.add_parser("qualify", parents=[judging], help="observe and judge (the default)", allow_abbrev=False)
    run.add_argument("--hardware", help="a name in fixtures/hardware, or a TOML file (default: what is detected)")
    run.add_argument("--pair", help="a name in fixtures/models, or a TOML file (default: the embedded NVFP4 pair)")
    run.add_argument("--level", choices=LEVELS, help="how much to inspect (default: qualify)")
    run.add_argument(
        "--minutes", type=float, metavar="N", help="how long --level soak holds its load (default: as in levels.toml)"
    )
    run.add_argument(
        "--evidence", type=Path, metavar="DIR", help="where to record (default: a new folder in ./evidence)"
    )
    run.add_argument("--resume", metavar="DIR", help="go on with evidence that a run left unfinished")
    run.add_argument(
        "--dataset",
        metavar="FILE",
        help='JSON Lines to ask instead of the mixed prompts, as "vllm bench serve --dataset-name custom" reads it',
    )
    run.add_argument(
        "--attach",
        metavar="URL",
        help="judge a server with MTP that somebody else runs, and start none; its API key comes from OPENAI_API_KEY",
    )
    run.add_argument("--attach-plain", metavar="URL", help="the same without MTP, to compare the attached one with")
    run.add_argument("--model", metavar="NAME", help="which model to ask, where attached servers have several")
    run.add_argument("--image", help="start the servers in containers of this image, such as vllm/vllm-openai:TAG")
    run.add_argument(
        "--container", choices=PROGRAMS, help="what runs it (default: docker, or podman where that is not)"
    )
    run.add_argument("--ssh", metavar="HOST", help="start the servers on another host, by OpenSSH; needs --hardware")
    run.add_argument("--ssh-python", metavar="PATH", help="its Python with vLLM and suite (default: this one's path)")
    run.add_argument("--unlocked", action="store_true", help="hold what is installed against no lock; the run says so")
    run.add_argument("-n", "--workers", type=int, metavar="N", help="judge in N processes (pytest-xdist)")
    run.add_argument("--plan", action="store_true", help="print how many samples each floor needs, and start nothing")
    run.set_defaults(run=qualify)

    again = commands.add_parser("rejudge", parents=[judging], help="judge recorded evidence again", allow_abbrev=False)
    again.add_argument("evidence", type=Path, metavar="DIR", help="a folder that an earlier run recorded")
    again.set_defaults(run=rejudge)

    held = commands.add_parser("compare", help="hold a recorded run against an earlier one", allow_abbrev=False)
    held.add_argument("before", type=Path, metavar="A", help="the folder of the run to compare with")
    held.add_argument("after", type=Path, metavar="B", help="the folder of the run that must be no worse")
    _forms(held, markdown="for a pull request", json=FOR_PROGRAMS)
    held.set_defaults(run=show_comparison)

    beside = commands.add_parser("combine", help="several runs as one table, outliers marked", allow_abbrev=False)
    beside.add_argument("evidence", type=Path, nargs="+", metavar="DIR", help="folders that earlier runs recorded")
    _forms(beside, markdown="for a comment or a wiki", json=FOR_PROGRAMS)
    beside.set_defaults(run=show_fleet)

    signing = commands.add_parser("sign", help="sign what a finished run found", allow_abbrev=False)
    signing.add_argument("evidence", type=Path, metavar="DIR", help="a folder that a run has finished")
    signing.add_argument("--key", type=Path, required=True, help="an SSH key, or the public half of one in ssh-agent")
    signing.add_argument("--identity", metavar="ID", help="who signs, as allowed-signers files name it; stated too")
    _forms(signing, json="the statement on stdout")
    signing.set_defaults(run=sign)

    checking = commands.add_parser("verify", help="hold evidence against what was signed", allow_abbrev=False)
    checking.add_argument("evidence", type=Path, metavar="DIR", help="a folder with attestation.json and its signature")
    checking.add_argument(
        "--signers", type=Path, required=True, metavar="FILE", help="whose key is whose: OpenSSH's allowed signers"
    )
    checking.add_argument("--identity", metavar="ID", help="who must have signed (default: any of the signers)")
    _forms(checking, json=FOR_PROGRAMS)
    checking.set_defaults(run=verify)

    drawing = commands.add_parser(
        "figure", help="acceptance and speedup of recorded evidence as SVG", allow_abbrev=False
    )
    drawing.add_argument("evidence", type=Path, metavar="DIR", help="a folder that an earlier run recorded")
    drawing.add_argument("--into", type=Path, metavar="FILE", required=True, help="where to write it")
    drawing.set_defaults(run=draw)

    keeping = commands.add_parser(
        "keep-regressions", help="keep what broke the parser in recorded evidence", allow_abbrev=False
    )
    keeping.add_argument("evidence", type=Path, metavar="DIR", help="a folder that an earlier run recorded")
    _forms(keeping, json=FOR_PROGRAMS)
    keeping.set_defaults(run=keep)

    checks = commands.add_parser("catalogue", help="list the checks", allow_abbrev=False)
    _forms(checks, into=True, markdown="as the table of README", json=FOR_PROGRAMS)
    checks.set_defaults(run=list_checks)

    kernels = commands.add_parser("moe-table", help="vLLM's choice of a MoE kernel by device", allow_abbrev=False)
    _forms(kernels, into=True, markdown="as the table of docs/moe-backends.md", json=FOR_PROGRAMS)
    kernels.set_defaults(run=show_moe_table)

    known = commands.add_parser("calibrate", help="how often the intervals hold known rates", allow_abbrev=False)
    known.add_argument("--hardware", help="a name in fixtures/hardware, or a TOML file (default: what is detected)")
    known.add_argument("--pair", help="a name in fixtures/models, or a TOML file (default: the embedded NVFP4 pair)")
    known.add_argument("--trials", type=int, default=80, metavar="N", help="at each vector of rates (default: 80)")
    known.add_argument("--prompts", type=int, default=16, metavar="N", help="in each trial (default: 16)")
    _forms(known, into=True, json=FOR_PROGRAMS)
    known.set_defaults(run=calibrate)

    shells = commands.add_parser("completion", help="a script by which a shell completes all this", allow_abbrev=False)
    shells.add_argument("shell", choices=completion.SHELLS, help="the shell that is to read it")
    shells.set_defaults(run=lambda options: complete(parser, commands, options.shell))
    return parser


if __name__ == "__main__":
    sys.exit(main())
