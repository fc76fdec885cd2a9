"""All that each check says of a healthy run and of every damaged one, kept as text that people can read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from support import synthetic
from support.snapshots import expect_snapshot

from conformance import FIXTURES
from conformance.judging.verdict import Finding
from negative_controls.damages import DAMAGES, NOTHING
from negative_controls.judge_documents import FUNCTIONS, Documents, outcome

FAMILIES = sorted({id.partition("-")[0] for id in FUNCTIONS})


def lines(found: Finding) -> str:
    """A finding with everything that a report shows of it."""
    interval = "" if found.interval is None else " [{:.3g}, {:.3g}]".format(*found.interval)
    count = "" if found.n is None else f", n = {found.n}"
    kept = [f"{found.value}{interval} where the floor is {found.floor or 'empty'}{count}; {found.source}"]
    kept += [f"{name}: {text}" for name, text in (("note", found.note), ("kind", found.kind)) if text]
    kept += [found.power] if found.power else []
    return f"  {found.verdict}: {found.sentence}\n" + "".join(f"    {each}\n" for each in kept)


def told(id: str, case: str, damage: Callable[[Documents], None]) -> str:
    """The outcome of a check in one case."""
    documents = synthetic.healthy()
    damage(documents)
    found = outcome(id, documents)
    text = f"{id}, {case}: {found.verdict}: {found.sentence}\n{''.join(map(lines, found.findings))}"
    return text.replace(str(FIXTURES), "fixtures")


def cases(family: str) -> Iterator[tuple[str, str, Callable[[Documents], None]]]:
    """Every check of a family: healthy, with each of its damages, and without data."""
    for id in FUNCTIONS:
        if id.startswith(f"{family}-"):
            yield id, "healthy", lambda _: None
            for damaged, damage, sentence in (*DAMAGES, *NOTHING):
                if damaged == id:
                    yield id, f'damaged so that it says "{sentence}"', damage


@pytest.mark.parametrize("family", FAMILIES)
def test_outcomes_are_told_as_before(family: str) -> None:
    expect_snapshot(f"outcomes-{family.lower()}", "\n".join(told(*case) for case in cases(family)))
