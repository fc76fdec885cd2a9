"""docs/sizes.md: made from archives, with a row for what was not run and for what vLLM refused."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support import synthetic

from conformance.commands.main import main
from conformance.errors import UsageError
from conformance.judging.verdict import Verdict
from conformance.reports import sizes_table
from conformance.reports.markdown import between
from conformance.run.judge_sizes import judge_sizes
from conformance.views.fleet import SizeRow

ROOT = Path(__file__).resolve().parents[2]
SEED = ROOT / "docs/results/h200/seed-launch-graphs.tar.gz"


@pytest.fixture(scope="module")
def rows() -> list[SizeRow]:
    return judge_sizes([path for path in (ROOT / "docs/results/sizes", SEED) if path.exists()], lambda _: None)


def test_the_page_is_made_from_the_archives(rows: list[SizeRow]) -> None:
    text = (ROOT / "docs/sizes.md").read_text(encoding="utf-8")
    drift = "out of date: run qualify combine --sizes docs/results/sizes DIR … --into docs/sizes.md, as the page says"
    table = sizes_table.as_markdown(rows)
    assert between(text, sizes_table.BEGIN, sizes_table.END, table, "docs/sizes.md") == text, drift


def test_the_first_launch_is_one_row(rows: list[SizeRow]) -> None:
    (row,) = (row for row in rows if row.archive == SEED.name)
    assert (row.size, row.quantisation, row.vllm, row.workers) == ("26B-A4B", "nvfp4", "0.33.0", 1)
    assert (row.draft, row.experts, row.attention) == ("3 of 3", "HUMMING", "FLASH_ATTN")
    assert row.wiring == "7 of 8; DRAFT-11 UNSUPPORTED"
    assert row.memory_gib == 18.79
    assert row.step_ms["with MTP"] > row.step_ms["without MTP"] > 1
    assert row.in_a_row is not None
    assert 1.7 < row.in_a_row.low < 1.92 < row.in_a_row.high
    assert row.eight_at_once is not None
    assert row.later_tokens is None  # this launch has four places
    assert row.not_passed["ARM-01"] is Verdict.FAIL
    assert not row.refused


def test_a_run_of_the_miniature_is_a_row_below_the_sizes(tmp_path: Path) -> None:
    kept = ("checkpoint", "draft_load", "wiring", "moe", "load", "environment")
    folder = synthetic.record(tmp_path / "run", {name: synthetic.healthy()[name] for name in kept}, level="qualify")
    (row,) = judge_sizes([folder], lambda _: None)
    assert (row.size, row.draft, row.refused) == ("micro-26b-a4b", "3 of 3", "")
    last = sizes_table.as_markdown([row]).splitlines()[-1]
    assert last.startswith("| micro-26b-a4b nvfp4 | run: cpu, vLLM ")


def made(**given: Any) -> SizeRow:
    return SizeRow("E2B", "bf16", "a", "h200", "1", **{"workers": 1, **given})


def test_what_vllm_refused_is_told_below_the_table() -> None:
    text = sizes_table.as_markdown([made(refused="mtp server: ValueError: no kernel", workers=2)])
    assert "1 of 15 pairs were run, 1 runs were refused." in text
    assert "| E2B BF16 | a: h200, vLLM 1, 2 workers; refused, see below |" in text
    assert text.endswith("- E2B BF16 on h200, vLLM 1: mtp server: ValueError: no kernel\n")
    assert text.count("not run") == 14
    assert "refused: mtp server" in "".join(sizes_table.as_text([made(refused="mtp server")]))


def test_a_server_that_did_not_start_is_a_refusal_and_what_was_not_reached_is_none(tmp_path: Path) -> None:
    checkpoint = synthetic.healthy()["checkpoint"]
    died = {"error": {"kind": "observation", "sentence": "mtp server ended: ValueError: no kernel", "log_tail": ""}}
    seen = {"checkpoint": checkpoint, "draft_load": died}
    refused = synthetic.record(tmp_path / "refused", seen, level="smoke")
    stopped = synthetic.record(tmp_path / "stopped", {"checkpoint": checkpoint}, level="smoke")
    found = judge_sizes([refused, stopped], lambda _: None)
    assert [row.refused for row in found] == ["mtp server ended: ValueError: no kernel", ""]


def test_paths_that_are_no_runs_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no evidence, no archive and no folder of archives"):
        judge_sizes([tmp_path], lambda _: None)
    assert main(["combine", str(tmp_path), "--into", str(tmp_path / "x.md")]) == 2
    assert main(["combine", "--sizes", str(SEED), "--json"]) == 2


def driver() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("sizes", str(ROOT / "scripts/sizes"))
    spec = importlib.util.spec_from_loader("sizes", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_the_driver_makes_serves_packs_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the steps do is replaced: a maker that writes the pair file, and a run whose archive is a file."""
    script, said = driver(), list[tuple[str, ...]]()

    def run(*words: object) -> int:
        asked = tuple(map(str, words))
        said.append(asked)
        if "conformance.miniature.published_size" in asked:
            folder = Path(asked[-1])
            folder.mkdir(parents=True)
            gb = 62.0 if "31B" in asked else 19.6
            (folder / f"random-{folder.name}.toml").write_text(f"weights_gb = {gb}\n")
        if "pack" in asked:
            Path(asked[-1]).write_text("archive")
        return 0

    monkeypatch.setattr(script, "run", run)
    monkeypatch.setenv("SIZES_FOLDER", str(tmp_path / "work"))
    words = ["sizes", "--into", str(tmp_path / "archives"), "26B-A4B/nvfp4", "31B/bf16"]
    monkeypatch.setattr(script.sys, "argv", words)
    assert script.main() == 0
    hardware = [asked[asked.index("--hardware") + 1] for asked in said if "--hardware" in asked]
    assert hardware == ["h200-small", "h200"]
    assert {path.name for path in (tmp_path / "archives").iterdir()} == {"26b-a4b-nvfp4.tar.xz", "31b-bf16.tar.xz"}
    assert not list((tmp_path / "work").glob("*/random-*"))
    assert said[-1][:4] == ("-m", "conformance", "combine", "--sizes")
    said.clear()
    assert script.main() == 0
    assert len(said) == 1  # both have an archive
    monkeypatch.setattr(script.sys, "argv", [*words, "--again", "--minutes", "1e-9"])
    assert script.main() == 1


def test_a_pair_that_does_not_exist_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    script = driver()
    monkeypatch.setattr(script.sys, "argv", ["sizes", "27B/int4"])
    with pytest.raises(SystemExit) as raised:
        script.main()
    assert raised.value.code == 2
