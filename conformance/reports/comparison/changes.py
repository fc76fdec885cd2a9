"""The changes from one run to another: verdicts, and figures with the interval of their change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from conformance.errors import ObservationError, Unsupported
from conformance.evidence.folder import Header, read_header
from conformance.judging.stats import Estimate, look_confidence
from conformance.judging.verdict import ExitCode, Judgement, Record, Run, Verdict
from conformance.reports.comparison.quantities import Quantity, quantities
from conformance.reports.source import Source

GOOD = (Verdict.PASS, Verdict.WAIVED)
BAD = (Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE)
# Fields of a header that should be equal in both runs.
SUBJECT = ("pair", "hardware", "level", "dataset_sha256", "task_set_sha256")
WORSE, BETTER, OTHER = "worse", "better", "other"


@dataclass(frozen=True)
class Side:
    """One of the two runs, judged by today's checks."""

    run: Run
    judgement: Judgement
    source: Source

    @property
    def header(self) -> Header:
        """The header of the run."""
        return read_header(self.source.evidence.directory)


@dataclass(frozen=True)
class VerdictChange:
    """A check whose verdict changed; ``sentence`` is that of the worse verdict."""

    id: str
    claim: str
    before: Verdict
    after: Verdict
    sentence: str

    @property
    def direction(self) -> str:
        """Whether the verdict got worse or better, or neither: a check that was not possible counts as neither."""
        if self.before in GOOD and self.after in BAD:
            return WORSE
        return BETTER if self.before in BAD and self.after in GOOD else OTHER


@dataclass(frozen=True)
class FigureChange:
    """A figure of both runs and its change: a ratio if ``is_ratio``, else a difference."""

    name: str
    before: float
    after: float
    change: Estimate
    is_ratio: bool
    decides: bool

    @property
    def differs(self) -> bool:
        """Whether the interval of the change excludes equality."""
        same = 1.0 if self.is_ratio else 0.0
        return not self.change.low <= same <= self.change.high

    @property
    def lower(self) -> bool:
        """Whether the second run is lower with confidence, which is worse for every figure here."""
        return self.differs and self.after < self.before

    @property
    def said(self) -> str:
        """The words for the change."""
        return "differs" if self.differs else "no difference shown"


@dataclass(frozen=True)
class Comparison:
    """The comparison of two runs; ``confidence`` is that of each figure's interval."""

    before: Side
    after: Side
    verdicts: tuple[VerdictChange, ...]
    figures: tuple[FigureChange, ...]
    confidence: float
    notes: tuple[str, ...]

    @property
    def lower(self) -> list[str]:
        """The figures that decide and are lower."""
        return [figure.name for figure in self.figures if figure.decides and figure.lower]

    def changed(self, direction: str) -> list[str]:
        """The checks that changed in this direction, each with both verdicts."""
        return [f"{each.id} {each.before} → {each.after}" for each in self.verdicts if each.direction == direction]

    @property
    def exit_code(self) -> ExitCode:
        """1 if a check got worse or a deciding figure is lower."""
        return ExitCode.NOT_QUALIFIED if self.changed(WORSE) or self.lower else ExitCode.QUALIFIED

    @property
    def sentence(self) -> str:
        """The result of the comparison as a sentence."""
        compared = f"{len(self.before.run.records)} and {len(self.after.run.records)} checks"
        if self.exit_code == ExitCode.QUALIFIED:
            count = sum(figure.decides for figure in self.figures)
            said = f"B is no worse than A: no check got worse ({compared}), and no figure of {count} is shown lower"
            return f"{said}{_listed('; better: ', self.changed(BETTER))}."
        worse = [_listed("worse: ", self.changed(WORSE)), _listed("lower: ", self.lower)]
        return f"B is worse than A: {'; '.join(filter(None, worse))}."


def compare(before: Side, after: Side) -> Comparison:
    """Compare what both runs have observed.

    The intervals of all deciding figures hold at the same time: each has its share of the error. Otherwise, every
    second comparison of equal runs would show a change in one of a dozen figures.

    Raises:
        UsageError: a side holds no evidence.
    """
    found, notes = quantities(before.source, after.source)
    confidence = look_confidence(max(1, sum(quantity.decides for quantity in found)))
    figures, unmeasured = _measure_changes(found, confidence)
    return Comparison(
        before,
        after,
        tuple(_verdict_changes(before.run.records, after.run.records)),
        figures,
        confidence,
        (*_differences(before, after), *notes, *unmeasured),
    )


def _verdict_changes(before: Iterable[Record], after: Iterable[Record]) -> Iterator[VerdictChange]:
    """The changes of verdicts, the worse ones first, in the order of the table."""
    earlier = {record.id: record for record in before}
    pairs = [(earlier[record.id], record) for record in after if record.id in earlier]
    changes = [
        VerdictChange(new.id, new.claim, old.verdict, new.verdict, (old if new.verdict in GOOD else new).sentence)
        for old, new in pairs
        if old.verdict is not new.verdict
    ]
    return iter(sorted(changes, key=lambda change: (WORSE, BETTER, OTHER).index(change.direction)))


def _measure_changes(found: Iterable[Quantity], confidence: float) -> tuple[tuple[FigureChange, ...], list[str]]:
    figures, problems = [], []
    for each in found:
        try:
            change = each.change(confidence)
        except (ObservationError, Unsupported) as error:
            if each.decides:  # a part may have too few samples
                problems.append(f"{each.name} cannot be compared: {error}.")
        else:
            figures.append(FigureChange(each.name, each.before, each.after, change, each.is_ratio, each.decides))
    return tuple(figures), problems


def _differences(before: Side, after: Side) -> Iterator[str]:
    """A sentence for each difference between the runs."""
    one, other = asdict(before.header), asdict(after.header)
    if parted := [name for name in SUBJECT if one[name] != other[name]]:
        words = "; ".join(f"{name.partition('_')[0]} {one[name]} and {other[name]}" for name in parted)
        yield f"The runs are not of the same kind ({words}): only what both have seen is compared."
    ours, theirs = ([record.id for record in side.run.records] for side in (before, after))
    for who, more in (("A", set(ours) - set(theirs)), ("B", set(theirs) - set(ours))):
        if more:
            yield f"Only {who} has {', '.join(id for id in (*ours, *theirs) if id in more)}."


def _listed(word: str, names: list[str]) -> str:
    return f"{word}{', '.join(names)}" if names else ""
