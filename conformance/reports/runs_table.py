"""Recorded runs: ``qualify list`` names them, ``qualify history`` shows their verdicts and figures over dates."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from conformance.errors import ObservationError, UsageError
from conformance.evidence.folder import HEADER, Evidence, Header, is_finished, read_header
from conformance.evidence.journal import JOURNAL, read_journal
from conformance.judging.verdict import ExitCode, Run, Verdict, judge_run
from conformance.profile.profile import read_profile
from conformance.reports.report import key_figures
from conformance.reports.sanitize import json_text
from conformance.reports.source import Source
from conformance.reports.terminal import PLAIN_WIDTH, SENTENCE_STYLES, STYLES, safe

FORMAT = 1
NOT_MEASURED = "."
MARKS = {
    Verdict.PASS: "+",
    Verdict.FAIL: "F",
    Verdict.ERROR: "E",
    Verdict.INCONCLUSIVE: "?",
    Verdict.WAIVED: "w",
    Verdict.UNSUPPORTED: NOT_MEASURED,
}
LEGEND = "+ PASS, F FAIL, E ERROR, ? INCONCLUSIVE, w WAIVED, . not measured (unsupported, or not in this run)"


@dataclass(frozen=True)
class Recorded:
    """One recorded run as its journal tells it; ``exit_code`` is None for a run that did not finish."""

    folder: str
    header: Header
    run: Run | None
    exit_code: ExitCode | None
    sentence: str

    @property
    def counts(self) -> dict[str, int]:
        """The number of checks by verdict."""
        return dict(Counter(str(record.verdict) for record in self.run.records)) if self.run else {}

    @property
    def host(self) -> str:
        """What may be compared over dates: the machine, the pair and the level."""
        machine = self.header.ssh or self.header.attached or self.header.hardware_detected or ""
        words = (self.header.hardware, self.header.pair, f"level {self.header.level}", machine)
        return ", ".join(filter(None, words))

    def figures(self) -> dict[str, tuple[float, float, float]]:
        """The key figures that the evidence holds: value, low and high end."""
        folder = Path(self.folder)
        evidence = Evidence(folder, recording=False)
        try:
            source = Source(evidence, read_profile(evidence.profile, self.header.level))
            return {row.figure: (row.value, row.low, row.high) for row in key_figures(source)}
        except (ObservationError, UsageError, OSError):
            return {}


def find_runs(folders: Sequence[Path]) -> list[Recorded]:
    """The runs in these folders and directly below them, the oldest first.

    Raises:
        UsageError: a folder does not exist or holds no run.
    """
    found: dict[Path, Recorded] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder: name one that holds recorded runs.")
        runs = [each for each in (folder, *sorted(folder.iterdir())) if (each / HEADER).is_file()]
        if not runs:
            raise UsageError(
                f"{folder} holds no recorded run: name a folder that qualify has recorded, or one of several."
            )
        for each in runs:
            if each.resolve() not in found:
                found[each.resolve()] = _read(each)
    return sorted(found.values(), key=lambda each: (each.header.started, each.folder))


def _read(folder: Path) -> Recorded:
    header = read_header(folder)
    try:
        run = read_journal(folder / JOURNAL)
    except ObservationError as error:
        return Recorded(str(folder), header, None, None, str(error))
    if not (run.complete and is_finished(folder)):
        return Recorded(str(folder), header, run, None, f"did not finish; qualify --resume {folder} finishes it")
    judgement = judge_run(run)
    return Recorded(str(folder), header, run, judgement.exit_code, judgement.sentence)


def list_as_text(runs: Sequence[Recorded], *, width: int | None = None, colour: bool = False) -> str:
    """A few words for each run: when, what, and how it ended."""
    out, console = _console(width, colour)
    if not runs:
        console.print("No recorded run.")
    for each in runs:
        style = "dim" if each.exit_code is None else SENTENCE_STYLES.get(each.exit_code, "bold red")
        about = f"{each.header.started}  {each.header.pair} on {each.header.hardware}, level {each.header.level}"
        console.print(safe(f"{each.folder}"), soft_wrap=True)
        for line in (safe(f"{about}, vLLM {each.header.vllm}"), safe(each.sentence, style)):
            console.print(Padding(line, (0, 0, 0, 4), expand=False))
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def list_as_json(runs: Sequence[Recorded]) -> str:
    """The same for programs, valid against reports/runs.schema.json."""
    return json_text({"format": FORMAT, "runs": [_about(each) for each in runs]})


def history_as_text(runs: Sequence[Recorded], *, width: int | None = None, colour: bool = False) -> str:
    """For each machine a table: a column for each run, a row for each figure and for each check that did not pass."""
    out, console = _console(width, colour)
    for host, of_host in _by_host(runs).items():
        console.print(safe(host, "bold"))
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("", no_wrap=True)
        for each in of_host:
            table.add_column(f"{each.header.started[:10]}\nvLLM {each.header.vllm}", justify="right")
        for name, values in _figure_rows(of_host):
            table.add_row(safe(name), *values)
        for id, verdicts in _verdict_rows(of_host):
            table.add_row(id, *(_mark(verdict) for verdict in verdicts))
        table.add_row("checks passed", *(str(each.counts.get("PASS", 0)) for each in of_host))
        console.print(table)
        console.print(safe(f"{LEGEND}\n", "dim"))
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def history_as_json(runs: Sequence[Recorded]) -> str:
    """Every verdict and figure for programs; what was not measured is null. Valid against reports/runs.schema.json."""
    rows = []
    for each in runs:
        verdicts = {record.id: str(record.verdict) for record in each.run.records} if each.run else {}
        figures = {
            name: dict(zip(("value", "low", "high"), found, strict=True)) for name, found in each.figures().items()
        }
        rows.append(_about(each) | {"verdicts": verdicts, "figures": figures})
    return json_text({"format": FORMAT, "runs": rows})


def _console(width: int | None, colour: bool) -> tuple[io.StringIO, Console]:
    out = io.StringIO()
    width = width or PLAIN_WIDTH
    return out, Console(file=out, width=width, force_terminal=colour, no_color=not colour, highlight=False, emoji=False)


def _about(each: Recorded) -> dict[str, object]:
    header = each.header
    return {
        "folder": each.folder,
        **{name: getattr(header, name) for name in ("started", "hardware", "pair", "level", "vllm", "suite")},
        "host": each.host,
        "exit_code": None if each.exit_code is None else int(each.exit_code),
        "sentence": each.sentence,
        "counts": each.counts,
    }


def _by_host(runs: Iterable[Recorded]) -> Mapping[str, list[Recorded]]:
    found: dict[str, list[Recorded]] = {}
    for each in runs:
        found.setdefault(each.host, []).append(each)
    return found


def _figure_rows(runs: Sequence[Recorded]) -> Iterator[tuple[str, list[Text]]]:
    figures = [each.figures() for each in runs]
    for name in dict.fromkeys(name for each in figures for name in each):
        yield name, [Text(f"{each[name][0]:.3f}") if name in each else Text(NOT_MEASURED, "dim") for each in figures]


def _verdict_rows(runs: Sequence[Recorded]) -> Iterator[tuple[str, list[Verdict | None]]]:
    """The checks that were once something else than PASS or not measured."""
    found = [{record.id: record.verdict for record in each.run.records} if each.run else {} for each in runs]
    for id in dict.fromkeys(id for each in found for id in each):
        verdicts = [each.get(id) for each in found]
        if any(verdict and MARKS[verdict] not in ("+", NOT_MEASURED) for verdict in verdicts):
            yield id, verdicts


def _mark(verdict: Verdict | None) -> Text:
    if verdict is None or MARKS[verdict] == NOT_MEASURED:
        return Text(NOT_MEASURED, "dim")
    return Text(MARKS[verdict], STYLES[verdict])
