"""Known rates: synthetic acceptance by the probe and by vLLM, the two ways to count, and the use of the counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from negative_controls.faux_servers import PROFILE, SIZES, launch, launcher, recording, with_prompts
from scipy import stats
from support import synthetic
from torch import nn

from conformance.commands import calibrate
from conformance.commands.main import main
from conformance.errors import ObservationError, UsageError
from conformance.evidence.folder import Evidence
from conformance.inside_vllm import adapters
from conformance.inside_vllm.probe import Probe
from conformance.inside_vllm.synthetic_acceptance import NOTHING, SyntheticAcceptance, decide
from conformance.observers import OBSERVERS
from conformance.profile.known_rates import PATH, conditional_rates, load_plan
from conformance.profile.profile import Profile
from conformance.reports import coverage_table
from conformance.run.interval_coverage import Coverage
from conformance.serving.command import Launch, per_request_counts
from conformance.serving.command import synthetic as with_synthetic_acceptance
from conformance.serving.installed import installed_here
from conformance.serving.pool import ServerPool
from conformance.views.calibration import Calibration, chance_of

K = 4
TELLS = ("--per-request-spec-decode-metrics", "summary")


# Synthetic acceptance


class Sampler(nn.Module):
    """Stands in for vLLM's: it rejects everything."""

    def forward(self, metadata: Any, _probs: Any, logits: Any, _sampling: Any) -> Any:
        tokens = torch.full((len(metadata.num_draft_tokens), K + 1), NOTHING, dtype=torch.int32)
        tokens[:, 0] = 7
        return SimpleNamespace(sampled_token_ids=tokens, logits=logits)


@pytest.fixture
def sampler(monkeypatch: pytest.MonkeyPatch) -> Sampler:
    made = Sampler()
    monkeypatch.setattr(adapters, "rejection_sampler", lambda _: made)
    monkeypatch.setattr(adapters, "draft_tokens", lambda _: K)
    return made


def step(sampler: Sampler, counts: list[int]) -> list[list[int]]:
    """One step: drafted tokens are 100, 101, …; the target would say 10, 11, … at every place it looks at."""
    places = sum(counts) + len(counts)
    logits = torch.zeros(places, 300)
    logits[torch.arange(places), torch.arange(places) + 10] = 1.0
    ends = (torch.tensor(counts) + 1).cumsum(0) - 1
    metadata = SimpleNamespace(
        draft_token_ids=torch.arange(sum(counts), dtype=torch.int32) + 100,
        num_draft_tokens=counts,
        target_logits_indices=torch.tensor([i for i in range(places) if i not in ends.tolist()], dtype=torch.long),
        bonus_logits_indices=ends,
    )
    found: list[list[int]] = sampler(metadata, None, logits, None).sampled_token_ids.tolist()
    return found


def test_the_first_coin_that_falls_wrong_ends_a_draft() -> None:
    drafted = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, NOTHING], [9, NOTHING, NOTHING]])
    own = torch.tensor([[11, 12, 13, 14], [15, 16, 17, 18], [19, 20, 21, NOTHING], [22, 23, NOTHING, NOTHING]])
    drawn = torch.tensor([[True, False, True], [True, True, True], [True, True, True], [False, True, True]])
    assert decide(drafted, own, drawn).tolist() == [
        [1, 12, NOTHING, NOTHING],
        [4, 5, 6, 18],
        [7, 8, 21, NOTHING],
        [22, NOTHING, NOTHING, NOTHING],
    ]


def test_certain_rates_accept_all_or_nothing_and_the_target_says_the_rest(sampler: Sampler) -> None:
    always = SyntheticAcceptance(None, [1.0] * K, 1)
    assert step(sampler, [4, 0, 4]) == [[100, 101, 102, 103, 14], [15, *[NOTHING] * 4], [104, 105, 106, 107, 20]]
    assert always.end() == 2
    never = SyntheticAcceptance(None, [0.0] * K, 1)
    assert step(sampler, [4]) == [[10, *[NOTHING] * 4]]
    never.end()


