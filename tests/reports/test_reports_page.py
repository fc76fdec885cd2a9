"""The report as a page: everything that the evidence holds is on it, as text, and what it lacks is said."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support import pages, synthetic

from conformance.judging.verdict import Verdict
from conformance.reports.html import as_html


class Reader(HTMLParser):
    """What a page consists of: its elements in their order, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, name: str) -> list[str]:
        return [value for _, attributes in self.elements if (value := attributes.get(name)) is not None]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> str:
    evidence = synthetic.record(tmp_path_factory.mktemp("evidence") / "run", synthetic.healthy())
    return as_html(pages.report_of(evidence, pages.PASSED))


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> str:
    evidence = synthetic.record(tmp_path_factory.mktemp("evidence") / "run", pages.diverged())
    return as_html(pages.report_of(evidence, *pages.EVERY, problems=(f"a waiver of {pages.ATTACK} expired",)))


def test_the_verdict_comes_first(healthy: str) -> None:
    words = [word for word, _ in Reader(healthy).elements]
    assert words.index("h1") < words.index("h2")
    assert words.count("h1") == 1
    assert "<h1><strong>Qualified:</strong> micro-26b-a4b-nvfp4 on cpu, 1 of 1 checks passed.</h1>" in healthy
    assert "<title>Qualified: micro-26b-a4b-nvfp4 on cpu</title>" in healthy


def test_every_panel_is_there(healthy: str) -> None:
    ids = Reader(healthy).attributes("id")
    panels = ["acceptance", "length", "texts", "sweep", "speedup", "soak", "partings", "ladder"]
    assert [id for id in ids if id in panels] == panels
    assert len(ids) == len(set(ids))


def test_a_soak_is_drawn_and_told(healthy: str) -> None:
    section = healthy.partition('<h2 id="soak">')[2].partition("</section>")[0]
    lines = [attributes for word, attributes in Reader(section).elements if word == "svg"]
    assert [line["role"] for line in lines] == ["img"] * 6
    assert str(lines[0]["aria-label"]).startswith("output tokens/s over time: ")
    assert section.count("<polyline points=") == 6
    assert "1500 requests answered" in Reader(section).text


def test_the_page_stands_alone(healthy: str, attacked: str) -> None:
    for page in (healthy, attacked):
        reader = Reader(page)
        assert not {"script", "link", "img", "iframe", "object"} & {word for word, _ in reader.elements}
        assert not reader.attributes("src")
        assert "url(" not in page
        assert "@import" not in page
        assert not [name for _, attributes in reader.elements for name in attributes if name.startswith("on")]


def test_headings_are_in_order(healthy: str) -> None:
    levels = [int(word[1]) for word, _ in Reader(healthy).elements if re.fullmatch(r"h\d", word)]
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))


def test_links_within_the_page_lead_somewhere(attacked: str) -> None:
    reader = Reader(attacked)
    wanted = {href[1:] for href in reader.attributes("href") if href.startswith("#")}
    assert {"main", "speedup", "DRAFT-01"} <= wanted <= set(reader.attributes("id"))


def test_what_others_wrote_stays_text(attacked: str) -> None:
    """In a finding, a note, a log, a problem, the environment and a model's answer."""
    assert Reader(attacked).text.count(pages.ATTACK) >= 6


def test_every_column_of_a_check_is_told(attacked: str) -> None:
    text = " ".join(Reader(attacked).text.split())
    for words in (
        "7 of 8",
        "[0.900, 0.950]",
        "draft_load.json, moe.json",
        "Known failure INTSIZE (vllm-project/vllm#41745): Use a release.",
        "Waived: a grammar is no client's fault (https://github.com/vllm-project/vllm/issues/57725; us",
        "log line red",
        "Level smoke, 31.2 s, upstream vllm#41745",
    ):
        assert words in text
    links = Reader(attacked).attributes("href")
    assert "https://github.com/vllm-project/vllm/issues/41745" in links
    assert "https://github.com/vllm-project/vllm/issues/57725" in links
    assert "observations/moe.json" in links


def test_the_gravest_stands_first(attacked: str) -> None:
    section = attacked.partition("What did not pass")[2].partition("</section>")[0]
    found = re.findall(r"</span> ([A-Z]+)</span>", section)
    assert found == ["ERROR", "FAIL", "ERROR", "INCONCLUSIVE", "UNSUPPORTED", "WAIVED"]


def test_what_did_not_pass_is_open(attacked: str) -> None:
    opened = {
        attributes["id"] for word, attributes in Reader(attacked).elements if word == "details" and "open" in attributes
    }
    assert opened == {record.id for record in pages.EVERY if record.verdict is not Verdict.PASS}


