"""What can go wrong under load, and with the instrument itself; each function damages the documents in one way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from support import synthetic

Documents = synthetic.Documents
Row = tuple[str, Callable[[Documents], None], str]


def answers_of(d: Documents, *arms: str, concurrency: int = 0) -> Iterator[dict[str, Any]]:
    """Every measured answer of some arms, at one concurrency or at all of them."""
    for each in d["load"]["rounds"]:
        if not each["warm_up"] and concurrency in (0, each["concurrency"]):
            for arm in arms:
                yield from (each[arm] or {"answers": []})["answers"]


def named_answers(d: Documents, concurrency: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every measured answer with MTP, with the id of its prompt."""
    for each in d["load"]["rounds"]:
        if not each["warm_up"] and concurrency in (0, each["concurrency"]):
            yield from zip(each["prompts"], each["mtp"]["answers"], strict=True)


def write(answer: dict[str, Any], token_ids: list[int]) -> None:
    answer.update(token_ids=token_ids, tokens=len(token_ids))


def recount(d: Documents, count: Callable[[int], list[int]], concurrency: int = 0, category: str = "") -> None:
    """Change acceptance: from a number of drafts, ``count`` makes the accepted tokens at each position."""
    for id, answer in named_answers(d, concurrency):
        if category not in ("", d["load"]["prompts"][id]["category"]):
            continue
        per_position = count(answer["counts"]["drafts"])
        answer["counts"].update(accepted=sum(per_position), accepted_per_position=per_position)
        written = 1 + answer["counts"]["drafts"] + sum(per_position)
        answer["counts"]["output_tokens"] = written
        write(answer, (answer["token_ids"] * 3)[:written])
    for each in d["load"]["rounds"]:
        each["mtp"]["counted"] = synthetic.totals([answer["counts"] for answer in each["mtp"]["answers"]])


def no_acceptance(d: Documents) -> None:
    recount(d, lambda _: [1, 0, 0, 0])


def last_position_lost(d: Documents) -> None:
    recount(d, lambda drafts: [drafts, drafts, drafts, 0])


def lost_at_eight(d: Documents) -> None:
    recount(d, lambda drafts: [drafts, 0, 0, 0], concurrency=8)


