"""The page in a real browser: it fits, in light and dark, on a desk and in a hand, and says nothing but its verdict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support import browser, pages, synthetic
from support.browser import Page

from conformance.reports.html import as_html

WIDTHS, SCHEMES = (1440, 1240, 760, 380), ("light", "dark")
GRAVE = ("serious", "critical")
TALLEST = "Math.max(...[...document.querySelectorAll('summary')].map(each => each.getBoundingClientRect().height))"
CUT = "[...document.querySelectorAll('.scroll')].filter(each => each.scrollWidth > each.clientWidth).length"
BAD = """<!DOCTYPE html><html lang="en"><title>bad</title><main><h1>Bad</h1>
<p style="width:2000px;color:#ccc;background:#fff">wide and pale</p><img src="absent.png"></main>
<script>console.error("no")</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser.chromium(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    return browser.axe(tmp_path_factory.mktemp("axe"))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything that can be in one."""
    evidence = synthetic.record(tmp_path_factory.mktemp("evidence") / "run", pages.diverged())
    path = evidence / "report.html"
    named = "code-00 differs at token 10, and call-01 is wrong"
    source = "observations/near_ties.json, observations/chat-call.json"
    finding = replace(pages.FAILED.findings[0], source=source)
    drilled = replace(pages.FAILED, id="LOSS-02", sentence=named, findings=(finding,), severity="slow")
    records = (*pages.EVERY, replace(drilled, response="measure-again"))
    path.write_text(as_html(pages.report_of(evidence, *records, problems=("a waiver expired",))))
    assert path.read_text().count('<section class="case"') == 2
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.html"
    path.write_text(BAD)
    return path


def overflow(page: Page) -> int:
    """How many pixels the page is wider than its window."""
    found: int = page.value("document.documentElement.scrollWidth - innerWidth")
    return found


def objections(page: Page, axe: str) -> list[str]:
    """What axe-core has against the page, and would call grave."""
    page.value(axe + "; 0")
    found = json.loads(page.value("axe.run().then(found => JSON.stringify(found.violations))"))
    return [
        f"{each['id']}: {each['help']}: {node['html']}"
        for each in found
        if each["impact"] in GRAVE
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_and_can_be_read(page: Page, axe: str, report: Path, width: int, scheme: str) -> None:
    page.complaints.clear()
    page.show(report, width, scheme)
    assert overflow(page) <= 0
    assert page.value(TALLEST) < 150, "a column is too narrow for its words"
    assert objections(page, axe) == []
    assert page.complaints == []
    assert page.value("document.title").startswith("Not qualified")


@pytest.mark.parametrize("width", WIDTHS[:-1])
def test_charts_scroll_on_telephones_only(page: Page, report: Path, width: int) -> None:
    page.show(report, width, "light")
    assert page.value(CUT) == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_the_verdict_is_on_the_first_screen(page: Page, report: Path, width: int) -> None:
    page.show(report, width, "light")
    assert page.value("document.querySelector('.counts').getBoundingClientRect().bottom") < 500


def test_light_and_dark_are_two_pictures(page: Page, report: Path) -> None:
    pictures = []
    for scheme in SCHEMES:
        page.show(report, 1400, scheme)
        pictures.append(page.picture())
    assert all(len(picture) > 20_000 for picture in pictures), "an empty window is a small file"
    assert pictures[0] != pictures[1]


def test_all_of_it_prints(page: Page, report: Path) -> None:
    """On paper nothing can be opened, so everything is."""
    page.show(report, 1400, "light")
    page.call("Emulation.setEmulatedMedia", media="print")
    hidden = "[...document.querySelectorAll('details .check')].filter(each => !each.checkVisibility()).length"
    heights = "[...document.querySelectorAll('.check')].map(each => each.getBoundingClientRect().height)"
    try:
        assert min(page.value(heights)) > 0
        assert page.value(hidden) == 0
        assert page.paper().startswith(b"%PDF")
    finally:
        page.call("Emulation.setEmulatedMedia", media="")


def test_a_keyboard_gets_to_the_findings(page: Page, report: Path) -> None:
    page.show(report, 1400, "light")
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert page.value("document.activeElement.className") == "skip"


def test_a_bad_page_is_seen(page: Page, axe: str, bad: Path) -> None:
    page.complaints.clear()
    page.show(bad, 380, "light")
    found = objections(page, axe)
    assert overflow(page) > 1000
    assert {each.partition(":")[0] for each in found} >= {"color-contrast", "image-alt"}
    assert any('"no"' in each for each in page.complaints)
