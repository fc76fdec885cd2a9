"""Two runs held against each other: the same twice, one of them damaged, and two that differ in what they observed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from negative_controls.damages import inside, load, soak
from support import synthetic

from conformance import PACKAGE
from conformance.commands import compare as compare_command
from conformance.commands.main import main
from conformance.errors import ObservationError
from conformance.evidence.folder import Evidence
from conformance.judging import stats
from conformance.judging.stats import Sample, change
from conformance.judging.verdict import Judgement, Record, Run, Verdict, judge_run
from conformance.profile.profile import load_profile
from conformance.reports.comparison.changes import Comparison, Side, compare
from conformance.reports.comparison.rendering import as_json, as_markdown, as_text
from conformance.reports.source import Source

SCHEMA = Draft202012Validator(json.loads((PACKAGE / "reports/comparison/comparison.schema.json").read_text()))
PROFILE = load_profile("cpu", "micro-26b-a4b-nvfp4", "qualify")
Damage = Callable[[synthetic.Documents], None]


def tenth_lost_of_other_prompts(d: synthetic.Documents) -> None:
    other_prompts(d)
    load.tenth_lost(d)


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "RESAMPLES", 1999)


def nothing(_: synthetic.Documents) -> None:
    """Leaves all as it is."""


def other_prompts(d: synthetic.Documents) -> None:
    """The same names for other texts."""
    for prompt in d["load"]["prompts"].values():
        prompt["token_ids"] = [1, *prompt["token_ids"]]


def slower_with_mtp(d: synthetic.Documents) -> None:
    """By a third, whatever it is asked."""
    for each in d["load"]["rounds"]:
        for block in (each["mtp"], *each["mtp"]["answers"]):
            block["seconds"] *= 1.5


def slower_machine(d: synthetic.Documents) -> None:
    for each in d["load"]["rounds"]:
        for arm in ("mtp", "plain", "plain_again"):
            for block in (each[arm], *each[arm]["answers"]) if each[arm] else ():
                block["seconds"] *= 1.5


def slower_soak(d: synthetic.Documents) -> None:
    for window in d["soak"]["windows"]:
        window["counted"]["output_tokens"] //= 2


def half_speed_at_last(d: synthetic.Documents) -> None:
    for window in soak.late(d):
        window["counted"]["output_tokens"] //= 2


def record(id: str, verdict: Verdict, sentence: str = "") -> Record:
    return Record(id, f"The claim of {id}.", "qualify", verdict, sentence or f"{id} is {verdict}", 1.0)


def side(directory: Path, documents: synthetic.Documents, *records: Record, level: str = "qualify") -> Side:
    synthetic.record(directory, documents, level=level)
    run = Run("cpu", "micro-26b-a4b-nvfp4", level, str(directory), tuple(r.id for r in records), records)
    return Side(run, judge_run(run), Source(Evidence(directory, recording=False), PROFILE))


@pytest.fixture
def compared(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Comparison]:
    """A healthy run against one that is damaged; ``before`` damages the first as well."""

    def make(damage: Damage, before: Damage = nothing) -> Comparison:
        folder, sides = tmp_path_factory.mktemp("runs"), []
        for name, spoil in (("a", before), ("b", damage)):
            documents = synthetic.healthy()
            spoil(documents)
            sides.append(side(folder / name, documents, record("ACC-01", Verdict.PASS)))
        return compare(*sides)

    return make


def said(found: Comparison) -> dict[str, str]:
    return {figure.name: figure.said for figure in found.figures}


def test_a_run_differs_in_nothing_from_itself(compared: Callable[..., Comparison]) -> None:
    found = compared(nothing)
    assert set(said(found).values()) == {"no difference shown"}
    assert found.exit_code == 0
    assert not found.notes
    decisive = [figure.name for figure in found.figures if figure.decides]
    assert decisive[:2] == ["acceptance length", "joint acceptance at position 1"]
    assert [name for name in decisive if name.startswith("speedup")] == [
        "speedup in a row",
        "speedup 3 at once",
        "speedup 8 at once",
        "speedup 17 at once",
    ]
    assert found.confidence == pytest.approx(1 - 0.05 / len(decisive))


def test_a_tenth_of_the_acceptance_is_seen_prompt_by_prompt(compared: Callable[..., Comparison]) -> None:
    found = compared(load.tenth_lost)
    figures = {figure.name: figure for figure in found.figures}
    assert found.exit_code == 1
    assert "acceptance length" in found.lower
    assert figures["acceptance length"].change.method == "paired stratified bootstrap"
    assert figures["acceptance length"].change.high < 0
    assert "speedup in a row" not in found.lower
    assert compared(nothing, load.tenth_lost).exit_code == 0  # the other way round it is better


def test_other_prompts_make_no_pairs(compared: Callable[..., Comparison]) -> None:
    found = compared(other_prompts)
    methods = {figure.change.method for figure in found.figures if figure.decides}
    assert methods == {
        "independent stratified bootstrap",
        "ratio; exact binomial",
        "ratio; t interval of the log ratio of means, for a series",
    }
    assert found.exit_code == 0
    assert compared(tenth_lost_of_other_prompts).exit_code == 1


def test_a_slower_draft_is_worse_but_a_slower_machine_is_not(compared: Callable[..., Comparison]) -> None:
    assert "speedup in a row" in compared(slower_with_mtp).lower
    found = compared(slower_machine)
    assert said(found)["tokens/s in a row with MTP"] == "differs"
    assert found.exit_code == 0


def test_a_soak_that_slows_down_is_worse_and_a_slower_one_is_not(compared: Callable[..., Comparison]) -> None:
    assert compared(half_speed_at_last).lower == ["throughput kept in a soak"]
    found = compared(slower_soak)
    assert said(found)["tokens/s in a soak"] == "differs"
    assert found.exit_code == 0


def test_arms_that_did_not_do_the_same_work_cost_their_own_figure_only(compared: Callable[..., Comparison]) -> None:
    found = compared(load.tenth_lost)
    lost = "speedup 3 at once cannot be compared: 647 tokens with MTP against 689 without: the times do not compare."
    assert lost in found.notes
    assert "speedup 3 at once" not in said(found)
    assert {"speedup in a row", "tokens/s in a row with MTP"} <= said(found).keys()


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    def lacks_load(d: synthetic.Documents) -> None:
        del d["load"]

    documents = synthetic.healthy()
    first = side(tmp_path / "a", documents, record("ACC-01", Verdict.PASS), record("ACC-02", Verdict.PASS))
    lacks_load(documents)
    found = compare(first, side(tmp_path / "b", documents, record("ACC-01", Verdict.PASS), level="smoke"))
    assert found.notes[0] == (
        "The runs are not of the same kind (level qualify and smoke): only what both have seen is compared."
    )
    assert found.notes[1] == "Only A has ACC-02."
    assert found.notes[2] == "Acceptance cannot be compared: only A has observed it."
    assert said(found).keys() == {
        "equal greedy texts",
        "tokens/s, 8 at once",
        "throughput kept in a soak",
        "acceptance length kept in a soak",
        "tokens/s in a soak",
    }


def contradict(d: synthetic.Documents) -> None:
    next(load.answers_of(d, "mtp"))["counts"]["accepted"] += 1


def test_counters_that_contradict_each_other_are_not_compared(compared: Callable[..., Comparison]) -> None:
    found = compared(contradict)
    assert any("contradict each other" in note for note in found.notes)
    assert "acceptance length" not in said(found)


V = Verdict


@pytest.mark.parametrize(
    ("before", "after", "direction"),
    [
        (V.PASS, V.FAIL, "worse"),
        (V.WAIVED, V.ERROR, "worse"),
        (V.PASS, V.INCONCLUSIVE, "worse"),
        (V.FAIL, V.PASS, "better"),
        (V.PASS, V.UNSUPPORTED, "other"),
        (V.INCONCLUSIVE, V.FAIL, "other"),
        (V.PASS, V.PASS, None),
    ],
)
def test_a_change_of_verdict_has_a_direction(tmp_path: Path, before: V, after: V, direction: str | None) -> None:
    sides = [side(tmp_path / name, {}, record("ACC-01", verdict)) for name, verdict in (("a", before), ("b", after))]
    found = compare(*sides)
    assert [each.direction for each in found.verdicts] == ([direction] if direction else [])
    assert found.exit_code == (direction == "worse")
    if direction:
        assert found.verdicts[0].sentence == f"ACC-01 is {before if after in (V.PASS, V.WAIVED) else after}"


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("attacked")
    damaged = synthetic.healthy()
    load.tenth_lost(damaged)
    attack = "<script>alert(1)</script> ](http://x) |\n\n| @somebody #1 `" + "x" * 400
    return compare(
        side(folder / "a", synthetic.healthy(), record("ACC-01", V.PASS), record("ENV-01", V.FAIL)),
        side(folder / "b", damaged, record("ACC-01", V.FAIL, attack), record("ENV-01", V.PASS)),
    )


def test_markdown_has_what_changed_and_folds_the_rest(attacked: Comparison) -> None:
    text = as_markdown(attacked)
    shown, _, folded = text.partition("<details>")
    assert shown.startswith("### ❌ B is worse than A: worse: ACC-01 PASS → FAIL; lower: acceptance length")
    verdicts = [line.split(" | ")[1] for line in shown.splitlines() if line.startswith(("| ❌", "| ✅"))]
    assert verdicts == ["ACC-01", "ENV-01"]
    assert "| ❌ differs |" in shown
    assert "speedup in a row" not in shown
    assert "speedup in a row" in folded
    assert "<script" not in text
    assert "@somebody" not in text
    assert not re.search(r"(?<!\\)\]\(", text)
    columns = {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")}
    assert columns == {6, 8, 11}


def test_json_is_in_its_agreed_shape(attacked: Comparison) -> None:
    document = json.loads(as_json(attacked))
    SCHEMA.validate(document)
    assert document["exit_code"] == 1
    assert [each["direction"] for each in document["verdicts"]] == ["worse", "better"]
    assert document["before"]["level"] == "qualify"
    del document["figures"][0]["interval"]
    assert list(SCHEMA.iter_errors(document))


def test_the_table_is_plain_where_it_is_no_terminal(attacked: Comparison) -> None:
    text = as_text(attacked, width=None, colour=False)
    assert "\x1b" not in text
    assert "|worse " in text
    assert "|acceptance length " in text
    assert text.splitlines()[-1].startswith("B is worse than A: worse: ACC-01 PASS → FAIL; lower: ")
    assert "\x1b" in as_text(attacked, width=100, colour=True)


@pytest.mark.usefixtures("no_waivers")
def test_the_command_judges_both_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    damaged = synthetic.healthy()
    inside.half_wide(damaged)
    a = synthetic.record(tmp_path / "a", synthetic.healthy())
    b = synthetic.record(tmp_path / "b", damaged)
    assert main(["compare", str(a), str(b), "--json"]) == 1
    out, err = capfd.readouterr()
    document = json.loads(out)
    assert err == ""
    assert not (b / "report.html").exists()
    SCHEMA.validate(document)
    assert next((each["id"], each["after"]) for each in document["verdicts"]) == ("DRAFT-01", "FAIL")
    assert document["sentence"].startswith("B is worse than A: worse: DRAFT-01 PASS → FAIL")


@pytest.fixture
def unjudged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be judged before all input was looked at."""

    def never(directory: Path) -> None:
        raise AssertionError(directory)

    monkeypatch.setattr(compare_command, "judge_again", never)


