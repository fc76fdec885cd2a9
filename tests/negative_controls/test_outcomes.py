"""All that each check says of a healthy run, of every damaged one, and of a recorded one: texts for people."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import synthetic
from support.paths import ROOT
from support.snapshots import expect_snapshot

from conformance import FIXTURES
from conformance.evidence.archive import unpack
from conformance.judging.verdict import Finding
from negative_controls.damages import DAMAGES, NOTHING
from negative_controls.judge_documents import FUNCTIONS, Documents, outcome

# Recorded runs, and the checks that are not judged on them: the archive lacks the observation or has an older one, or
# the check asks for what the profile of a CPU expects.
COMBINATIONS = tuple(f"FEATURE-{number}" for number in (15, 16, 17, 18, 20, 21))
DRAWN = tuple(f"PARSE-{number:02}" for number in range(7, 13))
OTHERS = tuple(id for id in FUNCTIONS if not id.startswith("SOAK-"))
RECORDED = {
    "cpu": (
        "releases/0.32.0.tar.xz",
        ("NUM-", "PARITY-", "SOAK-", "SPEED-06", "GRAPH-02", "GRAPH-03", "FEATURE-12", *COMBINATIONS),
    ),
    "h200": (
        "h200/nvfp4-graphs.tar.gz",
        ("MOE-", "SOAK-", "SPEED-03", "SPEED-06", "DRAFT-11", "FEATURE-11", *COMBINATIONS, *DRAWN),
    ),
    "h100-soak": ("h100/nvfp4-graphs-soak.tar.gz", ("SOAK-06", *OTHERS)),
}
RECORDED_OUTCOMES = [
    (run, id) for run, (_, left_out) in RECORDED.items() for id in FUNCTIONS if not id.startswith(left_out)
]


def lines(found: Finding) -> str:
    """A finding with everything that a report shows of it."""
    interval = "" if found.interval is None else " [{:.3g}, {:.3g}]".format(*found.interval)
    count = "" if found.n is None else f", n = {found.n}"
    kept = [f"{found.value}{interval} where the floor is {found.floor or 'empty'}{count}; {found.source}"]
    kept += [f"{name}: {text}" for name, text in (("note", found.note), ("kind", found.kind)) if text]
    kept += [found.power] if found.power else []
    return f"  {found.verdict}: {found.sentence}\n" + "".join(f"    {each}\n" for each in kept)


def told(id: str, case: str, documents: Documents) -> str:
    """The outcome of a check in one case."""
    found = outcome(id, documents)
    text = f"{id}, {case}: {found.verdict}: {found.sentence}\n{''.join(map(lines, found.findings))}"
    return text.replace(str(FIXTURES), "fixtures")


def cases(id: str) -> Iterator[tuple[str, Documents]]:
    """A check's cases: healthy, with each of its damages, and without data."""
    yield "healthy", synthetic.Fresh()
    for damaged, damage, sentence in (*DAMAGES, *NOTHING):
        if damaged == id:
            documents = synthetic.Fresh()
            damage(documents)
            yield f'damaged so that it says "{sentence}"', documents


@pytest.mark.parametrize("id", FUNCTIONS)
def test_an_outcome_is_told_as_before(id: str) -> None:
    expect_snapshot(f"outcomes/{id}", "\n".join(told(id, *case) for case in cases(id)))


@functools.cache
def recorded(run: str) -> Documents:
    """The observations of a recorded run, which no test damages."""
    with tempfile.TemporaryDirectory() as folder:
        evidence = unpack(ROOT / "docs/results" / RECORDED[run][0], Path(folder))
        return {path.stem: json.loads(path.read_text()) for path in evidence.glob("observations/*.json")}


@pytest.mark.parametrize(("run", "id"), RECORDED_OUTCOMES)
def test_a_recorded_outcome_is_told_as_before(run: str, id: str) -> None:
    """What machines do is richer than what the other documents make up. Both are judged by the floors of a CPU."""
    expect_snapshot(f"recorded/{run}/{id}", told(id, f"recorded on {run}", recorded(run)))
