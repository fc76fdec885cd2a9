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
    documents = synthetic.Fresh()
    damage(documents)
    found = outcome(id, documents)
    text = f"{id}, {case}: {found.verdict}: {found.sentence}\n{''.join(map(lines, found.findings))}"
    return text.replace(str(FIXTURES), "fixtures")


def cases(id: str) -> Iterator[tuple[str, Callable[[Documents], None]]]:
    """A check's cases: healthy, with each of its damages, and without data."""
    yield "healthy", lambda _: None
    for damaged, damage, sentence in (*DAMAGES, *NOTHING):
        if damaged == id:
            yield f'damaged so that it says "{sentence}"', damage


@pytest.mark.parametrize("id", FUNCTIONS)
def test_an_outcome_is_told_as_before(id: str) -> None:
    expect_snapshot(f"outcomes/{id}", "\n".join(told(id, *case) for case in cases(id)))
