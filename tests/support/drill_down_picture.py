"""``python -m support.drill_down_picture REPORT CHECK PNG`` in ``tests``: what a reader sees who opens a check.

``REPORT`` is the report.html of a run. The picture is the opened part of the page, as headless Chromium shows it.
"""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path

from support.browser import chromium

WIDTH, MOST_HEIGHT = 1200, 760


def main(report: Path, check: str, picture: Path) -> None:
    """Open the check's part of the page and keep its picture."""
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder)) as page:
        page.show(report.resolve(), WIDTH, "light")
        find = f"document.getElementById({check!r})"
        page.value(f"{find}.open = true; {find}.querySelectorAll('details').forEach(each => each.open = true)")
        names = ("x", "y", "width", "height")
        x, y, width, height = page.value(
            f"(box => [{', '.join(f'box.{name}' for name in names)}])({find}.getBoundingClientRect())"
        )
        clip = {"x": x, "y": y, "width": width, "height": min(height, MOST_HEIGHT), "scale": 1}
        shown = page.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        picture.write_bytes(base64.b64decode(shown["data"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
