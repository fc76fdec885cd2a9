"""pytest over the checks, end to end: on recorded evidence, while recording, in workers, and interrupted."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from _pytest.terminal import TerminalReporter
from negative_controls.damages.chat import misread
from support import synthetic

from conformance import FIXTURES, PACKAGE
from conformance.commands.main import main
from conformance.errors import ObservationError
from conformance.evidence.folder import REPORTS, Evidence, is_finished, read_header, verify
from conformance.evidence.journal import read_journal
from conformance.judging.catalogue import at_level, catalogue
from conformance.judging.check import FAMILIES, declaration
from conformance.judging.verdict import Verdict
from conformance.judging.waivers import load_waivers
from conformance.observers import OBSERVERS
from conformance.run import pytest_plugin
from conformance.run.options import RUN, SHOW
from conformance.run.prefetch import SLOW_IMPORTS
from conformance.serving import machine

pytest_plugins = ["pytester"]

TOTAL = len(at_level(catalogue(), "qualify"))
SOAK = at_level(catalogue(), "soak")
OTHER_LEVELS = {"soak", "energy", "k_by_batch"}  # observations
STATIC = {check.id for check in at_level(catalogue(), "static")}
# pytester forgets what a run has imported, but torch cannot be imported twice.
for name in SLOW_IMPORTS:
    importlib.import_module(name)

pytestmark = pytest.mark.usefixtures("no_waivers")
NO_PLUGINS = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
PAIR = """target = "./target"
draft = "./draft"
k = 4
quantisation = "nvfp4"
"""


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A pair of empty folders, under the embedded pair's name so that its floors apply."""
    for name in ("target", "draft"):
        (tmp_path / name).mkdir()
    path = tmp_path / "micro-26b-a4b-nvfp4.toml"
    path.write_text(PAIR)
    return path


class FauxServers:
    """Takes the place of the servers; nothing is started."""

    closed = 0
    attached = False
    executor = SimpleNamespace(same_machine=False)  # nothing imports vLLM ahead

    def __init__(self, *arguments: Any, **named: Any) -> None:
        del arguments, named

    def mtp(self) -> None:
        """Nothing to start."""

    def sweep(self) -> None:
        """Nor here."""

    def load_ahead(self) -> None:
        """Nor is this needed."""

    def run_together(self, questions: Mapping[str, Any]) -> None:
        """The documents above are the answers."""

    def tell(self, what: str) -> None:
        """Nobody listens."""

    def shared(self) -> AbstractContextManager[None]:
        return nullcontext()

    def abandon(self) -> None:
        """Nothing to end."""

    def close(self) -> None:
        type(self).closed += 1


@pytest.mark.parametrize("sweep", ["restart", "probe"])
def test_the_sweep_comes_last_where_every_k_needs_a_server(sweep: str) -> None:
    session: Any = SimpleNamespace(
        profile=SimpleNamespace(hardware=SimpleNamespace(sweep=sweep)), asks_for=lambda _check: True
    )
    modules = [importlib.import_module(f"conformance.{path.stem}") for path in PACKAGE.glob("test_*.py")]
    functions = [each for module in modules for each in vars(module).values() if declaration(each)]
    items: list[Any] = [SimpleNamespace(function=each) for each in functions]
    pytest_plugin.Judge(session, FauxServers()).pytest_collection_modifyitems(SimpleNamespace(), items)  # type: ignore[arg-type]
    ids = [check.id for item in items if (check := declaration(item.function))]
    assert (ids[-1] == "SPEED-03") is (sweep == "restart")
    assert [id for id in ids if id != "SPEED-03"] == [check.id for check in catalogue() if check.id != "SPEED-03"]


@pytest.fixture
def documents(monkeypatch: pytest.MonkeyPatch) -> synthetic.Documents:
    """What the observers will see; a test may damage it before it runs pytest."""
    documents = synthetic.healthy()

    def observer(name: str) -> Callable[..., dict[str, Any]]:
        def observe(*_: Any, group: str = "") -> dict[str, Any]:
            document: Any = documents[f"{name}-{group}" if group else name]
            if isinstance(document, Exception):
                raise document
            return dict(document)

        return observe

    for name in {name.partition("-")[0] for name in documents}:
        monkeypatch.setitem(OBSERVERS, name, observer(name))
    monkeypatch.setattr(pytest_plugin, "ServerPool", FauxServers)
    monkeypatch.setattr(FauxServers, "closed", 0)
    return documents


