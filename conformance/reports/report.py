"""The content of a report, taken from the evidence of a run; the renderers only lay it out."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from conformance.errors import Unsupported
from conformance.evidence.folder import Evidence, Header, read_header
from conformance.judging.verdict import Judgement, Record, Run, Verdict
from conformance.profile.moe_facts import load_moe_facts
from conformance.profile.profile import Profile
from conformance.reports.charts import DRAWINGS, Chart, Drawing, Row, Timeline
from conformance.reports.drill_down import DrillDown, drill_down
from conformance.reports.source import Source
from conformance.serving import logs
from conformance.serving.start_records import Started, read_starts
from conformance.views.moe_oracle import NOT_EVALUATED, MoeOracle
from conformance.views.texts import Divergence, Fork, Texts

GRAVEST = (Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.UNSUPPORTED, Verdict.WAIVED)
LOOKED_INTO = (Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.WAIVED)
ROOM = 1_000_000  # bytes of requests, answers and logs on a page, which shall not exceed 2 MB
FIRST = 8  # divergences that are shown
ARGUMENTS = re.compile(r"non-default args: (\{.*\})")  # how vLLM logs its arguments

T = TypeVar("T")


@dataclass(frozen=True)
class Panel:
    """A chart, or why it cannot be drawn from its observation."""

    id: str
    title: str
    chart: Chart | Timeline | None
    problem: str


@dataclass(frozen=True)
class Parting:
    """A divergence, with its text if the evidence holds both answers."""

    divergence: Divergence
    fork: Fork | None


@dataclass(frozen=True)
class Partings:
    """The first divergences with MTP, and the number of divergences with MTP and without (A/A)."""

    shown: tuple[Parting, ...]
    with_mtp: int
    without_mtp: int


@dataclass(frozen=True)
class Rung:
    """One MoE backend in the selection for a device."""

    backend: str
    state: str
    why: str
    chosen: bool

    @property
    def said(self) -> str:
        """The result for this backend, for a reader."""
        if self.chosen:
            return "chosen"
        return self.why if self.state == NOT_EVALUATED else ": ".join(filter(None, (self.state, self.why)))


@dataclass(frozen=True)
class Ladder:
    """The MoE backends that the selection tries on one device, in its order."""

    device: str
    chosen: str
    expected: str
    rungs: tuple[Rung, ...]
    here: bool  # whether it is the device of this run


@dataclass(frozen=True)
class Distribution:
    """A distribution with its installed and its locked version."""

    name: str
    installed: str
    locked: str


@dataclass(frozen=True)
class Report:
    """The whole content of a report; ``problems`` says which parts of the evidence cannot be shown, and why."""

    run: Run
    judgement: Judgement
    header: Header
    panels: tuple[Panel, ...]
    partings: Partings | None
    ladders: tuple[Ladder, ...]
    facts: Mapping[str, str]
    distributions: tuple[Distribution, ...]
    profile: str
    arguments: Mapping[str, str]
    starts: tuple[Started, ...]
    problems: tuple[str, ...]
    drills: Mapping[str, DrillDown]  # by the id of a check that did not pass

    @property
    def figures(self) -> list[tuple[Panel, Row]]:
        """The key figures, each with the panel that shows more."""
        return _figures(self.panels)

    @property
    def remarkable(self) -> list[tuple[Record, ...]]:
        """The records that did not pass, the worst first; records with the same explanation are in one group."""
        return sorted(self.run.not_passed(), key=lambda group: GRAVEST.index(group[0].verdict))

    @property
    def about(self) -> dict[str, str]:
        """The fields of the header, for a reader."""
        answers = {name: value for name, value in asdict(self.header).items() if value is not None and name != "format"}
        return {name.replace("_", " "): str(value) for name, value in answers.items()}


def gather(run: Run, judgement: Judgement, profile: Profile) -> Report:
    """The report of a run. This observes nothing, and damaged evidence does not make it fail."""
    source = Source(Evidence(Path(run.evidence), recording=False), profile)
    environment, no_environment = _attempt(lambda: _environment(source))
    partings, no_partings = _attempt(lambda: _partings(source))
    ladders, no_ladders = _attempt(lambda: tuple(_ladders(source, profile)))
    starts, no_starts = _attempt(lambda: read_starts(source.evidence.directory))
    problems = {
        "environment": no_environment,
        "first divergences": no_partings,
        "choice of a MoE kernel": no_ladders,
        "start of the servers": no_starts,
    }
    return Report(
        run=run,
        judgement=judgement,
        header=read_header(source.evidence.directory),
        panels=tuple(_panels(source)),
        partings=partings,
        ladders=ladders or (),
        facts=dict(_facts(environment or {})),
        distributions=tuple(_distributions(environment or {})),
        profile=logs.read(source.evidence.profile),
        arguments=dict(_arguments(source.evidence)),
        starts=tuple(starts or ()),
        problems=tuple(f"{what}: {why}" for what, why in problems.items() if why),
        drills=dict(_drills(run, source)),
    )


def key_figures(source: Source) -> list[Row]:
    """The key figures of recorded evidence; what cannot be drawn is left out."""
    return [row for _, row in _figures(tuple(_panels(source)))]


def _figures(panels: Iterable[Panel]) -> list[tuple[Panel, Row]]:
    return [(panel, row) for panel in panels if panel.chart for row in panel.chart.rows if row.figure]


def _attempt(make: Callable[[], T]) -> tuple[T | None, str]:
    """The result, or None and the reason."""
    try:
        return make(), ""
    except Exception as error:  # the report has to show what is wrong with the evidence
        return None, str(error) or type(error).__name__


def _drills(run: Run, source: Source) -> Iterator[tuple[str, DrillDown]]:
    """What is behind each verdict that needs a look, while the page has room for it."""
    room = ROOM
    for record in run.with_verdict(*LOOKED_INTO):
        found, _ = _attempt(functools.partial(drill_down, record, source))
        if found and room > found.size:
            room -= found.size
            yield record.id, found


def _environment(source: Source) -> dict[str, Any]:
    return source.observation("environment") if source.holds("environment") else {}


def _panels(source: Source) -> Iterator[Panel]:
    for drawing in DRAWINGS:
        if source.holds(drawing.observation):
            chart, problem = _attempt(functools.partial(_chart, drawing, source))
            if chart or problem:
                yield Panel(drawing.id, drawing.title, chart, problem)


def _chart(drawing: Drawing, source: Source) -> Chart | Timeline | None:
    """The chart; None if the hardware or this vLLM has nothing to show, which the checks say."""
    with suppress(Unsupported):
        return drawing.draw(source)
    return None


def _partings(source: Source) -> Partings | None:
    if not source.holds("near_ties"):
        return None
    found = Texts.of(source.observation("near_ties")).divergences
    looks = source.looks if source.holds("load") else []
    with_mtp = [each for each in found if each.with_mtp]
    shown = tuple(Parting(each, Fork.of(each, looks)) for each in with_mtp[:FIRST])
    return Partings(shown, len(with_mtp), len(found) - len(with_mtp))


def _ladders(source: Source, profile: Profile) -> Iterator[Ladder]:
    if not source.holds("moe_oracle"):
        return
    oracle = MoeOracle.of(source.observation("moe_oracle"), load_moe_facts().expected)
    here = "CPU" if profile.hardware.sm is None else f"SM {profile.hardware.sm}"
    for name, device in oracle.devices.items():
        expected = [row.backend + (f" ({why})" if why else "") for row, why in oracle.expectations(name)]
        rungs = tuple(
            Rung(backend, seen.state, ", ".join(seen.objections or seen.reasons), backend == device.chosen)
            for backend, seen in ((backend, device.backends[backend]) for backend in device.order)
        )
        yield Ladder(name, device.chosen or device.error, "; ".join(expected), rungs, name == here)


def _facts(environment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The facts about the machine that are single values."""
    for number, gpu in enumerate(environment.get("gpus", ())):
        yield f"GPU {number}", ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in gpu.items())
    if build := environment.get("build"):
        yield "built from source", _built(build)
    for name, value in environment.items():
        if not isinstance(value, dict | list):
            yield name.replace("_", " "), str(value)


def _built(build: Mapping[str, Any]) -> str:
    """A source build in a line: sources by commit or SHA-256, patches by SHA-256, target, compiler and torch."""
    sources = [
        f"{name} {row.get('commit') or row.get('sha256')}" + (f" with patch {row['patch']}" if "patch" in row else "")
        for name, row in build["sources"].items()
    ]
    others = [
        f"{name} {row.get('tree', row['commit'])}" + ("" if row["pinned"] else " (not the pinned one)")
        for name, row in build["third_party"].items()
    ]
    return ", ".join([*sources, *others, f"for {build['target']}", build["compiler"], f"torch {build['torch']}"])


def _distributions(environment: Mapping[str, Any]) -> Iterator[Distribution]:
    locked = environment.get("locked") or {}
    for name, version in (environment.get("installed") or {}).items():
        yield Distribution(name, version or "not installed", locked.get(name, ""))


def _arguments(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """The arguments of each server that are not vLLM's defaults, from its log."""
    for path in sorted(evidence.logs.glob("*.log")):
        if found := ARGUMENTS.search(logs.read(path)):
            yield path.stem, found[1]