def test_first_divergences_are_shown_as_text(attacked: str) -> None:
    section = attacked.partition('<h2 id="partings">')[2].partition("</section>")[0]
    text = Reader(section).text
    assert (
        "2 answers with MTP differ from those without; 1 of the server without MTP differ from its own second answers"
        in text
    )
    assert "code-00 differs at token 10" in text
    assert "def f():\n    return " in text
    assert "nowhere differs at token 3 (plain 1: token 7, mtp 1: its end)" in text
    assert section.count("<dl>") == 1, "where there is no text, the tokens have to do"


def test_the_ladder_marks_this_hardware_and_the_choice(healthy: str) -> None:
    section = healthy.partition('<h2 id="ladder">')[2].partition("</section>")[0]
    text = " ".join(Reader(section).text.split())
    assert "CPU this hardware none none MARLIN refused: device VLLM_CUTLASS refused: device" in text
    assert "HUMMING not installed: humming" in text
    assert "MARLIN chosen" in text


def test_a_run_that_was_stopped_says_so(tmp_path: Path) -> None:
    evidence = synthetic.record(tmp_path / "run", {}, finished=False)
    expected = ("ACC-02", "ACC-03")
    page = as_html(pages.report_of(evidence, pages.PASSED, expected=expected, complete=False))
    assert "did not finish" in page
    assert "1 of 2 did not run" in page


def test_what_was_not_observed_is_left_out(tmp_path: Path) -> None:
    evidence = synthetic.record(tmp_path / "run", {"environment": synthetic.environment()}, finished=False)
    page = as_html(pages.report_of(evidence, pages.PASSED))
    assert not {"acceptance", "sweep", "partings", "ladder"} & set(Reader(page).attributes("id"))
    assert "annot be shown" not in page
    assert "torch 2.13.0+cpu" in page


def cut(path: Path) -> None:
    path.write_text(path.read_text()[:-40])


def empty(path: Path) -> None:
    path.write_text("{}")


def contradict(path: Path) -> None:
    if path.stem == "load":
        document = json.loads(path.read_text())
        document["rounds"][1]["mtp"]["answers"][0]["counts"]["accepted"] += 1
        path.write_text(json.dumps(document))


def failed(path: Path) -> None:
    path.write_text(json.dumps({"error": {"kind": "ObservationError", "sentence": "the server died", "log_tail": ""}}))


@pytest.mark.parametrize(
    ("damage", "sentence", "times"),
    [
        (cut, "cannot be read", 12),
        (empty, "does not match its schema", 12),
        (contradict, "contradict each other", 4),
        (failed, "the server died", 12),
    ],
)
def test_damaged_evidence_gives_a_page_that_says_so(
    tmp_path: Path, damage: Callable[[Path], None], sentence: str, times: int
) -> None:
    evidence = synthetic.record(tmp_path / "run", synthetic.healthy(), finished=False)
    for path in (evidence / "observations").iterdir():
        damage(path)
    page = as_html(pages.report_of(evidence, pages.PASSED))
    assert page.count("annot be shown") == times
    assert sentence in page
    assert "Traceback" not in page
    assert "Qualified: " in page


def test_a_chart_of_what_the_hardware_lacks_is_left_out(tmp_path: Path) -> None:
    documents = synthetic.healthy()
    documents["graph_steps"] = {"error": {"kind": "Unsupported", "sentence": "a CPU has no graphs", "log_tail": ""}}
    page = as_html(pages.report_of(synthetic.record(tmp_path / "run", documents), pages.PASSED))
    assert "annot be shown" not in page
    assert "Speed by requests at once" not in page


def test_what_no_page_can_hold_is_replaced(tmp_path: Path) -> None:
    documents = synthetic.healthy()
    documents["environment"]["platform"] = "half \ud800 and bell \x07"
    evidence = synthetic.record(tmp_path / "run", documents)
    page = as_html(pages.report_of(evidence, pages.PASSED))
    assert "half ? and bell ?" in page
    page.encode()


def test_the_resolved_profile_is_there(healthy: str) -> None:
    text = Reader(healthy.partition('<h2 id="environment">')[2]).text
    assert '"name": "micro-26b-a4b-nvfp4"' in text
    assert '"serve_args"' in text


def test_what_servers_were_started_with_is_read_from_their_logs(tmp_path: Path) -> None:
    evidence = synthetic.record(tmp_path / "run", {}, finished=False)
    (evidence / "logs/mtp.log").write_text(
        "INFO 1 [a.py:1] non-default args: {'max_model_len': 512, 'x': '<b>'}\nmore\n"
    )
    page = as_html(pages.report_of(evidence, pages.PASSED))
    assert "{&#39;max_model_len&#39;: 512, &#39;x&#39;: &#39;&lt;b&gt;&#39;}" in page