Run = Callable[..., pytest.RunResult]


def sentence_of(result: pytest.RunResult) -> str:
    """The judgement, which is the first line after the progress."""
    return next(line for line in result.outlines if line and not line.startswith("["))


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """pytest over the real checks, in this process, so that the observers above are used."""

    def run(*words: str | Path) -> pytest.RunResult:
        return pytester.runpytest_inprocess(PACKAGE, *NO_PLUGINS, *words)

    return run


def test_healthy_evidence_qualifies_without_a_server(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytest_plugin, "ServerPool", FauxServers)
    evidence = synthetic.record(tmp_path / "run", synthetic.healthy())
    before = sorted(path.relative_to(evidence) for path in evidence.rglob("*"))
    result = run("--evidence", evidence)
    assert result.ret == 0
    *_, where, report = result.outlines
    sentence = sentence_of(result)
    assert sentence == f"Qualified: micro-26b-a4b-nvfp4 on cpu, {TOTAL} of {TOTAL} checks passed."
    assert where == f"Evidence: {evidence}"
    assert report == f"Report: {evidence}/report.html"
    after = sorted(path.relative_to(evidence) for path in evidence.rglob("*"))
    assert after == sorted([*before, *map(Path, REPORTS)]), "judging again writes nothing but the reports"
    verify(evidence)


@pytest.mark.usefixtures("documents")
def test_the_table_is_all_there_is_to_read(run: Run, pair: Path) -> None:
    result = run("--pair", pair, "--show", "all")
    assert result.ret == 0
    assert sum("PASS" in line for line in result.outlines if line.startswith("|")) == TOTAL
    assert not any(word in result.stdout.str() for word in ("test session starts", "passed in", "rootdir", "warnings"))
    assert result.stderr.str() == ""


def test_a_recording_run_leaves_evidence_that_verifies(run: Run, documents: synthetic.Documents, pair: Path) -> None:
    result = run("--pair", pair, "--evidence", "run")
    assert result.ret == 0
    evidence = Path("run").absolute()
    verify(evidence)
    assert {path.stem for path in (evidence / "observations").iterdir()} == documents.keys() - OTHER_LEVELS
    recorded = read_journal(evidence / "verdicts.jsonl")
    assert recorded.complete
    assert [record.verdict for record in recorded.records] == [Verdict.PASS] * TOTAL
    suite = ET.parse(evidence / "junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == (str(TOTAL), "0", "0")
    assert FauxServers.closed == 1


@pytest.mark.usefixtures("documents")
def test_without_a_directory_one_is_named_after_the_run(run: Run, pair: Path) -> None:
    run("--pair", pair)
    (directory,) = Path("evidence").iterdir()
    assert directory.name.endswith("Z-cpu-micro-26b-a4b-nvfp4")
    assert read_header(directory).level == "qualify"


def test_judging_again_gives_the_same_verdicts(run: Run, documents: synthetic.Documents, pair: Path) -> None:
    documents["tools"]["prompts"] = documents["tools"]["prompts"][:6]
    documents["moe"]["layers"]["model.layers.0.moe.experts"]["backend"] = "MARLIN"
    first = run("--pair", pair, "--evidence", "run")
    again = run("--evidence", "run")
    assert first.ret == again.ret == 1
    assert sentence_of(first) == sentence_of(again) == "Not qualified: MOE-01 failed."


def damage_marlin(d: dict[str, Any]) -> None:
    d["moe"]["layers"]["model.layers.0.moe.experts"]["backend"] = "MARLIN"


def damage_few_texts(d: dict[str, Any]) -> None:
    d["near_ties"]["compared"]["with_mtp"] = 30


def damage_server(d: dict[str, Any]) -> None:
    from conformance.errors import ObservationError

    d["load"] = ObservationError("mtp server died: RuntimeError: boom", "the end\nof its log")


def damage_unsupported(d: dict[str, Any]) -> None:
    from conformance.errors import Unsupported

    d["moe"] = Unsupported("vLLM 9.9 has no routed_experts")


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        (damage_marlin, 1, ["FAIL MOE-01", "is MARLIN where CPU is expected", "known failure GELU-MARLIN"]),
        (
            damage_few_texts,
            3,
            [
                "INCONCLUSIVE LOSS-01",
                "would settle it",
                "Inconclusive: more samples needed for LOSS-01.",
            ],
        ),
        (
            damage_server,
            4,
            ["ERROR ACC-01", "mtp server died: RuntimeError: boom", "| of its log", "Not judged: "],
        ),
        (
            damage_unsupported,
            0,
            ["UNSUPPORTED MOE-01", "vLLM 9.9 has no routed_experts", "MOE-01, MOE-06, MOE-07 unsupported."],
        ),
    ],
)
def test_every_verdict_has_its_exit_code_and_its_words(
    run: Run, documents: synthetic.Documents, pair: Path, damage: Callable[[Any], None], code: int, words: list[str]
) -> None:
    damage(documents)
    result = run("--pair", pair)
    assert result.ret == code
    for word in words:
        assert word in result.stdout.str()
    assert "Traceback" not in result.stdout.str()


