"""The documentation: it builds without a warning, fetches nothing, and its tables are those of today."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

from support.paths import ROOT

from conformance.judging.catalogue import catalogue
from conformance.reports.checks_table import BEGIN, END, as_markdown
from conformance.reports.markdown import between


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """``mkdocs build --strict`` of a copy, which a broken link or a page that nobody links fails."""
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("*.tar.gz"))
    shutil.copy(ROOT / "mkdocs.yml", folder)
    return again(folder)


def again(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder / "site")]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=folder, env=quiet, capture_output=True, text=True, check=False)


def test_it_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    done = build(tmp_path)
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        if "results" not in page.parts or page.name == "index.html":
            loaded = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text("utf-8"))
            assert [each for each in loaded if "canonical" not in each] == []


def test_a_broken_link_fails_it(tmp_path: Path) -> None:
    assert build(tmp_path).returncode == 0
    page = tmp_path / "docs" / "index.md"
    page.write_text(page.read_text() + "\n[gone](no-such-page.md)\n")
    done = again(tmp_path)
    assert done.returncode == 1
    assert "no-such-page.md" in done.stderr


def test_the_table_of_checks_is_that_of_today() -> None:
    text = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
    drift = "out of date: run qualify catalogue --into docs/checks.md"
    assert between(text, BEGIN, END, as_markdown(catalogue()), "docs/checks.md") == text, drift


def test_nix_and_conda_have_the_environments_that_the_page_names() -> None:
    text = " ".join((ROOT / "docs/environments.md").read_text(encoding="utf-8").split())
    environments = {path.parent.name for path in ROOT.glob("envs/*/lock.txt")}
    shells = re.findall(
        r'^ +"?([\w.-]+)"? = .*nix\.(?:shell|fhs) .*;', (ROOT / "flake.nix").read_text("utf-8"), re.MULTILINE
    )
    (missing,) = environments - {"cpu" if name == "default" else name for name in shells}
    assert f"Nix has a shell for every environment but `{missing}`" in text
    for path in ROOT.glob("environment*.yml"):
        (environment,) = re.findall(r"CONFORMANCE_ENV: (\S+)", path.read_text("utf-8"))
        assert f"`{environment}` (`{path.name}`)" in text


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


def test_the_page_of_the_h100_has_the_archives_deviations() -> None:
    page = (ROOT / "docs/results/h100/README.md").read_text(encoding="utf-8")
    with tarfile.open(ROOT / "docs/results/h100/nvfp4-eager.tar.gz") as archive:
        lines = archive.extractfile("nvfp4-eager/verdicts.jsonl").read().splitlines()  # type: ignore[union-attr]
    (num,) = (row for row in map(json.loads, lines) if row.get("id") == "NUM-01")
    worst = [finding["value"].replace("%", " %") for finding in num["findings"]]
    assert worst == ["0.77 %", "1.03 %"]
    assert all(value in page for value in worst)


def test_the_page_of_the_h200_has_the_archives_verdicts() -> None:
    page = (ROOT / "docs/results/h200/README.md").read_text(encoding="utf-8")
    for run in ("nvfp4-graphs", "bf16-graphs", "nvfp4-marlin-smoke", "seed-launch-graphs"):
        with tarfile.open(ROOT / f"docs/results/h200/{run}.tar.gz") as archive:
            lines = archive.extractfile(f"{run}/verdicts.jsonl").read().splitlines()  # type: ignore[union-attr]
        verdicts = {row["id"]: row["verdict"] for row in map(json.loads, lines) if "id" in row}
        (row,) = [line for line in page.splitlines() if line.startswith(f"| [{run}]")]
        counts = Counter(verdicts.values())
        assert re.findall(r"(\d+) (?:of \d+ checks )?(PASS|FAIL|UNSUPPORTED)", row) == [
            (str(counts[verdict]), verdict) for verdict in ("PASS", "FAIL", "UNSUPPORTED")
        ]
        assert all(id in page for id, verdict in verdicts.items() if verdict != "PASS")


def test_no_page_says_a_sentence_twice() -> None:
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        prose = [line for line in path.read_text("utf-8").splitlines() if not line.startswith(("|", "    "))]
        sentences = [each for each in re.split(r"(?<=[.:]) ", " ".join(" ".join(prose).split())) if len(each) > 60]
        assert [each for each in sentences if sentences.count(each) > 1] == [], path


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_table_of_faults_is_that_of_today() -> None:
    made = "import faults.__main__ as made; print(made.page(), end='')"
    paths = os.pathsep.join(map(str, (ROOT / "tests", ROOT / "tests/faults", ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", made], env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=True
    )
    assert (ROOT / "docs/faults.md").read_text(encoding="utf-8") == done.stdout, "out of date: run scripts/faults"
    assert done.stdout.count(" s | ") >= 60
