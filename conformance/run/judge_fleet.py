"""Compares several runs: judges each again from its evidence, and marks outliers.

A mark is a hint where to look, not a verdict. There are two rules: a verdict that differs from the majority is marked,
and so is a value whose modified z-score by the median absolute deviation exceeds 3.5 (Iglewicz and Hoaglin, How to
Detect and Handle Outliers, 1993).
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from conformance.errors import ObservationError, UsageError
from conformance.evidence.folder import MANIFEST, Evidence, is_finished, read_header
from conformance.judging.stats import Estimate
from conformance.judging.verdict import ExitCode, Verdict
from conformance.reports.source import Source
from conformance.run.judge_evidence import judge_again
from conformance.run.session import Options, open_session
from conformance.views.acceptance import everywhere
from conformance.views.fleet import LENGTH, LIMIT, MINIMUM, Group, Row
from conformance.views.sweep import Sweep

# The worst first, as in the judgement of one run.
GRAVITY = (ExitCode.NOT_QUALIFIED, ExitCode.INSTRUMENT, ExitCode.INCONCLUSIVE, ExitCode.NOTHING, ExitCode.QUALIFIED)

T = TypeVar("T")


def combine(directories: Sequence[Path], progress: Callable[[str], None]) -> list[Group]:
    """Judge each directory again and return the rows in groups, with outliers marked.

    Raises:
        UsageError: a path is not a directory.
    """
    for directory in directories:
        if not directory.is_dir():
            raise UsageError(f"{directory} is not a folder: name folders that qualify has recorded.")
    rows, once = [], list(dict.fromkeys(directories))
    for number, directory in enumerate(once, 1):
        progress(f"judging {directory}, {number} of {len(once)}")
        rows.append(read_row(directory))
    return group_rows(rows)


def group_rows(rows: Sequence[Row]) -> list[Group]:
    """The rows grouped by pair and level, with the outliers of each group marked."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.pair, row.level), []).append(row)
    return [Group(pair, level, tuple(mark_outliers(members))) for (pair, level), members in found.items()]


def worst(groups: Iterable[Group]) -> ExitCode:
    """The worst exit code of all runs; a run that could not be judged counts as an error of the instrument."""
    return min((row.exit_code for each in groups for row in each.rows), key=GRAVITY.index)


def read_row(directory: Path) -> Row:
    """The row of a run, with as much as can be read from its evidence."""
    try:
        header = read_header(directory)
    except (UsageError, ObservationError) as error:
        return Row(str(directory), problem=str(error))
    row = Row(str(directory), hardware=header.hardware, pair=header.pair, level=header.level, vllm=header.vllm or "")
    if not is_finished(directory):
        return replace(row, problem=f"unfinished: {directory} has no {MANIFEST}")
    try:
        return _judge(row, directory)
    except (UsageError, ObservationError) as error:
        return replace(row, problem=str(error))


def modified_z(value: float, values: Sequence[float]) -> float:
    """The modified z-score: the distance from the median in units that outliers do not change; 0 for too few values.

    If more than half of the values are equal, the median of the deviations is 0, and their mean is used instead.
    """
    if len(values) < MINIMUM:
        return 0.0
    median = statistics.median(values)
    deviations = [abs(each - median) for each in values]
    spread = statistics.median(deviations) / 0.6745 or statistics.fmean(deviations) * 1.2533
    return (value - median) / spread if spread else 0.0


def mark_outliers(rows: Sequence[Row]) -> list[Row]:
    """The rows of one group, each with marks that say how it differs from the other judged rows."""
    judged = [row for row in rows if not row.problem]
    return [
        row if row.problem else replace(row, marks=(*_odd_verdict(row, judged), *_odd_figures(row, judged)))
        for row in rows
    ]


def _odd_verdict(row: Row, judged: Sequence[Row]) -> Iterator[str]:
    usual, count = Counter(each.verdict for each in judged).most_common(1)[0]
    if 2 * count > len(judged) and row.verdict != usual:
        yield f"verdict {row.verdict}, where {count} of {len(judged)} are {usual} (majority)"


def _odd_figures(row: Row, judged: Sequence[Row]) -> Iterator[str]:
    for name, found in row.figures.items():
        values = [each.figures[name].value for each in judged if name in each.figures]
        z = modified_z(found.value, values)
        if abs(z) > LIMIT:
            among = f"{statistics.median(values):.3f} is the median of {len(values)}"
            yield f"{name} {found.value:.3f}, where {among} (modified z-score {z:+.1f})"


def _judge(row: Row, directory: Path) -> Row:
    # This raises UsageError for evidence that cannot be judged.
    session = open_session(Options(evidence=directory, recorded_only=True), Path.cwd())
    run, judgement = judge_again(directory)
    source = Source(Evidence(directory, recording=False), session.profile)
    return replace(
        row,
        hardware=run.hardware,
        machine=_attempt(lambda: _machine(source)) or "",
        pair=run.pair,
        exit_code=judgement.exit_code,
        sentence=judgement.sentence,
        figures=dict(_figures(source)),
        best_k=_attempt(lambda: Sweep.of(source.observation("sweep")).best_k()),
        not_passed={record.id: record.verdict for record in run.records if record.verdict is not Verdict.PASS},
    )


def _machine(source: Source) -> str:
    environment = source.observation("environment")
    machine = " ".join(filter(None, (environment["machine"], environment.get("cpu_capability"))))
    return f"{machine}, {environment['cpu_count']} cores"


def _figures(source: Source) -> Iterator[tuple[str, Estimate]]:
    """The acceptance length over all requests and the speedup at each concurrency, over all looks, at 95 %."""
    load = _attempt(lambda: source.load)
    if load is None:
        return
    wanted = {LENGTH: lambda: everywhere(load).length()}
    wanted |= {f"speedup {cell.name}": cell.speedup for cell in load.cells.values()}
    for name, estimate in wanted.items():
        if found := _attempt(estimate):
            yield name, found


def _attempt(make: Callable[[], T]) -> T | None:
    try:
        return make()
    except Exception:  # the check that reads the same value reports the error
        return None