def test_a_server_that_cannot_start_is_started_once(run: Run, documents: synthetic.Documents, pair: Path) -> None:
    damage_server(documents)
    run("--pair", pair, "--evidence", "run")
    kept = json.loads(Path("run/observations/load.json").read_text())
    assert kept["error"]["kind"] == "ObservationError"
    records = {record.id: record for record in read_journal(Path("run/verdicts.jsonl")).records}
    assert records["ACC-01"].verdict is records["ACC-02"].verdict is Verdict.ERROR
    assert (records["ACC-01"].severity, records["ACC-01"].response) == ("slow", "inspect-draft")


def test_certify_wants_everything(run: Run, documents: synthetic.Documents, pair: Path) -> None:
    assert run("--pair", pair, "--certify").ret == 0
    damage_unsupported(documents)
    result = run("--pair", pair, "--certify", "--evidence", "other")
    assert result.ret == 1
    lacks = "a certificate allows nothing unsupported, waived or without a floor"
    sentence = f"Not certified: {lacks}; MOE-01, MOE-06, MOE-07 unsupported."
    assert sentence in result.outlines


@pytest.mark.parametrize(
    ("processes", "asked", "taken"), [(4, "no", "worksteal"), (4, "load", "load"), (None, "no", "no")]
)
def test_idle_workers_take_from_busy_ones(processes: int | None, asked: str, taken: str) -> None:
    given = dict.fromkeys((option.name for option in (*RUN, SHOW)), None)
    option = SimpleNamespace(
        **given, numprocesses=processes, dist=asked, moe_table=False, plan=False, list_checks=False
    )
    config: Any = SimpleNamespace(option=option)
    assert pytest_plugin.pytest_cmdline_main(config) is None
    assert option.dist == taken


def test_an_unlocked_run_says_so_and_earns_no_certificate(run: Run, documents: synthetic.Documents, pair: Path) -> None:
    documents["environment"]["locked"] = None
    result = run("--pair", pair, "--unlocked", "--evidence", "run")
    assert result.ret == 0
    assert sentence_of(result).endswith("; ENV-01 unsupported; the environment is unlocked.")
    assert read_journal(Path("run/verdicts.jsonl")).unlocked
    assert sentence_of(run("--pair", pair, "--evidence", "run")) == sentence_of(result)
    assert run("--pair", pair, "--unlocked", "--certify", "--evidence", "other").ret == 1