def test_the_same_seed_decides_the_same_and_afterwards_nothing_is_left(sampler: Sampler) -> None:
    before, untouched = dict(sampler._forward_hooks), step(sampler, [4])

    def outcome(seed: int) -> list[list[list[int]]]:
        acceptance = SyntheticAcceptance(None, [0.9, 0.8, 0.7, 0.6], seed)
        found = [step(sampler, [4, 4, 4]) for _ in range(20)]
        assert acceptance.end() == 60
        return found

    assert outcome(3) == outcome(3)
    assert outcome(3) != outcome(4)
    assert sampler._forward_hooks == before
    assert step(sampler, [4]) == untouched == [[7, *[NOTHING] * 4]]


def test_acceptance_has_the_given_rates(sampler: Sampler) -> None:
    rates = [0.9, 0.5, 0.8, 0.2]
    acceptance = SyntheticAcceptance(None, rates, 5)
    accepted = [sum(token >= 100 for token in row) for _ in range(200) for row in step(sampler, [4] * 10)]
    acceptance.end()
    for place, truth in enumerate(np.cumprod(rates)):
        reached = sum(count > place for count in accepted)
        assert stats.binomtest(reached, len(accepted), truth).pvalue > 0.001


@pytest.mark.parametrize("rates", [[0.5] * 3, [0.5, 0.5, 0.5, 1.5]])
def test_what_is_no_vector_of_rates_is_refused(sampler: Sampler, rates: list[float]) -> None:
    with pytest.raises(ValueError, match="are not 4 shares"):
        SyntheticAcceptance(None, rates, 1)
    assert not sampler._forward_hooks


@pytest.mark.usefixtures("sampler")
def test_the_probe_begins_once_and_ends_what_was_begun() -> None:
    probe = Probe()
    with pytest.raises(RuntimeError, match="synthetic acceptance is off"):
        probe.conformance_coins_end()
    assert "vllm_version" in probe.conformance_coins_begin([0.5] * K, 1)
    with pytest.raises(RuntimeError, match="synthetic acceptance is on already"):
        probe.conformance_coins_begin([0.5] * K, 1)
    assert probe.conformance_coins_end() == {"drafts": 0}
    with pytest.raises(RuntimeError, match="synthetic acceptance is off"):
        probe.conformance_coins_end()


def test_another_way_to_verify_is_unsupported_and_named() -> None:
    worker: Any = Probe()
    worker.model_runner = SimpleNamespace(rejection_sampler=nn.Identity())
    said = worker.conformance_coins_begin([0.5] * K, 1)["unsupported"]
    assert "verifies drafts by torch.nn.modules.linear, not by vllm.v1.sample.rejection_sampler" in said


# The plan


def test_the_plan_names_joint_rates_for_any_k() -> None:
    published = load_plan().rates[1]
    assert published.joint_for(4) == published.joint == (0.85, 0.72, 0.62, 0.51)
    assert published.joint_for(2) == (0.85, 0.72)
    assert published.joint_for(5)[4] == pytest.approx(0.51 * 0.51 / 0.62)
    assert np.cumprod(conditional_rates(published.joint)) == pytest.approx(published.joint)
    assert conditional_rates((0.5, 0.0, 0.0)) == (0.5, 0.0, 0.0)


def test_rates_that_rise_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "calibration.toml"
    file.write_text(PATH.read_text().replace("0.85, 0.72", "0.72, 0.85"))
    with pytest.raises(UsageError, match=r'joint rates of "published" are .* must not rise'):
        load_plan(file)


# The observation, on servers that stand in for vLLM's


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    sizes = replace(SIZES, calibration_trials=2, calibration_prompts=3)
    coins = replace(PROFILE.hardware, calibration="coins")
    return with_prompts(replace(PROFILE, sizes=sizes, hardware=coins), tmp_path / "prompts")


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    made = recording(tmp_path / "evidence")
    (made.directory / "observations" / "refusals.json").write_text('{"refusals": []}')
    return made