def tenth_lost(d: Documents) -> None:
    """The acceptance length loses a tenth, but stays above the published floor."""
    recount(d, lambda drafts: [drafts, drafts, drafts - drafts // 4, drafts - drafts // 4])


def lost_on_one_category(d: Documents) -> None:
    """A mean over ten categories hides it."""
    recount(d, lambda drafts: [drafts, 0, 0, 0], category="code")


def diverges_far_from_a_tie(d: Documents) -> None:
    d["near_ties"]["divergences"][0]["gap"] = 0.5


def differs_from_itself_and_from_mtp_far_from_a_tie(d: Documents) -> None:
    """An error that the server without MTP makes too is no excuse."""
    first = d["near_ties"]["divergences"][0]
    first["gap"] = 7.0
    d["near_ties"]["divergences"].append({**first, "between": ["plain 8", "plain_again 8"], "gap": 7.5})


def tenth_differs(d: Documents) -> None:
    d["near_ties"]["divergences"] *= 20


def ends_otherwise(d: Documents) -> None:
    next(answers_of(d, "mtp"))["finish_reason"] = "length"


def pads(d: Documents) -> None:
    next(answers_of(d, "mtp"))["token_ids"][2] = 0


def repeats(d: Documents) -> None:
    answer = next(answers_of(d, "mtp"))
    write(answer, [7, 8, 9] * (answer["tokens"] // 3))
    answer["counts"] = None


def half_as_long(d: Documents) -> None:
    for answer in answers_of(d, "mtp"):
        write(answer, answer["token_ids"][: answer["tokens"] // 2])


def slower(d: Documents, concurrency: int, factor: float) -> None:
    for answer in answers_of(d, "mtp", concurrency=concurrency):
        answer["seconds"] *= factor
    for each in d["load"]["rounds"]:
        each["mtp"]["seconds"] *= factor if each["concurrency"] == concurrency else 1


def slow_in_a_row(d: Documents) -> None:
    slower(d, 1, 1.5)


def slow_at_once(d: Documents) -> None:
    slower(d, 8, 1.5)


def does_not_pay_at_17(d: Documents) -> None:
    slower(d, 17, 3.0)


def rates_of(d: Documents, place: int) -> Any:
    return d["calibration"]["rates"][place]


def coins_of_other_rates(d: Documents) -> None:
    rates_of(d, 1)["joint"] = [0.95, 0.82, 0.72, 0.61]


def last_steps_lost(d: Documents) -> None:
    """In every answer one accepted token at the last position is not counted."""
    for row in (each for trial in rates_of(d, 1)["trials"] for each in trial):
        row["accepted_per_position"][-1] -= row["accepted_per_position"][-1] > 0


def trials_unlike_each_other(d: Documents) -> None:
    """The same requests with the same rates, but the good ones are in one trial and the bad ones in another."""
    for row in d["calibration"]["rates"]:
        size, every = len(row["trials"][0]), [each for trial in row["trials"] for each in trial]
        every.sort(key=lambda each: sum(each["accepted_per_position"]) / each["drafts"])
        row["trials"] = [every[begin : begin + size] for begin in range(0, len(every), size)]


def all_accepted(d: Documents) -> None:
    for row in d["sampling"]["prompts"]:
        row["mtp"]["samples"] = {"7 1 5": synthetic.SEEDS}


def drawn_again_with_the_rejected(d: Documents) -> None:
    """The drafted token 1 has the probability p + (1 - p) p = 0.84 for p = 0.6."""
    for row in d["sampling"]["prompts"]:
        row["mtp"]["samples"] = {"7 1 5": 112, "7 1 6": 56, "7 2 8": 20, "7 3 8": 12}


def later_position_differs(d: Documents) -> None:
    """The second token is right, but the third is never the rarer one of its two."""
    for row in d["sampling"]["prompts"]:
        row["mtp"]["samples"]["7 1 5"] += row["mtp"]["samples"].pop("7 1 6")


def slow_draft_in_the_server_under_test(d: Documents) -> None:
    """Each step sleeps 12 ms; the steps of the swept server do not."""
    for row in d["sweep"]["rows"]:
        if row["server"] == "mtp":
            row["seconds"] += 0.012 * row["drafts"]


def first_counts(d: Documents) -> dict[str, Any]:
    counts: dict[str, Any] = next(answers_of(d, "mtp"))["counts"]
    return counts


def slower_than_without_mtp_at_16(d: Documents) -> None:
    for row in d["k_by_batch"]["rows"]:
        if row["k"] == 4 and row["at_once"] == 16:
            row["seconds"] *= 4


def nothing_by_batch(d: Documents) -> None:
    d["k_by_batch"]["rows"] = []


def own_k_left_out(d: Documents) -> None:
    d["k_by_batch"]["rows"] = [row for row in d["k_by_batch"]["rows"] if row["k"] != 4]


def one_draft_too_long(d: Documents) -> None:
    next(row for row in d["k_by_batch"]["rows"] if row["k"])["draft_tokens"] += 1


def rounds_without_mtp_lost(d: Documents) -> None:
    d["k_by_batch"]["rows"] = [row for row in d["k_by_batch"]["rows"] if row["k"]]


# check -> damages, each with a part of the sentence that the check must give
DAMAGES: list[Row] = [
    ("ACC-01", no_acceptance, "acceptance length 1.0"),
    ("ACC-02", no_acceptance, "joint acceptance at position 1 0.0"),
    ("ACC-02", last_position_lost, "joint acceptance at position 4 0.000 [0.000, 0.023] misses 0.51"),
    ("ACC-03", lost_at_eight, "acceptance length 8 at once over acceptance length in a row 0."),
    ("ACC-04", tenth_lost, "acceptance length of pair 4."),
    ("ACC-05", lost_on_one_category, "acceptance length on code 2.000 ["),
    ("LOSS-01", tenth_differs, "share of equal texts 0.846"),
    ("LOSS-02", diverges_far_from_a_tie, "code-00 differs at token 7 (plain 8: token 300, mtp 8: token 301), where"),
    ("LOSS-02", differs_from_itself_and_from_mtp_far_from_a_tie, "where the most likely token led by 7.00 nats"),
    ("LOSS-03", ends_otherwise, 'code-00 has finish_reason "length" with MTP, "stop" without'),
    ("LOSS-03", pads, "code-00 has <pad> at token 2 with MTP"),
    ("LOSS-03", repeats, "code-00 repeats itself at its end with MTP"),
    ("LOSS-03", half_as_long, "length with MTP over without 0."),
    (
        "LOSS-04",
        all_accepted,
        "largest difference: token 1 after 7 in s0 has a share of 100% with MTP and 60% without",
    ),
    ("LOSS-04", drawn_again_with_the_rejected, "the distributions differ: p = "),
    (
        "LOSS-04",
        later_position_differs,
        "largest difference: token 5 after 7 1 in s0 has a share of 100% with MTP and 67% without",
    ),
    ("SPEED-01", slow_in_a_row, "speedup in a row 1.7"),
    ("SPEED-05", does_not_pay_at_17, "speedup 17 at once 0.7"),
    ("SPEED-02", slow_at_once, "speedup 8 at once 1.4"),
    ("SPEED-06", slower_than_without_mtp_at_16, "speedup 16 at once, k = 4 0."),
    ("SPEED-03", slow_draft_in_the_server_under_test, "measured over expected speedup 0.5"),
    ("CAL-01", coins_of_other_rates, 'acceptance length at the rates "published" is'),
    ("CAL-01", last_steps_lost, 'joint acceptance at position 4 at the rates "published" is'),
    ("CAL-01", trials_unlike_each_other, "the 95% intervals of acceptance length contain the true value in only"),
]


def no_samples(d: Documents) -> None:
    for row in d["sampling"]["prompts"]:
        row["mtp"]["samples"] = row["plain"]["samples"] = {}


def lost_samples(d: Documents) -> None:
    del d["sampling"]["prompts"][1]["mtp"]["samples"]["7 2 8"]


def only_first_tokens(d: Documents) -> None:
    for row in d["sampling"]["prompts"]:
        row["mtp"]["samples"] = row["plain"]["samples"] = {"7": synthetic.SEEDS}


def no_drafts(d: Documents) -> None:
    nothing = {"drafts": 0, "draft_tokens": 0, "accepted": 0, "accepted_per_position": [0] * 4, "output_tokens": 1}
    for answer in answers_of(d, "mtp"):
        write(answer, answer["token_ids"][:1])
        answer["counts"] = dict(nothing)
    for each in d["load"]["rounds"]:
        each["mtp"]["counted"] = synthetic.totals([answer["counts"] for answer in each["mtp"]["answers"]])


def no_rounds(d: Documents) -> None:
    d["load"]["rounds"] = []


def only_warm_up(d: Documents) -> None:
    for each in d["load"]["rounds"]:
        each["warm_up"] = True


def only_in_a_row(d: Documents) -> None:
    d["load"]["rounds"] = [each for each in d["load"]["rounds"] if each["concurrency"] == 1]


def unequal_lengths(d: Documents) -> None:
    half_as_long(d)


def nothing_compared(d: Documents) -> None:
    d["near_ties"].update(compared={"with_mtp": 0, "without_mtp": 0}, divergences=[])


def not_against_itself(d: Documents) -> None:
    d["near_ties"]["compared"]["without_mtp"] = 0


def hardly_against_itself(d: Documents) -> None:
    d["near_ties"]["compared"]["without_mtp"] = 5


def no_shifts(d: Documents) -> None:
    d["near_ties"]["shifts"] = []


def no_padding_token(d: Documents) -> None:
    del d["checkpoint"]["target"]["special_tokens"]["<pad>"]


def nothing_swept(d: Documents) -> None:
    d["sweep"].update(rows=[], counted=[])


def one_length_only(d: Documents) -> None:
    d["sweep"].update(rows=[row for row in d["sweep"]["rows"] if row["k"] in (0, synthetic.K)], counted=[])


def prompt_left_out(d: Documents) -> None:
    d["sweep"]["rows"].pop()
    d["sweep"]["counted"] = []


def longer_drafts(d: Documents) -> None:
    next(row for row in d["sweep"]["rows"] if row["k"] == 1)["draft_tokens"] *= 2


def positions_lost(d: Documents) -> None:
    d["sweep"]["rows"][-1]["accepted_per_position"].pop()


def uncounted_draft(d: Documents) -> None:
    d["sweep"]["counted"][1]["drafts"] -= 1


def one_token_answer(d: Documents) -> None:
    d["sweep"]["rows"][0]["output_tokens"] = 1


def no_runs(d: Documents) -> None:
    d["bench"]["runs"] = []


def no_runs_of_vllm(d: Documents) -> None:
    d["bench"]["runs"] = [run for run in d["bench"]["runs"] if run["client"] == "ours"]


def prompts_dropped(d: Documents) -> None:
    d["bench"]["runs"][1]["completed"] = 18


def slow_client(d: Documents) -> None:
    for run in d["bench"]["runs"]:
        run["seconds"] *= 1.06 if run["client"] == "ours" else 1


def other_acceptance(d: Documents) -> None:
    for run in d["bench"]["runs"]:
        run["accepted"] -= 100 if run["client"] == "vllm" else 0


def lost_count(d: Documents) -> None:
    first_counts(d)["accepted"] -= 1


def other_traffic(d: Documents) -> None:
    next(each for each in d["load"]["rounds"] if not each["warm_up"])["mtp"]["counted"]["drafts"] += 1
    next(each for each in d["load"]["rounds"] if not each["warm_up"])["mtp"]["counted"]["draft_tokens"] += 4


def rising_positions(d: Documents) -> None:
    counts = first_counts(d)
    counts.update(accepted_per_position=[1, 2, 2, 2], accepted=7)


def uncounted_output(d: Documents) -> None:
    first_counts(d)["output_tokens"] += 50


def lost_token_ids(d: Documents) -> None:
    next(answers_of(d, "mtp"))["token_ids"].pop()


def no_rates(d: Documents) -> None:
    d["calibration"]["rates"] = []


def no_trials(d: Documents) -> None:
    rates_of(d, 2)["trials"] = []


def short_trials(d: Documents) -> None:
    rates_of(d, 2)["trials"] = [trial[:3] for trial in rates_of(d, 2)["trials"]]


def coins_passed_by(d: Documents) -> None:
    rates_of(d, 0)["decided"] = 0


def rising_counts(d: Documents) -> None:
    rates_of(d, 0)["trials"][0][0]["accepted_per_position"] = [0, 0, 0, 1]


def half_a_draft(d: Documents) -> None:
    rates_of(d, 0)["trials"][0][0]["draft_tokens"] -= 2


def unexplained_output(d: Documents) -> None:
    rates_of(d, 0)["trials"][0][0]["output_tokens"] += 50


def rate_missing(d: Documents) -> None:
    rates_of(d, 0)["joint"].pop()


# check -> an empty or contradictory document, and a part of the sentence that the check must give
NOTHING: list[Row] = [
    ("ACC-01", no_rounds, "nothing to estimate"),
    ("ACC-01", no_drafts, "nothing to estimate"),
    ("ACC-01", lost_count, "the positions sum to"),
    ("ACC-01", other_traffic, "but /metrics counted"),
    ("ACC-01", rising_positions, "must not rise"),
    ("ACC-01", uncounted_output, "output tokens do not fit"),
    ("ACC-01", lost_token_ids, "token ids for"),
    ("ACC-02", no_drafts, "nothing to estimate"),
    ("ACC-03", only_in_a_row, "no measured rounds with more than one request at once"),
    ("ACC-04", no_rounds, "nothing to estimate"),
    ("ACC-05", no_rounds, "nothing to estimate"),
    ("LOSS-01", nothing_compared, "0 answers without MTP were compared with each other, where 20 are needed"),
    ("LOSS-01", not_against_itself, "0 answers without MTP were compared with each other, where 20 are needed"),
    ("LOSS-01", hardly_against_itself, "5 answers without MTP were compared with each other, where 20 are needed"),
    ("LOSS-01", no_shifts, "no scores were compared across batches"),
    ("LOSS-02", nothing_compared, "nothing was looked at"),
    ("LOSS-02", no_shifts, "no scores were compared across batches"),
    ("LOSS-03", no_rounds, "nothing was looked at"),
    ("LOSS-03", no_padding_token, "has no <pad>"),
    ("SPEED-01", no_rounds, "no measured rounds"),
    ("SPEED-01", only_warm_up, "no measured rounds"),
    ("LOSS-04", no_samples, "s0: there are 0 samples of 200 seeds"),
    ("LOSS-04", lost_samples, "samples of 200 seeds"),
    ("LOSS-04", only_first_tokens, "no context was reached 20 times by both servers"),
    ("SPEED-01", unequal_lengths, "the times do not compare"),
    ("SPEED-02", only_in_a_row, "no measured rounds with 8 requests at once"),
    ("SPEED-02", unequal_lengths, "the times do not compare"),
    ("SPEED-05", no_rounds, "no rounds were measured"),
    ("CAL-01", no_rates, "nothing was looked at"),
    ("CAL-01", no_trials, "have no requests with 0 drafts"),
    ("CAL-01", short_trials, "have [3] requests with"),
    ("CAL-01", coins_passed_by, "but coins decided only 0"),
    ("CAL-01", rising_counts, "must not rise"),
    ("CAL-01", half_a_draft, "but k is 4"),
    ("CAL-01", unexplained_output, "output tokens do not fit"),
    ("CAL-01", rate_missing, "has 3 rates, but k is 4"),
    ("SPEED-06", nothing_by_batch, "no k was timed"),
    ("SPEED-06", own_k_left_out, "the pair's k = 4 was not timed at 1 at once"),
    ("SPEED-06", one_draft_too_long, "1 at once, k = 1: 101 tokens drafted in 100 drafts"),
    ("SPEED-06", rounds_without_mtp_lost, "4 rounds, 0 without MTP and 400 drafts, so there is nothing to compare"),
    ("SPEED-03", nothing_swept, "0 prompts at 0 draft lengths are too few"),
    ("SPEED-03", one_length_only, "6 prompts at 1 draft lengths are too few"),
    ("SPEED-03", prompt_left_out, "not every prompt was asked at every k"),
    ("SPEED-03", longer_drafts, "p000 at k = 1: 40 tokens drafted in 20 drafts"),
    ("SPEED-03", positions_lost, "tokens accepted, by position"),
    ("SPEED-03", uncounted_draft, "/metrics of the sweep server counts"),
    ("SPEED-03", one_token_answer, "p000 at k = 0 has no step after its first token"),
    ("SPEED-04", no_runs, "our client measured nothing"),
    ("SPEED-04", no_runs_of_vllm, "vllm bench serve measured nothing"),
    ("SPEED-04", prompts_dropped, "vllm bench serve completed 18 of 20 prompts"),
    ("SPEED-04", slow_client, "output tokens/s by our client over that by the other client is 0.943"),
    ("SPEED-04", other_acceptance, "acceptance length by our client over that by the other client is 1.128"),
]