@pytest.mark.usefixtures("documents")
def test_the_door_names_the_environment(run: Run, pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFORMANCE_ENV", "first-mtp")
    assert run("--pair", pair, "--level", "static", "--evidence", "run").ret == 0
    assert json.loads(Path("run/header.json").read_text())["environment"] == "first-mtp"


@pytest.mark.usefixtures("documents")
def test_a_level_runs_its_own_checks(run: Run, pair: Path) -> None:
    result = run("--pair", pair, "--level", "static", "--evidence", "run")
    assert result.ret == 0
    assert {r.id for r in read_journal(Path("run/verdicts.jsonl")).records} == STATIC
    assert "which is no qualification" in sentence_of(result)


@pytest.mark.usefixtures("documents")
def test_a_soak_is_smoke_and_a_held_load(run: Run, pair: Path) -> None:
    result = run("--pair", pair, "--level", "soak", "--minutes", "3", "--evidence", "run")
    assert result.ret == 0
    assert {r.id for r in read_journal(Path("run/verdicts.jsonl")).records} == {check.id for check in SOAK}
    assert "which is no qualification" in sentence_of(result)
    assert json.loads(Path("run/profile.json").read_text())["sizes"]["soak_minutes"] == 3
    assert {check.level for check in SOAK} == {"static", "smoke", "soak"}


@pytest.mark.usefixtures("documents")
def test_a_selection_is_no_qualification(run: Run, pair: Path) -> None:
    result = run("--pair", pair, "-k", "test_acceptance")
    assert result.ret == 0
    assert f"no qualification: only 5 of the {TOTAL} checks" in sentence_of(result)


@pytest.mark.usefixtures("documents")
def test_a_selection_of_nothing_inspects_nothing(run: Run, pair: Path) -> None:
    result = run("--pair", pair, "-k", "no_such_check")
    assert result.ret == 5
    assert "Nothing was inspected." in result.outlines


Refused = Callable[..., tuple[int, str]]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Refused:
    """The same for runs that end before they begin: exit code and what was said."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str | Path) -> tuple[int, str]:
        code = pytest.main([str(PACKAGE), *NO_PLUGINS, *map(str, words)])
        said = "".join(capfd.readouterr())
        assert "Traceback" not in said
        return int(code), said

    return run


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--hardware", "cpuu"], 'hardware "cpuu" is unknown'),
        (["--pair", "no-such-pair"], 'pair "no-such-pair" is unknown'),
        (["--evidence", "empty", "--recorded-only"], "empty holds no evidence: it has no header.json."),
        (
            ["--level", "full"],
            'qualify: --level "full" is unknown; choose one of static, smoke, qualify, soak, k-by-batch.',
        ),
        (["--level", "smoek"], 'Did you mean "smoke"?'),
        (["--show", "everything"], 'qualify: --show "everything" is unknown; choose one of summary, '),
        (["--level", "soak", "--minutes", "ten"], 'qualify: --minutes "ten" is not a number.'),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(refused: Refused, words: list[str], sentence: str) -> None:
    Path("empty").mkdir()
    code, said = refused(*words)
    assert code == 2
    assert sentence in said
    assert not Path("evidence").exists()


def test_a_pair_that_is_not_here_is_bad_input(refused: Refused, pair: Path) -> None:
    (pair.parent / "draft").rmdir()
    code, said = refused("--pair", pair)
    assert code == 2
    assert 'key "draft" is "./draft"' in said


def test_servers_that_an_earlier_run_left_and_nobody_can_end_are_one_sentence(
    refused: Refused, pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def survived(*_: Any, **__: Any) -> None:
        raise ObservationError("earlier servers could not be stopped: process 7")

    monkeypatch.setattr(pytest_plugin, "ServerPool", survived)
    code, said = refused("--pair", pair, "--evidence", "run")
    assert code == 4
    assert "earlier servers could not be stopped: process 7" in said


def test_a_folder_of_something_else_is_not_written_to(refused: Refused, pair: Path) -> None:
    Path("other").mkdir()
    Path("other/thesis.txt").write_text("years of work")
    assert refused("--pair", pair, "--evidence", "other")[0] == 2
    assert [path.name for path in Path("other").iterdir()] == ["thesis.txt"]


def test_options_must_not_contradict_the_evidence(refused: Refused) -> None:
    synthetic.record(Path("run"), synthetic.healthy())
    code, said = refused("--evidence", "run", "--pair", "micro-26b-a4b-bf16")
    assert code == 2
    assert "was recorded with --pair micro-26b-a4b-nvfp4" in said


def test_tampered_evidence_is_not_judged(refused: Refused) -> None:
    synthetic.record(Path("run"), synthetic.healthy())
    Path("run/observations/moe.json").write_text("{}")
    code, said = refused("--evidence", "run")
    assert code == 4
    assert "was changed after recording" in said


def test_a_stopped_run_goes_on_from_what_it_has(run: Run, documents: synthetic.Documents, pair: Path) -> None:
    part = {name: documents[name] for name in ("environment", "checkpoint", "refusals", "load")}
    synthetic.record(Path("run"), part, finished=False)
    synthetic.header(Path("run"), pair=str(pair))
    documents["load"] = {"never": "asked again"}
    assert run("--evidence", "run").ret == 0
    assert is_finished(Path("run"))


def test_a_stopped_run_is_judged_as_far_as_it_goes(run: Run, documents: synthetic.Documents) -> None:
    synthetic.record(Path("run"), {"environment": documents["environment"]}, finished=False)
    result = run("--evidence", "run", "--recorded-only")
    assert result.ret == 4
    assert "the observation 'moe' was not recorded" in result.stdout.str()
    assert "PASS" in result.stdout.str()


@pytest.mark.usefixtures("documents")
@pytest.mark.usefixtures("documents")
def test_what_a_run_left_out_is_not_missing_later(run: Run, pair: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = run("--pair", pair, "--evidence", "part", "-k", "test_draft_weights")
    again = run("--evidence", "part")
    assert first.ret == again.ret == 0
    assert sentence_of(again) == sentence_of(first)
    assert "no qualification: only 3 of " in sentence_of(first)
    assert run("--pair", pair, "--evidence", "whole").ret == 0
    assert main(["compare", "whole", "part"]) == 0
    assert "PASS → ERROR" not in capfd.readouterr().out


@pytest.mark.usefixtures("documents")
def test_a_check_that_came_later_is_judged_where_the_evidence_tells(run: Run, pair: Path) -> None:
    assert run("--pair", pair, "--evidence", "run", "-k", "test_draft_weights").ret == 0
    journal = Path("run/verdicts.jsonl")
    journal.write_text(journal.read_text().replace('"CKPT-01", ', "").replace('"MOE-01", ', ""))
    Evidence(Path("run"), recording=False).finish()
    again = run("--evidence", "run", "--show", "all")
    assert again.ret == 0
    assert "no qualification: only 4 of " in sentence_of(again)
    assert any("CKPT-01" in line for line in again.outlines)


@pytest.mark.usefixtures("documents")
def test_what_a_run_asked_for_is_missed(run: Run, pair: Path) -> None:
    assert run("--pair", pair, "--evidence", "run", "-k", "test_draft_weights").ret == 0
    Path("run/observations/draft_load.json").unlink()
    Evidence(Path("run"), recording=False).finish()
    assert run("--evidence", "run").ret == 4


@pytest.mark.usefixtures("documents")
def test_an_interrupted_run_is_not_finished(run: Run, pair: Path) -> None:
    def interrupt(*_: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    OBSERVERS["load"] = interrupt  # not made in the background; the fixture puts the real one back
    result = run("--pair", pair, "--evidence", "run")
    assert result.ret == 4
    assert not is_finished(Path("run"))
    recorded = read_journal(Path("run/verdicts.jsonl"))
    assert not recorded.complete
    before_load = [check for check in catalogue() if check.order < (FAMILIES.index("GOLD"), "")]
    assert [record.id for record in recorded.records] == [check.id for check in before_load]
    assert FauxServers.closed == 1


@pytest.mark.usefixtures("documents")
def test_a_second_interrupt_that_comes_before_pytest_knows_of_the_first(
    run: Run, pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pytest renders a traceback first, which takes seconds on a busy machine, and then tells its exit status."""

    def interrupt(*_: Any, **__: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    OBSERVERS["load"] = interrupt
    monkeypatch.setattr(TerminalReporter, "pytest_keyboard_interrupt", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run("--pair", pair, "--evidence", "run")
    assert not is_finished(Path("run"))
    assert not read_journal(Path("run/verdicts.jsonl")).complete
    assert FauxServers.closed == 1


def test_a_run_refuses_a_machine_without_memory(
    documents: synthetic.Documents, pair: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert documents
    monkeypatch.setattr(machine, "available_memory", lambda: 1e9)
    assert main(["--pair", str(pair), "--evidence", "run"]) == 2
    assert "memory: 1.0 GB available, 7.6 GB needed at level qualify" in capfd.readouterr().err
    assert not Path("run").exists()


def test_quiet_shows_the_end_only(run: Run, documents: synthetic.Documents, pair: Path) -> None:
    assert documents
    lines = [line for line in run("--pair", pair, "-q").outlines if line]
    assert lines[0].startswith("Qualified: ")


def test_listing_the_checks_needs_nothing(run: Run) -> None:
    result = run("--list-checks")
    assert result.ret == 0
    shown = [line.partition(" ")[0] for line in result.outlines if line]
    assert shown == [check.id for check in catalogue()]
    assert not Path("evidence").exists()


def test_verbose_shows_pytest_and_the_table(run: Run, documents: synthetic.Documents, pair: Path) -> None:
    damage_marlin(documents)
    text = run("--pair", pair, "-v").stdout.str()
    assert "::test_moe_backend FAIL" in text
    assert f"1 FAIL, {TOTAL - 1} PASS" in text or f"{TOTAL - 1} PASS, 1 FAIL" in text
    assert "Not qualified: MOE-01 failed." in text


def test_pytests_own_junit_still_works(run: Run, documents: synthetic.Documents, pair: Path) -> None:
    damage_marlin(documents)
    damage_unsupported(documents)
    assert run("--pair", pair, "--junitxml", "own.xml").ret == 0
    suite = ET.parse("own.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("skipped")) == (str(TOTAL), "3")


# The checks of the parser that tell kinds of findings apart, and the properties that they judge.
SORTED = dict(
    zip(
        (f"PARSE-{number:02}" for number in range(7, 13)),
        ("schemas", "suite", "names", "near_native", "cut", "thinking"),
        strict=True,
    )
)


def damage_waived_parser(documents: synthetic.Documents) -> None:
    """What vLLM 0.32.0's parser is known for."""
    for kind in ("unions", "untyped"):
        example = misread({"reasoning": "", "content": "", "calls": []})
        documents["parsers"]["round_trip"][kind]["counterexample"] = example
    for waiver in load_waivers(FIXTURES / "waivers"):
        for kind in waiver.kinds:
            found = {"reasoning": "", "content": "", "calls": []}
            example = {"text": "<|tool_call>", "given": {}, "expected": [], "way": "whole", "found": found}
            row = {"kind": kind, "answers": 1, "example": example}
            documents["parsers"]["answers"][SORTED[waiver.check]]["kinds"].append(row)


@pytest.mark.parametrize("words", [[], ["-n", "2"]], ids=["one process", "two workers"])
def test_in_processes_of_its_own(tmp_path: Path, pair: Path, words: list[str]) -> None:
    """Also with pytest-xdist: workers judge, the controller gathers, evidence is written once and finished."""
    documents = synthetic.healthy()
    damage_waived_parser(documents)  # these processes read the real waivers
    evidence = synthetic.record(tmp_path / "run", documents, finished=False, level="static")
    synthetic.header(evidence, pair=str(pair), level="static")
    command = [sys.executable, "-m", "pytest", str(PACKAGE), *NO_PLUGINS, "--evidence", str(evidence)]
    done = subprocess.run(
        [*command, *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    waived = ["PARSE-02", "PARSE-03", *SORTED]
    assert f"{len(STATIC) - len(waived)} of {len(STATIC)} checks passed; {', '.join(waived)} waived" in done.stdout
    verify(evidence)
    recorded = read_journal(evidence / "verdicts.jsonl")
    assert {record.id for record in recorded.records} == STATIC


@pytest.mark.usefixtures("documents")
def test_a_pair_given_by_path_is_found_again_from_elsewhere(
    run: Run, pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("--pair", pair.name, "--evidence", "run").ret == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run("--evidence", tmp_path / "run").ret == 0