@pytest.fixture
def observe(evidence: Evidence) -> Iterator[Callable[[Profile, Launch], dict[str, Any]]]:
    opened: list[ServerPool] = []

    def made(profile: Profile, mtp: Launch) -> dict[str, Any]:
        opened.append(ServerPool(profile, evidence, launcher=launcher(mtp=mtp)))
        return evidence.observe("calibration", lambda: OBSERVERS["calibration"](profile, opened[0], evidence))

    yield made
    for servers in opened:
        servers.close()


@pytest.mark.parametrize("tells", [TELLS, ()], ids=["by the answers", "by /metrics"])
def test_every_request_is_counted_during_synthetic_acceptance(
    observe: Any, profile: Profile, evidence: Evidence, tells: tuple[str, ...]
) -> None:
    seen = observe(profile, launch("good", "--k", "4", *tells))
    request = {"drafts": 2, "draft_tokens": 8, "accepted_per_position": [2, 2, 2, 0], "output_tokens": 9}
    assert [row["trials"] for row in seen["rates"]] == [[[request] * 3] * 2] * 3
    assert [(row["name"], row["seed"], row["decided"]) for row in seen["rates"]] == [
        ("near one", 1, 1000),
        ("published", 2, 1000),
        ("poor", 3, 1000),
    ]
    assert (seen["k"], seen["method"], seen["max_tokens"]) == (4, "coins", 24)
    begun_and_ended = [line for line in (evidence.logs / "mtp.log").read_text().splitlines() if "coins" in line]
    assert begun_and_ended == ["conformance_coins_begin", "conformance_coins_end"] * 3


def test_synthetic_acceptance_ends_when_a_request_fails(observe: Any, profile: Profile, evidence: Evidence) -> None:
    with pytest.raises(ObservationError, match="got no usable answer"):
        observe(profile, launch("good", "--k", "4", *TELLS, "--fault", "rubbish from the third on"))
    lines = (evidence.logs / "mtp.log").read_text().splitlines()
    assert lines[-2:] == ["conformance_coins_begin", "conformance_coins_end"]


def test_a_level_without_trials_is_an_error(observe: Any, profile: Profile) -> None:
    with pytest.raises(ObservationError, match="has no calibration trials"):
        observe(replace(profile, sizes=SIZES), launch("good", "--k", "4"))


@pytest.mark.parametrize("switches", [True, False])
def test_elsewhere_vllm_decides_and_its_rates_are_switched_where_they_can_be(
    observe: Any, profile: Profile, evidence: Evidence, switches: bool
) -> None:
    """A stand-in: vLLM's CPU sampler refuses it, so that no server here can show the rates, only how it is asked."""
    ours = replace(profile, hardware=replace(profile.hardware, calibration="synthetic"))
    probe = () if switches else ("--probe", '{"unsupported": "no such tensor"}')
    seen = observe(ours, launch("good", "--k", "4", *TELLS, *probe, "--speculative-config", '{"method": "mtp"}'))
    assert seen["method"] == "synthetic"
    assert [(row["seed"], row["decided"], len(row["trials"])) for row in seen["rates"]] == [(None, None, 2)] * 3
    others = set() if switches else {"synthetic-2.log", "synthetic-3.log"}
    assert {path.name for path in evidence.logs.iterdir()} == {"synthetic.log", *others}
    first = (evidence.logs / "synthetic.log").read_text()
    assert '"rejection_sample_method": "synthetic", "synthetic_acceptance_rates": [0.98, 0.95, 0.92, 0.89]' in first
    assert "coins" not in first
    assert list((evidence.directory / ".servers").glob("*.json")) == []


