"""The verdict rule, the judgement of a run, waivers, and the journal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pytest

from conformance import FIXTURES
from conformance.errors import ObservationError, UsageError
from conformance.evidence.journal import Journal, read_journal
from conformance.judging import waivers as waiving
from conformance.judging.check import judge
from conformance.judging.expectations import expect_at_least
from conformance.judging.stats import Estimate
from conformance.judging.verdict import (
    NO_FLOOR,
    Diagnosis,
    ExitCode,
    Finding,
    Outcome,
    Record,
    Run,
    Verdict,
    decide,
    judge_run,
    worst,
)
from conformance.judging.waivers import Waiver, load_waivers
from conformance.profile.floors import NAMES, Floor, load_floors

TODAY = date(2026, 11, 23)


@dataclass(frozen=True)
class Seen:
    source: str = "observations/x.json"


def record(id: str, verdict: Verdict = Verdict.PASS) -> Record:
    finding = Finding(verdict, "3.9 reaches 3.68", "3.900", "3.68", 120, (3.8, 4.0), "observations/x.json", "a note")
    diagnosis = Diagnosis("INTSIZE", "vllm#41745", "Use a release.")
    return Record(id, f"Claim of {id}.", "qualify", verdict, "a sentence", 1.5, (finding,), diagnoses=(diagnosis,))


def run(*records: Record, **changes: object) -> Run:
    base = Run("cpu", "some-pair", "qualify", "evidence/x", tuple(r.id for r in records), records)
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (3.68, 4.0, Verdict.PASS),
        (3.0, 3.67, Verdict.FAIL),
        (3.67, 4.0, Verdict.INCONCLUSIVE),
        (3.0, 3.68, Verdict.INCONCLUSIVE),
    ],
)
def test_the_verdict_rule(low: float, high: float, verdict: Verdict) -> None:
    assert decide(Estimate(3.7, low, high, 100, ""), 3.68) is verdict


def test_the_worst_finding_is_the_verdict() -> None:
    def findings(*verdicts: Verdict) -> list[Finding]:
        return [Finding(verdict, "", "", "") for verdict in verdicts]

    assert worst(findings(Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL)) is Verdict.FAIL
    assert worst(findings(Verdict.PASS, Verdict.INCONCLUSIVE)) is Verdict.INCONCLUSIVE
    assert worst(findings(Verdict.PASS)) is Verdict.PASS


@pytest.mark.parametrize(
    ("verdicts", "code", "begins"),
    [
        ([Verdict.PASS, Verdict.PASS], ExitCode.QUALIFIED, "Qualified: some-pair on cpu, 2 of 2 checks passed."),
        ([Verdict.PASS, Verdict.FAIL], ExitCode.NOT_QUALIFIED, "Not qualified: ACC-02 failed."),
        ([Verdict.ERROR, Verdict.FAIL], ExitCode.NOT_QUALIFIED, "Not qualified: ACC-02 failed; ACC-01 could not"),
        (
            [Verdict.FAIL, Verdict.INCONCLUSIVE],
            ExitCode.NOT_QUALIFIED,
            "Not qualified: ACC-01 failed; more samples needed for ACC-02.",
        ),
        ([Verdict.PASS, Verdict.INCONCLUSIVE], ExitCode.INCONCLUSIVE, "Inconclusive: more samples needed for ACC-02."),
        ([Verdict.INCONCLUSIVE, Verdict.ERROR], ExitCode.INSTRUMENT, "Not judged: ACC-02 could not be judged"),
        ([Verdict.UNSUPPORTED, Verdict.UNSUPPORTED], ExitCode.NOTHING, "Nothing was inspected"),
        ([], ExitCode.NOTHING, "Nothing was inspected"),
        ([Verdict.PASS, Verdict.UNSUPPORTED], ExitCode.QUALIFIED, "Qualified: some-pair on cpu, 1 of 2 checks"),
        ([Verdict.PASS, Verdict.WAIVED], ExitCode.QUALIFIED, "Qualified: some-pair on cpu, 1 of 2 checks"),
    ],
)
def test_the_judgement_of_a_run(verdicts: list[Verdict], code: ExitCode, begins: str) -> None:
    judgement = judge_run(run(*(record(f"ACC-0{i}", verdict) for i, verdict in enumerate(verdicts, 1))))
    assert judgement.exit_code is code
    assert judgement.sentence.startswith(begins)


def test_no_lesser_verdict_is_hidden_by_the_sentence() -> None:
    verdicts = [Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.UNSUPPORTED, Verdict.WAIVED]
    records = [record(f"ACC-0{i}", verdict) for i, verdict in enumerate(verdicts, 1)]
    sentence = judge_run(run(*records, problems=("a waiver expired",))).sentence
    assert all(r.id in sentence for r in records)
    assert "a waiver expired" in sentence


def test_a_part_of_the_checks_is_no_qualification() -> None:
    judgement = judge_run(run(record("ACC-01"), expected=("ACC-01", "ACC-02", "LOSS-01")))
    assert judgement.exit_code is ExitCode.QUALIFIED
    assert judgement.sentence.startswith("Passed, but no qualification: only 1 of the 3 checks")


def test_a_lower_level_is_no_qualification() -> None:
    assert "no qualification" in judge_run(run(record("ENV-01"), level="static")).sentence


def test_a_problem_of_the_run_is_an_instrument_error() -> None:
    judgement = judge_run(run(record("ACC-01"), problems=("a waiver expired",)))
    assert judgement.exit_code is ExitCode.INSTRUMENT
    assert "a waiver expired" in judgement.sentence


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"records": (record("ACC-01"), record("ACC-02", Verdict.UNSUPPORTED))}, "ACC-02 unsupported"),
        ({"records": (record("ACC-01"), record("ACC-02", Verdict.WAIVED))}, "ACC-02 waived"),
        ({"records": (record("ACC-01"),)}, "ACC-02 did not run"),
        ({"level": "smoke"}, "level smoke is no qualification"),
    ],
)
def test_a_certificate_wants_everything(changes: dict[str, object], reason: str) -> None:
    whole = run(record("ACC-01"), record("ACC-02"), certify=True)
    assert judge_run(whole).sentence.startswith("Certified: ")
    judgement = judge_run(replace(whole, **changes))  # type: ignore[arg-type]
    assert judgement.exit_code is ExitCode.NOT_QUALIFIED
    assert reason in judgement.sentence


@pytest.fixture
def waiver() -> Waiver:
    url = "https://github.com/vllm-project/vllm/issues/1"
    return Waiver("ACC-01", url, "known", "somebody", date(2027, 1, 31))


def test_a_waiver_masks_a_fail_and_nothing_else(waiver: Waiver) -> None:
    masked = waiving.apply(record("ACC-01", Verdict.FAIL), [waiver], TODAY)
    assert masked.verdict is Verdict.WAIVED
    assert waiver.upstream in masked.waiver
    for verdict in set(Verdict) - {Verdict.FAIL}:
        assert waiving.apply(record("ACC-01", verdict), [waiver], TODAY).verdict is verdict
    assert waiving.apply(record("ACC-02", Verdict.FAIL), [waiver], TODAY).verdict is Verdict.FAIL


def failed_with(*kinds: str) -> Record:
    found = tuple(Finding(Verdict.FAIL, kind, "", "", kind=kind) for kind in kinds)
    return replace(record("ACC-01", Verdict.FAIL), findings=found)


def test_a_waiver_of_kinds_masks_these_kinds_and_no_new_one(waiver: Waiver) -> None:
    one, two = replace(waiver, kinds=("a", "b")), replace(waiver, kinds=("c",), reason="other")
    masked = waiving.apply(failed_with("a", "c"), [one, two], TODAY)
    assert masked.verdict is Verdict.WAIVED
    assert "known" in masked.waiver
    assert "other" in masked.waiver
    assert waiving.apply(failed_with("a", "new"), [one, two], TODAY).verdict is Verdict.FAIL
    assert waiving.apply(record("ACC-01", Verdict.FAIL), [one], TODAY).verdict is Verdict.FAIL, "it has no kind"
    assert waiving.apply(failed_with("a", "new"), [waiver], TODAY).verdict is Verdict.WAIVED, "it names no kind"


def test_what_no_waiver_allows_is_what_fails(waiver: Waiver) -> None:
    """A new kind beside a known one is diagnosed by its own words."""
    allowing, old = replace(waiver, kinds=("a",)), replace(waiver, kinds=("a",), expires=date(2026, 11, 22))
    found = Outcome(Verdict.FAIL, "a; new", failed_with("a", "new").findings)
    assert waiving.what_fails(found, "ACC-01", [allowing], TODAY) == "new"
    assert waiving.what_fails(found, "ACC-01", [old], TODAY) == "a; new"
    assert waiving.what_fails(found, "ACC-02", [allowing], TODAY) == "a; new"
    all_allowed = Outcome(Verdict.FAIL, "only a", failed_with("a").findings)
    assert waiving.what_fails(all_allowed, "ACC-01", [allowing], TODAY) == "only a"


def test_a_waived_kind_that_was_not_found_is_a_problem(waiver: Waiver) -> None:
    one = replace(waiver, kinds=("a", "b"))
    masked = waiving.apply(failed_with("a"), [one], TODAY)
    (problem,) = waiving.problems([one], [masked], {"ACC-01"}, TODAY)
    assert "names a kind that was not found, so delete it: b" in problem
    assert not waiving.problems([one], [waiving.apply(failed_with("a", "b"), [one], TODAY)], {"ACC-01"}, TODAY)


def test_an_expired_waiver_masks_nothing_and_is_a_problem(waiver: Waiver) -> None:
    later = date(2027, 2, 1)
    failed = waiving.apply(record("ACC-01", Verdict.FAIL), [waiver], later)
    assert failed.verdict is Verdict.FAIL
    (problem,) = waiving.problems([waiver], [failed], {"ACC-01"}, later)
    assert "expired on 2027-01-31" in problem


def test_a_waiver_that_matched_nothing_is_a_problem(waiver: Waiver) -> None:
    (problem,) = waiving.problems([waiver], [record("ACC-01")], {"ACC-01"}, TODAY)
    assert "matched nothing: ACC-01 is PASS" in problem
    assert not waiving.problems([waiver], [record("ACC-01", Verdict.WAIVED)], {"ACC-01"}, TODAY)
    assert not waiving.problems([waiver], [record("ACC-01", Verdict.UNSUPPORTED)], {"ACC-01"}, TODAY), (
        "nor was it judged"
    )
    assert not waiving.problems([waiver], [], {"ACC-01"}, TODAY), "a check that did not run says nothing"


def test_a_waiver_of_no_check_is_a_problem(waiver: Waiver) -> None:
    (problem,) = waiving.problems([waiver], [], {"ACC-02"}, TODAY)
    assert "names no check" in problem


def test_conditions_of_a_waiver(waiver: Waiver) -> None:
    ranged = replace(waiver, vllm=">=0.28,<0.33", hardware="cpu")
    assert ranged.applies("cpu", "any", "0.32.0")
    assert not ranged.applies("cpu", "any", "0.33.0")
    assert not ranged.applies("gb10", "any", "0.32.0")
    assert not ranged.applies("cpu", "any", None)


ROW = """[[waiver]]
check = "ACC-01"
upstream = "https://example.org/1"
reason = "r"
owner = "o"
expires = 2027-01-31
"""


def test_a_row_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(ROW)
    assert load_waivers(tmp_path) == (Waiver("ACC-01", "https://example.org/1", "r", "o", date(2027, 1, 31)),)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (('owner = "o"\n', ""), "owner"),
        (("https://example.org/1", "issue 1"), "https URL"),
        (("2027-01-31", '"soon"'), "expires"),
        (('reason = "r"', 'reason = "r"\nvllm = "new"'), "version range"),
        (('reason = "r"', 'reasons = "r"'), "reason"),
        (("[[waiver]]", "[[waiver"), "not valid TOML"),
    ],
)
def test_a_bad_row_is_refused_by_name(tmp_path: Path, change: tuple[str, str], sentence: str) -> None:
    (tmp_path / "a.toml").write_text(ROW.replace(*change))
    with pytest.raises(UsageError, match=sentence) as caught:
        load_waivers(tmp_path)
    assert "a.toml" in str(caught.value)


def test_the_embedded_floors_state_their_provenance() -> None:
    for pair in ("micro-26b-a4b-nvfp4", "micro-26b-a4b-bf16"):
        floors = load_floors(FIXTURES / "floors", "cpu", pair, 4)
        assert floors["acceptance_length"].bound == 3.68
        assert [floor.bound for floor in floors.each("acceptance_per_position")] == [0.85, 0.72, 0.62, 0.51]
        assert floors.rows.keys() == set(NAMES)
        assert all(floor.source and floor.date for row in floors.rows.values() for floor in row)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[pays]\nvalue = 1.0\nfactor = 1.0\nn = 1\nsource = 's'", 'key "pays.date" is missing'),
        ("[pays]\nvalue = 'x'\nfactor = 1.0\nn = 1\nsource = 's'\ndate = 'd'", "pays.value"),
        ("[play]\nvalue = 1.0\nfactor = 1.0\nn = 1\nsource = 's'\ndate = 'd'", 'key "play" is no floor.*"pays"'),
        ("[pays]\nvalue = [1.0, 2.0]\nfactor = 1.0\nn = 1\nsource = 's'\ndate = 'd'", "must be one number, not 2"),
    ],
)
def test_bad_floors_are_refused_by_name(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "cpu.pair.toml").write_text(text)
    with pytest.raises(UsageError, match=sentence):
        _ = load_floors(tmp_path, "cpu", "pair", 4)["pays"]


def test_rows_for_a_hardware_come_before_those_for_any(tmp_path: Path) -> None:
    row = "[{}]\nvalue = {}\nfactor = 1.0\nn = 1\nsource = 's'\ndate = 'd'\n"
    (tmp_path / "pair.toml").write_text(row.format("pays", 1.0) + row.format("acceptance_length", 3.0))
    (tmp_path / "cpu.pair.toml").write_text(row.format("pays", 2.0))
    here, elsewhere = (load_floors(tmp_path, hardware, "pair", 4) for hardware in ("cpu", "gpu"))
    assert (here["pays"].bound, here["acceptance_length"].bound) == (2.0, 3.0)
    assert (elsewhere["pays"].bound, elsewhere["acceptance_length"].bound) == (1.0, 3.0)


@pytest.mark.parametrize("id", ["ACC-01", "SPEED-01"])
def test_without_a_floor_of_acceptance_and_speed_nothing_is_qualified(id: str) -> None:
    finding = Finding(Verdict.UNSUPPORTED, "measured", "1.3", NO_FLOOR)
    judgement = judge_run(run(record("ACC-02"), replace(record(id, Verdict.UNSUPPORTED), findings=(finding,))))
    assert judgement.sentence == (
        "Passed, but no qualification without floors of acceptance and speed: some-pair on cpu, 1 of 2 checks passed; "
        f"no floor for {id}."
    )


def test_what_nobody_has_published_is_measured_and_judged_by_nobody(tmp_path: Path) -> None:
    floors = load_floors(tmp_path, "cpu", "pair", 4)
    assert floors["pays"] == Floor("pays", None)
    assert len(floors.each("acceptance_per_position")) == 4
    outcome = judge(lambda: expect_at_least(Estimate(2.5, 2.4, 2.6, 40, ""), floors["pays"], source=Seen()), {})
    assert outcome.verdict is Verdict.UNSUPPORTED
    assert outcome.sentence.startswith("pays 2.500 [2.400, 2.600]")
    measured = replace(record("ACC-02", outcome.verdict), findings=outcome.findings)
    judgement = judge_run(run(record("ACC-01"), measured))
    assert judgement.exit_code is ExitCode.QUALIFIED
    assert judgement.sentence == "Qualified: some-pair on cpu, 1 of 2 checks passed; no floor for ACC-02."
    assert judge_run(run(record("ACC-01"), measured, certify=True)).exit_code is ExitCode.NOT_QUALIFIED


def test_a_journal_gives_back_what_was_written(tmp_path: Path) -> None:
    whole = run(record("ACC-01"), record("ACC-02", Verdict.FAIL), evidence=str(tmp_path), problems=("p",))
    with Journal(tmp_path / "verdicts.jsonl") as journal:
        journal.header(replace(whole, records=()))
        for each in whole.records:
            journal.verdict(each)
        journal.footer(whole, judge_run(whole))
    assert read_journal(tmp_path / "verdicts.jsonl") == whole


@pytest.mark.parametrize("cut", [2, 40, 400])
def test_a_journal_that_was_cut_short_says_so(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "verdicts.jsonl"
    with Journal(path) as journal:
        journal.header(run())
        journal.verdict(record("ACC-01"))
        journal.footer(run(record("ACC-01")), judge_run(run(record("ACC-01"))))
    path.write_text(path.read_text()[:-cut])
    found = read_journal(path)
    assert not found.complete
    assert "cut short" in found.problems[0]


def test_a_journal_without_header_is_none(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    path.write_text("")
    with pytest.raises(ObservationError, match="no header"):
        read_journal(path)


@pytest.mark.parametrize(
    ("written", "other", "said"),
    [
        ('"unlocked": false, ', "", "it lacks 'unlocked'"),
        ('"claim": ', '"said": ', "'said'"),
        ('"verdict": "PASS"', '"verdict": "FINE"', "'FINE' is not a valid Verdict"),
    ],
)
def test_a_journal_of_another_version_is_said_to_be_one(tmp_path: Path, written: str, other: str, said: str) -> None:
    path = tmp_path / "verdicts.jsonl"
    with Journal(path) as journal:
        journal.header(run())
        journal.verdict(record("ACC-01"))
    text = path.read_text()
    assert written in text
    path.write_text(text.replace(written, other))
    with pytest.raises(ObservationError) as raised:
        read_journal(path)
    assert str(raised.value).startswith(f"{path} is no journal of verdicts that this version reads (")
    assert said in str(raised.value)


def test_mtp_must_pay_for_any_pair_on_any_hardware() -> None:
    for hardware, pair in (("gb10", "gemma-4-12b"), ("h200", "geometry-26b-a4b-nvfp4"), ("cpu", "micro-26b-a4b-bf16")):
        assert load_floors(FIXTURES / "floors", hardware, pair, 4)["pays"].bound == 1.0
