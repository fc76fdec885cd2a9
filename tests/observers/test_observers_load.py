"""The observers that load both servers: load, ties, sampling, sweep, bench."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from negative_controls.faux_servers import SIZES, Observe, launch

from conformance.errors import ObservationError, Unsupported
from conformance.judging import power
from conformance.judging.stats import share
from conformance.observers import bench, k_by_batch, near_ties, sweep
from conformance.observers import load as loading
from conformance.profile.arms import PLAIN
from conformance.profile.profile import Profile, load_profile
from conformance.profile.tolerances import load_tolerances
from conformance.serving.command import Launch
from conformance.serving.executors import Executor
from conformance.serving.installed import Installed
from conformance.serving.metrics import Counters
from conformance.views.steps.k_by_batch import KByBatch
from conformance.views.sweep import Sweep
from conformance.workload.prompts import Prompt

TELLS = ("--per-request-spec-decode-metrics", "summary")

COUNTS = {"drafts": 2, "draft_tokens": 8, "accepted": 6, "accepted_per_position": [2, 2, 2, 0], "output_tokens": 9}


def measured(seen: Mapping[str, Any], concurrency: int) -> list[dict[str, Any]]:
    return [row for row in seen["rounds"] if row["concurrency"] == concurrency and not row["warm_up"]]


def test_who_waits_for_a_load_sees_acceptance_and_speed() -> None:
    counted = Counters(drafts=10, draft_tokens=40, accepted=35, per_position=(10, 9, 8, 8), generated=45)
    mtp, plain = loading.Block((), 0.5, 0.0, counted), loading.Block((), 2.0, 0.0, None)
    assert loading._live([plain, mtp, mtp]) == ": acceptance length 4.50, 90 tokens/s with MTP"
    assert loading._live([plain]) == ""


def test_a_load_is_counted_by_round_and_where_vllm_tells_by_request(observe: Observe) -> None:
    seen = observe("load", mtp=launch("good", "--k", "4", *TELLS))
    for row in measured(seen, 1):
        assert row["mtp"]["counted"] == {
            "drafts": 6, "draft_tokens": 24, "accepted": 18, "accepted_per_position": [6, 6, 6, 0], "output_tokens": 27
        }  # fmt: skip
        assert [answer["counts"] for answer in row["mtp"]["answers"]] == [COUNTS] * 3
        assert row["plain"]["counted"] is row["plain"]["answers"][0]["counts"] is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--k", "4", "--fault", "miscounts"), "tokens accepted, 18 by position"),
        (("--k", "3"), "has 3 draft positions, but k is 4"),
        ((), "it has no vllm:spec_decode_num_drafts_total"),
        (("--k", "4", "--fault", "rubbish"), "got no usable answer"),
    ],
)
def test_a_load_that_makes_no_sense_is_an_error(observe: Observe, arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ObservationError, match=sentence):
        observe("load", mtp=launch("good", *arguments))


def test_a_load_alternates_and_flags_its_warm_up(observe: Observe) -> None:
    seen = observe("load", plain=launch("good", "--seconds", "0.1"))
    in_a_row = [row for row in seen["rounds"] if row["concurrency"] == 1]
    assert [row["warm_up"] for row in in_a_row] == [True, False, False, False]
    assert [row["order"] for row in in_a_row] == [
        ["plain", "mtp"],
        ["mtp", "plain", "plain"],
        ["plain", "mtp"],
        ["mtp", "plain", "plain"],
    ]
    for row in in_a_row:
        assert [answer["tokens"] for answer in row["mtp"]["answers"]] == [9, 9, 9]
        assert 0.03 < row["mtp"]["seconds"] < 0.3 <= row["plain"]["seconds"]
        assert (row["plain_again"] is not None) == (row["order"].count("plain") == 2)
    assert [len(row["prompts"]) for row in measured(seen, 8)] == [8]
    answer = in_a_row[1]["plain"]["answers"][0]
    assert (answer["text"], answer["finish_reason"], answer["token_ids"]) == ("echo code 0", "stop", list(range(9)))
    assert 0.1 < answer["first_seconds"] <= answer["seconds"]
    assert seen["prompts"]["code-0"] == {"category": "code", "token_ids": [2, 105, 106]}
    assert seen["linear_fallback"] is None


def test_a_cpu_that_multiplies_token_by_token_is_known_by_the_log(observe: Observe) -> None:
    line = "WARNING 11-27 18:28:22 [utils.py:597] Failed to create oneDNN linear, fallback to torch linear. What: e"
    seen = observe("load", mtp=launch("good", "--k", "4", "--says", line))
    assert seen["linear_fallback"] == "Failed to create oneDNN linear, fallback to torch linear. What: e"


def prompts(count: int) -> list[Prompt]:
    return [Prompt(str(number), "c", "CC0-1.0", ({"role": "user"},), 64) for number in range(count)]


def test_rounds_walk_through_the_prompts_from_cell_to_cell_and_look_to_look() -> None:
    sizes = replace(SIZES, rounds={"2": 2, "1": 1})
    first, second = (loading.plan(prompts(8), sizes, look) for look in (1, 2))
    walk = [[prompt.id for prompt in each.prompts] for each in first + second if not each.warm_up]
    assert walk == [["0", "1", "2"], ["3", "4"], ["5", "6"], ["7", "0", "1"], ["2", "3"], ["4", "5"]]
    assert [each.concurrency for each in first] == [1, 1, 2, 2, 2]
    assert {prompt.max_tokens for each in first if each.warm_up for prompt in each.prompts} == {16}
    assert {prompt.max_tokens for each in first if not each.warm_up for prompt in each.prompts} == {32}
    assert loading.plan(prompts(4), replace(SIZES, rounds={"1": 0}), 1) == []


def test_spare_rounds_go_on_behind_the_others() -> None:
    sizes = replace(SIZES, warm_up_rounds=0, rounds={"2": 2, "1": 1}, spare_rounds={"2": 1})
    planned = [loading.plan(prompts(20), sizes, look) for look in (1, 2)]
    spare = [[prompt.id for prompt in each.prompts] for look in planned for each in look if each.spare]
    assert spare == [["7", "8"], ["14", "15"]]
    assert [each.spare for each in planned[0]] == [False, False, False, True]


def test_the_shortest_load_of_qualify_has_texts_enough_for_its_claim() -> None:
    """LOSS-01 is INCONCLUSIVE with fewer, even if no text differs."""
    sizes, tolerances = load_profile("cpu", "micro-26b-a4b-nvfp4", "qualify").sizes, load_tolerances()
    rounds = [each for each in loading.plan(prompts(sizes.mixed_prompts), sizes, 1) if not each.warm_up]
    shortest = [each for each in rounds if not each.spare]
    with_mtp, itself = (
        sum(len(each.prompts) for each in shortest if each.order.count(PLAIN) >= times) for times in (1, 2)
    )
    floor = share(itself, itself).low - tolerances["divergence_margin"]
    assert power.fails_below(share(with_mtp, with_mtp), floor) >= 1 - tolerances["texts_changed"]


@pytest.mark.parametrize(("half_width", "rounds"), [(0.0, 3), (float("inf"), 2)])
def test_spare_rounds_are_run_until_the_speedup_is_known(
    half_width: float, rounds: int, observe: Observe, profile: Profile
) -> None:
    sizes = replace(SIZES, rounds={"2": 2}, warm_up_rounds=0, spare_rounds={"2": 1}, half_width=half_width)
    seen = observe("load", replace(profile, sizes=sizes))
    assert [each["concurrency"] for each in seen["rounds"]] == [2] * rounds


def test_arms_that_cannot_be_compared_are_recorded_all_the_same(
    observe: Observe, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> float:
        raise ObservationError("60 and 80 tokens: the arms did not do the same work")

    monkeypatch.setattr(loading, "half_width", never)
    sizes = replace(SIZES, rounds={"2": 2}, warm_up_rounds=0, spare_rounds={"2": 1})
    assert len(observe("load", replace(profile, sizes=sizes))["rounds"]) == 2


def test_where_one_server_fits_there_are_three_starts() -> None:
    rounds = loading.plan(prompts(4), replace(SIZES, warm_up_rounds=0, rounds={"1": 4}), 1)
    arms = [rounds[number].order[place] for number, (place,) in loading.turns(rounds, together=False)]
    assert arms == ["mtp"] * 2 + ["plain"] * 6 + ["mtp"] * 2
    assert loading.turns(rounds, together=True) == [(0, (0, 1, 2)), (1, (0, 1)), (2, (0, 1, 2)), (3, (0, 1))]


@pytest.mark.parametrize(
    ("concurrency", "order"), [(1, ["plain 0", "mtp 0", "plain 1", "mtp 1"]), (2, ["plain 0 1", "mtp 0 1"])]
)
def test_in_a_row_the_servers_take_turns_prompt_by_prompt(concurrency: int, order: list[str]) -> None:
    asked: list[str] = []

    class Noted(loading.Arm):
        def __init__(self, name: str) -> None:
            self._name = name

        def ask(self, prompt: Prompt) -> Any:
            asked.append(f"{self._name} {prompt.id}")

        def in_a_row(self, asked: Any) -> Any:
            return self._name, len(asked)

        def at_once(self, prompts: Any) -> Any:
            asked.append(" ".join([self._name, *(prompt.id for prompt in prompts)]))
            return self._name, len(prompts)

    each = loading.Round(concurrency, tuple(prompts(2)), False, ("plain", "mtp"))
    assert loading.run_round(each, [Noted("plain"), Noted("mtp")]) == [("plain", 2), ("mtp", 2)]
    assert asked == order


def test_a_later_look_is_another_observation_of_the_same_shape(observe: Observe) -> None:
    first, second = (observe(name) for name in ("load", "load-2"))
    assert [row["prompts"] for row in first["rounds"]] != [row["prompts"] for row in second["rounds"]]


def test_ties_and_how_far_scores_move(observe: Observe) -> None:
    seen = observe("near_ties")
    assert seen["compared"] == {"with_mtp": 17, "without_mtp": 22}
    assert seen["divergences"] == []
    assert [(row["positions"], row["largest"]) for row in seen["shifts"]] == [(9, 0.25)] * SIZES.tie_prompts


def test_a_divergence_is_where_the_first_token_differs() -> None:
    assert near_ties.divergence([1, 2, 3], [1, 2, 3]) is None
    assert near_ties.divergence([1, 2, 3], [1, 4, 3]) == 1
    assert near_ties.divergence([1, 2], [1, 2, 3]) == 2


def test_answers_are_compared_with_mtp_and_without_in_other_batches() -> None:
    def row(concurrency: int, again: bool) -> dict[str, Any]:
        block = {"answers": [{"token_ids": [concurrency]}]}
        arms = {"mtp": block, "plain": block, "plain_again": block if again else None}
        return {"concurrency": concurrency, "prompts": ["a"], "warm_up": False} | arms

    names = [(one.name, other.name) for one, other in near_ties.pairs_to_compare([row(1, True), row(8, False)])]
    assert names == [("plain 1", "mtp 1"), ("plain 1", "plain_again 1"), ("plain 8", "mtp 8"), ("plain 1", "plain 8")]


@pytest.mark.parametrize("together", [True, False])
def test_samples_are_counted_under_seeds_that_no_two_requests_share(
    observe: Observe, profile: Profile, together: bool
) -> None:
    seen = observe("sampling", replace(profile, hardware=replace(profile.hardware, two_servers=together)))
    assert (seen["tokens"], seen["seeds"], [row["id"] for row in seen["prompts"]]) == (5, 30, ["s-0", "s-1"])
    assert [row[arm]["first_seed"] for row in seen["prompts"] for arm in ("mtp", "plain")] == [0, 10**6, 30, 10**6 + 30]
    assert seen["prompts"][1]["mtp"]["samples"] == {"0 1 2 0 1": 10, "1 2 0 1 2": 10, "2 0 1 2 0": 10}


def test_a_server_that_gives_no_samples_is_an_error(observe: Observe) -> None:
    with pytest.raises(ObservationError, match="mtp server: prefix s-0 got no usable samples"):
        observe("sampling", mtp=launch("good", "--k", "4", "--fault", "rubbish"))


@pytest.mark.parametrize("tells", [(), TELLS], ids=["by /metrics", "by the answers"])
@pytest.mark.parametrize("method", ["probe", "restart"])
def test_every_k_is_swept(observe: Observe, profile: Profile, method: str, tells: tuple[str, ...]) -> None:
    drafting = launch("good", "--k", "4", "--speculative-config", "{}", *tells)
    seen = observe("sweep", swept_by(profile, method), mtp=drafting, sweep=drafting)
    counts = {row["k"]: (row["draft_tokens"], row["accepted"], row["accepted_per_position"]) for row in seen["rows"]}
    assert counts == {0: (0, 0, []), 1: (2, 2, [2]), 2: (4, 4, [2, 2]), 3: (6, 6, [2] * 3), 4: (8, 6, [2, 2, 2, 0])}
    one_for_each_k = {f"sweep-{k}": 6 for k in (1, 2, 3, 4)}
    swept = {"sweep": 24} if method == "probe" else one_for_each_k
    assert {total["server"]: total["drafts"] for total in seen["counted"]} == {"mtp": 6, **swept}
    assert all(0 < row["first_token_seconds"] < row["seconds"] for row in seen["rows"])
    assert (Sweep.of(seen).k, len(seen["rows"])) == (4, 18)


def test_the_sweep_goes_up_and_down(observe: Observe, profile: Profile) -> None:
    seen = observe("sweep", swept_by(profile, "probe"))
    assert [(row["server"], row["k"]) for row in seen["rows"][:6]] == [("plain", 0), ("mtp", 4), *SWEPT]
    assert [(row["server"], row["k"]) for row in seen["rows"][6:12]] == [*reversed(SWEPT), ("mtp", 4), ("plain", 0)]


SWEPT = [("sweep", k) for k in (1, 2, 3, 4)]


def swept_by(profile: Profile, method: Any) -> Profile:
    return replace(profile, hardware=replace(profile.hardware, sweep=method))


def test_a_sweep_by_restart_begins_with_few_lengths_and_ends_when_time_is_up(
    observe: Observe, profile: Profile
) -> None:
    assert sweep.lengths(4, 8) == [4, 1, 8, 6, 2, 3, 5, 7]
    assert sweep.lengths(1, 2) == [1, 2]
    short = replace(profile, sizes=replace(profile.sizes, sweep_seconds=0.001, sweep_longest_draft=4))
    drafting = launch("good", "--k", "4", "--speculative-config", "{}", "--late", "0.35")
    seen = observe("sweep", swept_by(short, "restart"), mtp=drafting)
    assert list(dict.fromkeys(row["k"] for row in seen["rows"])) == [0, 4, 1, 2]
    assert Sweep.of(seen).swept.keys() == {1, 2, 4}


@pytest.mark.parametrize("together", [True, False])
def test_every_k_is_timed_by_the_number_of_requests(observe: Observe, profile: Profile, together: bool) -> None:
    sizes = replace(profile.sizes, sweep_longest_draft=2, batch_at_once=(3, 1), batch_rounds=2, batch_tokens=16)
    hardware = replace(profile.hardware, two_servers=together)
    pair = replace(profile.pair, k=2)
    drafting = launch("good", "--k", "2", "--speculative-config", "{}")
    asked = replace(profile, sizes=sizes, hardware=hardware, pair=pair)
    seen = observe("k_by_batch", asked, mtp=drafting)
    order = [(row["turn"], row["at_once"], row["k"]) for row in seen["rows"]]
    if together:
        first = [(2, 1, 0), (2, 1, 2), (2, 1, 2), (2, 1, 0)]  # the order alternates
        assert order[:4] == first
        assert len(order) == 2 * 2 * 2 * 2
    else:
        assert order[:4] == [(0, 1, 0), (0, 1, 0), (0, 3, 0), (0, 3, 0)]
        assert len(order) == 3 * 2 * 2
    assert (seen["joint"], seen["published"], seen["method"]) == ([0.85, 0.72], 4, "restart")
    found = KByBatch.of(seen)
    assert {number: set(cells) for number, cells in found.cells.items()} == {1: {1, 2}, 3: {1, 2}}
    assert all(cell.drafts and cell.accepted for cell in found.own)


def test_no_further_k_is_timed_when_time_is_up(observe: Observe, profile: Profile) -> None:
    short = replace(
        profile.sizes, sweep_seconds=0.001, sweep_longest_draft=3, batch_at_once=(1,), batch_rounds=2, batch_tokens=16
    )
    drafting = launch("good", "--k", "4", "--speculative-config", "{}")
    seen = observe("k_by_batch", replace(profile, sizes=short, pair=replace(profile.pair, k=3)), mtp=drafting)
    assert {row["k"] for row in seen["rows"]} == {0, 3}


def test_a_server_is_widened_for_as_many_requests_and_tokens_as_are_asked(profile: Profile) -> None:
    gpu = replace(profile, hardware=replace(profile.hardware, sm=90, serve_args=("--max-num-seqs", "32")))
    plain = Launch(("python",), {})
    assert k_by_batch.widened(plain, gpu, 576, 64).command == (
        "python", "--max-num-seqs", "64", "--max-cudagraph-capture-size", "576"
    )  # fmt: skip
    eager = replace(gpu, hardware=replace(gpu.hardware, serve_args=("--max-num-seqs", "64", "--enforce-eager")))
    assert k_by_batch.widened(plain, eager, 576, 64) == plain


def test_a_level_that_times_no_k_by_batch_is_an_error(observe: Observe, profile: Profile) -> None:
    with pytest.raises(ObservationError, match="level qualify asks nothing: set batch_"):
        observe("k_by_batch")
    many = replace(profile.sizes, batch_at_once=(99,), batch_rounds=1, batch_tokens=4)
    with pytest.raises(ObservationError, match="9 prompts are fewer than 99 requests at once"):
        k_by_batch.make_plan(replace(profile, sizes=many))


def test_more_rounds_end_when_the_speedup_is_known_or_time_is_up(observe: Observe, profile: Profile) -> None:
    endless = replace(profile.sizes, rounds={"1": 2}, more_rounds={"1": 1000}, more_seconds=0.5)
    seen = observe("load", replace(profile, sizes=endless))
    assert 2 < len(measured(seen, 1)) < 100


def test_more_rounds_are_left_out_where_the_speedup_is_known(observe: Observe, profile: Profile) -> None:
    known = replace(profile.sizes, rounds={"1": 3}, more_rounds={"1": 50}, more_seconds=100.0, half_width=9.0)
    assert len(measured(observe("load", replace(profile, sizes=known)), 1)) == 3


def test_a_warm_up_round_is_repeated_while_it_gets_faster(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 0.5, 0.4, 0.39, 0.1])
    blocks = iter([[loading.Block([], seconds, 0.0, None)] for seconds in times])
    first = next(blocks)
    monkeypatch.setattr(loading, "run_round", lambda _each, _arms: next(blocks))
    sizes = replace(profile.sizes, warm_up_seconds=100.0, still=0.1)
    each = loading.Round(1, (), warm_up=True, order=("mtp",))
    (last,) = loading._until_still(each, [], first, loading.time.monotonic(), sizes)
    assert last.seconds == 0.39
    assert loading._until_still(each, [], first, loading.time.monotonic(), profile.sizes) is first


def test_prompts_are_asked_again_as_people_serve_them(observe: Observe, profile: Profile) -> None:
    asked = replace(profile, sizes=replace(profile.sizes, served_prompts=3, served_tokens=8))
    seen = observe("served_load", asked)
    assert [row["id"] for row in seen["rows"]] == ["code-0", "prose-0", "json-0"]
    for row in seen["rows"]:
        for arm in ("plain", "mtp"):
            assert 0 < row[arm]["first_seconds"] <= row[arm]["seconds"]
            assert row[arm]["tokens"] == 8
    assert seen["configs"]["plain"] == {"scheduler_config.max_num_seqs": 24}


def test_a_level_that_asks_no_prompt_as_served_is_an_error(observe: Observe) -> None:
    with pytest.raises(ObservationError, match="level qualify asks no prompt: set served_prompts"):
        observe("served_load")


def test_a_vllm_without_schedule_cannot_be_swept(
    observe: Observe, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Executor, "installed", lambda _: Installed("0.1", None, ()))
    with pytest.raises(Unsupported, match="cannot change the draft length"):
        observe("sweep", swept_by(profile, "probe"))


def test_where_one_server_fits_the_sweep_goes_server_by_server(profile: Profile) -> None:
    planned = sweep.turns(sweep.arms(profile), prompts(3))
    planned.sort(key=lambda turn: turn[0].server)
    assert [arm.server for arm, _ in planned] == ["mtp"] * 3 + ["plain"] * 3 + ["sweep"] * 12


def test_a_run_of_a_fast_server_is_made_longer() -> None:
    class Asking:
        def ask_at_once(self, asked: Any, **_: Any) -> tuple[list[Any], float]:
            return [], 0.15 * len(asked)

    few, asking = prompts(2), Asking()
    assert bench.last_long_enough(few, asking, SIZES) == few  # type: ignore[arg-type]
    longer = bench.last_long_enough(few, asking, replace(SIZES, bench_seconds=1.0))  # type: ignore[arg-type]
    assert longer == few * 4
    endless = bench.last_long_enough(few, asking, replace(SIZES, bench_seconds=1e6))  # type: ignore[arg-type]
    assert len(endless) == 2 * bench.MOST_TIMES


def test_what_vllm_bench_serve_can_ask_too() -> None:
    rows = [
        replace(prompts(1)[0], messages=({"role": "user", "content": "a"},)),
        replace(prompts(1)[0], messages=({"role": "user", "content": "b"},), tools=({},)),
        replace(prompts(1)[0], messages=({"role": "user", "content": "c"}, {"role": "user", "content": "c"})),
        replace(prompts(1)[0], messages=({"role": "user", "content": "d"},), chat_template_kwargs={"x": 1}),
        replace(prompts(1)[0], messages=({"role": "user", "content": "e"},)),
    ]
    asked = bench.choose_prompts(rows, replace(SIZES, bench_prompts=3))
    assert [prompt.messages[0]["content"] for prompt in asked] == ["a", "e", "a"]
    assert {prompt.max_tokens for prompt in asked} == {SIZES.bench_tokens}
    assert bench.as_sharegpt(asked)[1]["conversations"][0] == {"from": "human", "value": "e"}
    with pytest.raises(ObservationError, match="and there is none"):
        bench.choose_prompts(rows[1:2], SIZES)


@pytest.mark.parametrize(("noise", "rounds"), [(0.001, 6), (0.2, 9)])
def test_a_benchmark_goes_on_until_the_ratio_is_known(noise: float, rounds: int) -> None:
    asked = []

    def measure(who: str, number: int) -> dict[str, Any]:
        asked.append((number, who))
        uneven = 1 + noise * (number % 2) if who == "ours" else 1
        counts = {"output_tokens": 50, "drafts": 15, "accepted": 35, "client_cpu_seconds": 0.1}
        return {"client": who, "seconds": (100 if number == 0 else 1) * uneven, **counts}

    sizes = replace(SIZES, bench_rounds=6, bench_most_rounds=9, bench_half_width=0.02)
    runs = bench.measure_rounds(measure, sizes)
    order = [(0, "ours"), (0, "vllm"), (1, "vllm"), (1, "ours"), (2, "ours"), (2, "vllm")]
    assert asked[:6] == order
    assert len(asked) == 2 + 2 * rounds
    assert len(runs) == 2 * rounds
    assert all(run["seconds"] < 2 for run in runs)