def test_the_rates_of_a_running_server_are_replaced_in_place() -> None:
    rates = torch.tensor([0.9, 0.8])
    sampler = SimpleNamespace(synthetic_conditional_rates=rates)

    class Worker(Probe):
        model_runner = SimpleNamespace(rejection_sampler=sampler)

    assert "unsupported" not in Worker().conformance_synthetic_rates([0.5, 0.25])
    assert rates.tolist() == [0.5, 0.25]
    sampler.synthetic_conditional_rates = None
    said = Worker().conformance_synthetic_rates([0.5, 0.25])["unsupported"]
    assert said == "The server was not started with rejection_sample_method synthetic."


def test_synthetic_acceptance_changes_nothing_else_of_a_launch() -> None:
    before = Launch(("vllm", "--speculative-config", '{"method": "mtp"}', "--x"), {"A": "1"})
    after = with_synthetic_acceptance(before, [0.5, 0.25])
    wanted = '{"method": "mtp", "rejection_sample_method": "synthetic", "synthetic_acceptance_rates": [0.5, 0.25]}'
    assert after == Launch(("vllm", "--speculative-config", wanted, "--x"), {"A": "1"})
    with pytest.raises(ValueError, match="not in list"):
        with_synthetic_acceptance(Launch(("vllm",), {}), [0.5])


def test_the_installed_vllm_tells_each_requests_counts() -> None:
    assert per_request_counts(installed_here())


# What is made of it


def test_the_chance_is_that_of_the_binomial() -> None:
    for total in (0, 3, 12, 20):
        lower, upper = stats.binom.cdf(total, 20, 0.3), stats.binom.sf(total - 1, 20, 0.3)
        assert chance_of([0.7, 0.3], 20, total) == pytest.approx(min(1, 2 * min(lower, upper)), abs=1e-12)
    assert chance_of([0.25, 0.5, 0.25], 2, 4) == pytest.approx(2 / 16)
    assert chance_of([0.7, 0.3], 20, 21) == 0.0


def test_the_note_is_a_small_table_of_coverage() -> None:
    found = Calibration.of(synthetic.healthy()["calibration"], load_plan())
    assert len(found.quantities) == 15
    assert "half width at near one, published, poor: acceptance length 1" in found.note()
    assert found.note().count(" of 12 (± ") == 5


ABOUT = {"imported": {"vllm": "0.32.0"}, "machine": "x86_64", "cpu_count": 2, "python": "3.11.7"}


def test_the_published_table_names_what_lies_outside() -> None:
    found = Calibration.of(synthetic.healthy()["calibration"], load_plan())
    coverage = Coverage(PROFILE, ABOUT, "coins", found)
    table = coverage_table.as_markdown(coverage, date(2026, 11, 25))
    assert table.startswith("2026-11-25: vLLM 0.32.0 on faux (x86_64, 2 cores, Python 3.11.7), faux-pair, k = 4.")
    assert table.count("\n| ") == 2 + 5 + 2 + 15
    nothing_held = replace(found, plan=replace(found.plan, coverage=(1.1, 1.2)))
    assert len(nothing_held.outside()) == 5
    assert "no: outside 110% to 120%" in coverage_table.as_markdown(
        replace(coverage, calibration=nothing_held), date.min
    )


def test_the_command_measures_coverage_for_programs(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    found = Calibration.of(synthetic.healthy()["calibration"], load_plan())
    monkeypatch.setattr(calibrate, "published_coverage", lambda profile, _: Coverage(profile, ABOUT, "coins", found))
    code = main(["calibrate", "--hardware", "cpu", "--json"])
    out, err = capfd.readouterr()
    document = json.loads(out)
    assert err == "".join(f"{sentence}\n" for sentence in document["wrong"])
    assert code == bool(document["wrong"])
    about = {"hardware": "cpu", "pair": "micro-26b-a4b-nvfp4", "vllm": "0.32.0", "acceptance_by": "coins"}
    assert about.items() <= document.items()
    assert document["quantities"][0] | {"covered": 0} == {"name": "acceptance length", "covered": 0, "trials": 12}
    assert len(document["each"]) == 15
    assert all(row["covered"] <= row["trials"] for row in document["each"])