@pytest.mark.usefixtures("unjudged")
def test_bad_input_is_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    a = synthetic.record(tmp_path / "a", {})
    assert main(["compare", str(a), str(tmp_path / "nowhere")]) == 2
    assert capfd.readouterr().err == f"qualify: {tmp_path}/nowhere holds no evidence: it has no header.json.\n"
    b = synthetic.record(tmp_path / "b", {})
    (b / "logs/mtp.log").write_text("another")
    assert main(["compare", str(a), str(b)]) == 4
    assert "was changed after recording" in capfd.readouterr().err


def sample(rng: np.random.Generator, hardness: Any, rate: float, strata: list[str]) -> Sample:
    drafts = np.full(hardness.size, 12)
    return Sample(rng.binomial(drafts, np.clip(rate + hardness, 0, 1)).tolist(), drafts.tolist(), strata)


@pytest.mark.parametrize("paired", [True, False])
def test_the_interval_of_a_change_holds_what_is_true(paired: bool) -> None:
    rng, strata, held, trials = np.random.default_rng(7), ["a"] * 20 + ["b"] * 20, 0, 400
    for _ in range(trials):
        hardness = rng.uniform(-0.1, 0.1, (2, 40))
        one = sample(rng, hardness[0], 0.8, strata)
        other = sample(rng, hardness[0 if paired else 1], 0.7, strata)
        found = change(one, other, paired=paired)
        held += found.low <= -0.1 <= found.high
    assert 0.93 <= held / trials <= 0.98


def test_pairs_see_what_independent_samples_do_not() -> None:
    rng, strata = np.random.default_rng(7), ["a"] * 30
    hardness = rng.uniform(-0.3, 0.2, 30)
    one = sample(rng, hardness, 0.8, strata)
    other = Sample([max(0, each - 1) for each in one.over], one.under, strata)
    assert change(one, other, paired=True).high < 0
    assert change(one, other, paired=False).high > 0


@pytest.mark.parametrize("one", [Sample([1], [2], [""]), Sample([0, 0], [0, 0], ["", ""]), Sample([], [], [])])
def test_too_little_carries_no_interval(one: Sample) -> None:
    with pytest.raises(ObservationError, match="too few for an interval"):
        change(one, one, paired=True)


def test_a_judgement_comes_with_each_side(attacked: Comparison) -> None:
    assert isinstance(attacked.after.judgement, Judgement)
    assert attacked.after.judgement.sentence == "Not qualified: ACC-01 failed."
