"""docs/releases.svg: releases by family of checks, one coloured letter each; 400 pixels wide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from conformance.judging.check import FAMILIES
from conformance.profile.release_facts import Release
from conformance.reports.releases.outlook import families

WIDTH, LABEL, HEAD, ROW = 400, 46, 66, 19  # pixels
LETTERS = {"PASS": "P", "UNSUPPORTED": "U", "INCONCLUSIVE": "I", "WAIVED": "W", "FAIL": "F", "ERROR": "E"}
COLOURS = {  # of the cell; every letter has a contrast of 7 or more on it
    "PASS": "#c6efce",
    "UNSUPPORTED": "#e2e2e2",
    "INCONCLUSIVE": "#fff2cc",
    "WAIVED": "#ffe0b2",
    "FAIL": "#f8cbcb",
    "ERROR": "#e6c6f0",
}


def as_svg(releases: Sequence[Release]) -> str:
    """The picture, the newest release first; the same releases give the same bytes."""
    judged = {name for each in releases for name in families(each)}
    columns = [name for name in FAMILIES if name in judged]
    height = HEAD + ROW * len(releases) + 4
    title = f"Verdicts of {len(releases)} vLLM releases by family of checks"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
            ' role="img" font-family="sans-serif" font-size="11">',
            f"<title>{escape(title)}</title>",
            f"<desc>{escape(' '.join(_words(releases)))}</desc>",
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            *_heads(columns),
            *(line for row, each in enumerate(reversed(releases)) for line in _row(row, each, columns)),
            "</svg>",
            "",
        ]
    )


def _words(releases: Sequence[Release]) -> Iterator[str]:
    for each in reversed(releases):
        yield f"{each.release}: {', '.join(f'{name} {verdict}' for name, verdict in families(each).items())}."


def _heads(columns: Sequence[str]) -> Iterator[str]:
    for place, name in enumerate(columns):
        x = _left(place, len(columns)) + _width(len(columns)) / 2 + 4
        yield f'<text transform="translate({x:.1f} {HEAD - 5}) rotate(-90)" fill="#1a1a1a">{escape(name)}</text>'


def _row(row: int, release: Release, columns: Sequence[str]) -> Iterator[str]:
    y, wide = HEAD + ROW * row, _width(len(columns))
    yield f'<text x="2" y="{y + 13}" fill="#1a1a1a">{escape(release.release)}</text>'
    found = families(release)
    for place, name in enumerate(columns):
        x, verdict = _left(place, len(columns)), found.get(name)
        middle = f'x="{x + (wide - 1) / 2:.1f}" y="{y + 13}" text-anchor="middle" fill="#1a1a1a"'
        if verdict is None:
            yield f"<text {middle}>·</text>"
            continue
        yield f'<rect x="{x:.1f}" y="{y}" width="{wide - 1:.1f}" height="{ROW - 1}" fill="{COLOURS[verdict]}"/>'
        yield f"<text {middle}>{LETTERS[verdict]}</text>"


def _width(columns: int) -> float:
    return (WIDTH - LABEL) / max(columns, 1)


def _left(place: int, columns: int) -> float:
    return LABEL + place * _width(columns)
