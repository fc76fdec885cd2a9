"""What can go wrong with what people have switched on; each function damages the documents in one way."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from support import synthetic, synthetic_features

Documents = synthetic.Documents
Row = tuple[str, Callable[[Documents], None], str]


def step(d: Documents, id: str, arm: str = "mtp") -> dict[str, Any]:
    """A step of the prefix cache."""
    return next(row for row in d["prefix_caching"]["arms"][arm]["steps"] if row["id"] == id)


def option(d: Documents, id: str) -> dict[str, Any]:
    """A case of an option."""
    return next(case for case in d["sampling_options"]["cases"] if case["id"] == id)


def choice(reply: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = reply["choices"][0]
    return found


def block_of_another_prefix(d: Documents) -> None:
    choice(step(d, "second")["reply"])["token_ids"][1] = 99


def call_lost_after_a_hit(d: Documents) -> None:
    choice(step(d, "tool call")["reply"])["text"] = "call:set_bridge"


def refused_after_a_hit(d: Documents) -> None:
    step(d, "second")["reply"] = synthetic_features.refused("EngineCore encountered an issue", 500)


def no_hit_with_mtp(d: Documents) -> None:
    step(d, "second")["hits"] = 0


def hit_after_eviction(d: Documents) -> None:
    step(d, "after other prompts filled the cache")["hits"] = 128


def hit_of_a_whole_prompt(d: Documents) -> None:
    step(d, "second")["hits"] = 700


def looks_up_too_little(d: Documents) -> None:
    step(d, "second")["queries"] = 300


def penalty_ignored(d: Documents) -> None:
    for reply in option(d, "frequency_penalty")["mtp"]:
        reply.update(synthetic_features.reply(synthetic_features.TOKENS))


def banned_words_slip_through(d: Documents) -> None:
    option(d, "bad_words of two tokens")["mtp"][1].update(synthetic_features.reply([*synthetic_features.TOKENS[:9]]))


def stop_overrun(d: Documents) -> None:
    reply = synthetic_features.reply(synthetic_features.TOKENS[:9], "stop", stop="28")
    option(d, "stop string inside a block")["mtp"][0].update(reply)


def usage_counts_surplus(d: Documents) -> None:
    for reply in option(d, "max_tokens of 2")["mtp"]:
        reply["usage"][1] = 5


def engine_error(d: Documents) -> None:
    option(d, "frequency_penalty")["mtp"][0] = synthetic_features.refused("EngineCore encountered an issue", 500)


def refused_without_a_name(d: Documents) -> None:
    option(d, "frequency_penalty")["mtp"][0] = synthetic_features.refused("Bad Request")


def scores(d: Documents, arm: str = "mtp") -> dict[str, Any]:
    """The first scored answer."""
    found: dict[str, Any] = d["token_scores"]["arms"][arm][0][0]
    return found


def logprobs_shifted_by_one(d: Documents) -> None:
    row = scores(d)
    row["logprobs"] = [*row["logprobs"][1:], -0.4]


def prompt_logprobs_of_another_prompt(d: Documents) -> None:
    scores(d)["prompt_logprobs"][2] = -0.9


def zeros(d: Documents) -> None:
    row = scores(d)
    row["logprobs"] = [0.0] * len(row["logprobs"])


def no_number(d: Documents) -> None:
    scores(d)["logprobs"][2] = None


def too_few_logprobs(d: Documents) -> None:
    scores(d)["logprobs"].pop()


def logprobs_of_rejected_tokens(d: Documents) -> None:
    scores(d)["scored_ids"] = [*synthetic_features.TOKENS[:5], 99]


def cut(d: Documents, place: int) -> dict[str, Any]:
    """The reply to a cut request."""
    found: dict[str, Any] = d["cut_answers"]["arms"]["mtp"][place]["reply"]
    return found


def cut_call_is_reported_as_whole(d: Documents) -> None:
    choice(cut(d, 0))["finish_reason"] = "tool_calls"


def cut_number(d: Documents) -> None:
    choice(cut(d, 1))["calls"][0]["arguments"] = '{"price": 100}'


def cut_name(d: Documents) -> None:
    choice(cut(d, 1))["calls"][0]["name"] = "count_let"


def runs_beyond_max_tokens(d: Documents) -> None:
    cut(d, 2).update(synthetic_features.reply(synthetic_features.TOKENS[:6]))


def limits(d: Documents, name: str) -> list[dict[str, Any]]:
    """Rows of the server with MTP."""
    found: list[dict[str, Any]] = d["context_limit"]["arms"]["mtp"][name]
    return found


def ends_before_the_limit(d: Documents) -> None:
    limits(d, "ends")[2]["reply"] = synthetic_features.leading(synthetic_features.TOKENS[:1])


def reads_a_chunk_wrongly(d: Documents) -> None:
    choice(limits(d, "running")[0]["reply"])["token_ids"][5] = 99


def accepts_a_full_prompt(d: Documents) -> None:
    limits(d, "full")[0]["reply"] = synthetic_features.leading(synthetic_features.TOKENS[:1])


def runs_beyond_the_limit(d: Documents) -> None:
    limits(d, "beyond")[0]["reply"] = synthetic_features.leading(synthetic_features.TOKENS[:2])


def dies_beyond_the_limit(d: Documents) -> None:
    limits(d, "beyond")[1]["reply"] = synthetic_features.refused("EngineCore encountered an issue", 500)


def crowd(d: Documents) -> dict[str, Any]:
    """What the server with MTP did in the crowd."""
    found: dict[str, Any] = d["preemption"]["arms"]["mtp"]["crowd"]
    return found


def preemption_loses_tokens(d: Documents) -> None:
    crowd(d)["replies"][1] = synthetic_features.leading([1, *synthetic_features.TOKENS[1:9]])


def other_text_after_preemption(d: Documents) -> None:
    choice(crowd(d)["replies"][2])["token_ids"][7] = 99


def drafts_rejected_after_preemption(d: Documents) -> None:
    crowd(d).update(drafts=60, accepted=80)


def sampled(d: Documents, place: int, arm: str = "mtp") -> list[dict[str, Any]]:
    """The two replies to a request with a seed."""
    found: list[dict[str, Any]] = d["seeds"]["arms"][arm][place]["replies"]
    return found


def seed_ignored(d: Documents) -> None:
    choice(sampled(d, 0)[1])["token_ids"][3] = 99


def seed_of_one_answer_ignored(d: Documents) -> None:
    sampled(d, 2)[1]["choices"][1]["token_ids"][3] = 99


def one_text_for_all_seeds(d: Documents) -> None:
    for place in (0, 1):
        for reply in sampled(d, place):
            reply.update(synthetic_features.reply(synthetic_features.TOKENS))


def one_text_for_all_answers(d: Documents) -> None:
    for reply in sampled(d, 2):
        for each in reply["choices"]:
            each["token_ids"] = list(synthetic_features.TOKENS)


def too_few_answers(d: Documents) -> None:
    reply = sampled(d, 2)[0]
    del reply["choices"][0]
    reply["usage"][1] = sum(len(each["token_ids"]) for each in reply["choices"])


def thoughts(d: Documents, arm: str = "mtp") -> list[dict[str, Any]]:
    """The rows of a server."""
    found: list[dict[str, Any]] = d["thinking_budget"]["arms"][arm]["rows"]
    return found


def budget_ignored(d: Documents) -> None:
    thoughts(d)[2]["reply"] = copy.deepcopy(d["thinking_budget"]["arms"]["mtp"]["whole"])


def budget_overrun_by_one_token(d: Documents) -> None:
    choice(thoughts(d)[2]["reply"])["token_ids"].insert(5, 24)


def budget_ends_a_thought_early(d: Documents) -> None:
    choice(thoughts(d)[2]["reply"])["token_ids"].pop(4)


def hits_counted_and_not_used(d: Documents) -> None:
    step(d, "second")["computed"] = 700


def combined(d: Documents, feature: str, arm: str = "mtp") -> dict[str, Any]:
    """What a server with one more feature did in the crowd."""
    found: dict[str, Any] = d[f"combination-{feature}"]["arms"][arm]["crowd"]
    return found


def near_tie_with_batch_invariance(d: Documents) -> None:
    for arm in ("mtp", "plain"):
        choice(d["combination-batch_invariance"]["arms"][arm]["few"]["replies"][1])["gaps"][7] = 0.0
    choice(combined(d, "batch_invariance")["replies"][1])["token_ids"][7] = 99


def other_text_with(feature: str) -> Callable[[Documents], None]:
    return lambda d: choice(combined(d, feature)["replies"][2])["token_ids"].__setitem__(7, 99)


def cut_with(feature: str) -> Callable[[Documents], None]:
    def cut_short(d: Documents) -> None:
        combined(d, feature)["replies"][0] = synthetic_features.leading(synthetic_features.TOKENS[:3])

    return cut_short


def another_answer_of_one_worker(d: Documents) -> None:
    choice(d["combination-one_worker"]["arms"]["plain"]["few"]["replies"][1])["token_ids"][7] = 99


def custom_all_reduce_left_on(d: Documents) -> None:
    for arm in d["combination-no_custom_all_reduce"]["arms"].values():
        arm["parallel"]["custom_all_reduce"] = True


def all_have_two_workers(d: Documents) -> None:
    for arm in d["combination-one_worker"]["arms"].values():
        arm["parallel"]["workers"] = 2


def slower_as_served(d: Documents) -> None:
    for row in d["served_load"]["rows"]:
        row["mtp"]["seconds"] *= 4.2


# check -> damages, each with a part of the sentence that the check must give
DAMAGES: list[Row] = [
    ("FEATURE-01", block_of_another_prefix, '"second" and the cold answer with MTP differ at token 1, where the most'),
    ("FEATURE-01", call_lost_after_a_hit, '"tool call" with MTP has the tokens of the cold answer, but not its text'),
    ("FEATURE-01", refused_after_a_hit, '"second" with MTP got HTTP 500: EngineCore'),
    ("FEATURE-02", no_hit_with_mtp, '"second" with MTP found nothing in the cache, though it holds this prompt'),
    ("FEATURE-02", hit_after_eviction, "with MTP found 128 tokens in the cache, which cannot hold this prompt"),
    ("FEATURE-02", hit_of_a_whole_prompt, "found 700 of 700 tokens, though the last one is always computed"),
    ("FEATURE-02", looks_up_too_little, '"second" with MTP looked up 300 tokens of a prompt of 700'),
    ("FEATURE-03", penalty_ignored, '"frequency_penalty" is ignored with MTP'),
    ("FEATURE-03", banned_words_slip_through, '"bad_words of two tokens" has token_ids'),
    ("FEATURE-04", stop_overrun, '"stop string inside a block" has token_ids'),
    ("FEATURE-04", usage_counts_surplus, '"max_tokens of 2" has usage [700, 5] with MTP, [700, 2] without'),
    ("FEATURE-05", engine_error, '"frequency_penalty" got HTTP 500 with MTP: EngineCore'),
    ("FEATURE-05", refused_without_a_name, '"frequency_penalty" got HTTP 400 with MTP: Bad Request'),
    ("FEATURE-06", zeros, "tale-0 with MTP has zeros only in logprobs"),
    ("FEATURE-06", no_number, "has a value in logprobs that is missing or no finite number, at place 2"),
    ("FEATURE-06", too_few_logprobs, "has 5 logprobs where usage counts 6"),
    ("FEATURE-06", logprobs_of_rejected_tokens, "tale-0 with MTP has logprobs of other tokens than its own"),
    ("FEATURE-07", logprobs_shifted_by_one, "nats off"),
    ("FEATURE-07", prompt_logprobs_of_another_prompt, "-0.900 where -4.500 is right in prompt_logprobs at place 2"),
    ("FEATURE-08", cut_call_is_reported_as_whole, 'has 3 tokens and finish_reason "tool_calls" where 3 and "length"'),
    ("FEATURE-08", cut_number, 'streamed, has the call count_letter({"price": 100}) where count_letter({"price": 1000'),
    ("FEATURE-08", cut_name, "where count_letter is called"),
    ("FEATURE-09", runs_beyond_max_tokens, 'the thought cut after 4 tokens has 6 tokens and finish_reason "length"'),
    ("FEATURE-10", ends_before_the_limit, "a request for 3 tokens up to the end of the context has 1 tokens"),
    ("FEATURE-10", reads_a_chunk_wrongly, "among long prompts with and without MTP differ at token 5, where the most"),
    ("FEATURE-10", accepts_a_full_prompt, "a prompt that fills the whole context got HTTP 200 where a 4xx is right"),
    ("FEATURE-10", runs_beyond_the_limit, "holds, got HTTP 200: 2 tokens, length with MTP, HTTP 200: 1 tokens, length"),
    ("FEATURE-10", dies_beyond_the_limit, "holds, got HTTP 500 with MTP, HTTP 200: 4 tokens, length without"),
    ("FEATURE-11", preemption_loses_tokens, "request 2 in the crowd with MTP has 9 tokens and finish_reason"),
    ("FEATURE-11", other_text_after_preemption, "the answers to request 3 alone and in the crowd with MTP differ at"),
    ("FEATURE-11", drafts_rejected_after_preemption, "the acceptance length is 2.333 in the crowd, 4.333 with a few"),
    ("FEATURE-12", seed_ignored, "seed 1 gives another token at 3 the second time with MTP"),
    ("FEATURE-12", seed_of_one_answer_ignored, "seed 5, answer 2 of 3, gives another token at 3 the second time with"),
    ("FEATURE-12", one_text_for_all_seeds, "2 seeds give one text with MTP"),
    ("FEATURE-12", one_text_for_all_answers, "3 answers to one request with seed 5 are one text with MTP"),
    ("FEATURE-12", too_few_answers, "seed 5 with MTP has 2 answers where 3 were asked for"),
    ("FEATURE-13", budget_ignored, "the answer with a budget of 4 with MTP has a thought of 10 tokens"),
    ("FEATURE-13", budget_overrun_by_one_token, "the answer with a budget of 4 with MTP has a thought of 5 tokens"),
    ("FEATURE-13", budget_ends_a_thought_early, "a budget of 4 with and without MTP differ at token 4, where the most"),
    ("FEATURE-14", hits_counted_and_not_used, '"second" with MTP computed 700 of 700 tokens, where 512 were found'),
    (
        "FEATURE-15",
        near_tie_with_batch_invariance,
        "request 2 in the crowd with MTP, and a few at a time without, differ",
    ),
    ("FEATURE-16", other_text_with("lora"), "request 3 in the crowd with MTP, and a few at a time without, differ at"),
    ("FEATURE-17", other_text_with("expert_parallel"), "request 3 in the crowd with MTP, and a few at a time without,"),
    ("FEATURE-18", cut_with("v2_runner"), "request 4 with MTP has 3 tokens and finish_reason"),
    ("FEATURE-19", slower_as_served, "speedup in a row, as people serve it, 0.6"),
    ("FEATURE-20", another_answer_of_one_worker, "request 2 a few at a time without MTP, by one worker, and without"),
    ("FEATURE-20", cut_with("one_worker"), "request 1 in the crowd with MTP, by one worker, has 3 tokens"),
    ("FEATURE-21", other_text_with("no_custom_all_reduce"), "request 3 in the crowd with MTP, by all-reduce by NCCL"),
]


def no_hit_at_all(d: Documents) -> None:
    for found in d["prefix_caching"]["arms"].values():
        for each in found["steps"]:
            each["hits"] = 0


def no_cold_answer(d: Documents) -> None:
    d["prefix_caching"]["arms"]["plain"]["cold"]["replies"]["story"] = synthetic_features.refused("busy", 503)


def no_case(d: Documents) -> None:
    d["sampling_options"]["cases"] = []


def option_without_effect(d: Documents) -> None:
    case = option(d, "frequency_penalty")
    for reply in (*case["mtp"], *case["plain"]):
        reply.update(synthetic_features.reply(synthetic_features.TOKENS))


def no_comparison_with_itself(d: Documents) -> None:
    d["token_scores"]["arms"]["plain"] = d["token_scores"]["arms"]["plain"][:1]


def nothing_to_cut(d: Documents) -> None:
    del choice(d["cut_answers"]["whole"]["call"])["calls"]


def no_answer_at_the_limit(d: Documents) -> None:
    d["context_limit"]["arms"]["plain"]["ends"][0]["reply"] = synthetic_features.refused("too long")


def nothing_asked_as_served(d: Documents) -> None:
    d["served_load"]["rows"] = []


def nothing_preempted(d: Documents) -> None:
    crowd(d)["preemptions"] = 0


def seeds_without_effect(d: Documents) -> None:
    for place in (0, 1):
        for reply in sampled(d, place, "plain"):
            reply.update(synthetic_features.reply(synthetic_features.TOKENS))


def no_sample(d: Documents) -> None:
    sampled(d, 0, "plain")[0].update(synthetic_features.refused("busy", 503))


def no_budget_without_mtp(d: Documents) -> None:
    for row in thoughts(d, "plain"):
        row["reply"] = copy.deepcopy(d["thinking_budget"]["arms"]["plain"]["whole"])


def no_thought(d: Documents) -> None:
    thoughts(d, "plain")[0]["reply"] = synthetic_features.refused("busy", 503)


def no_answer_with(feature: str) -> Callable[[Documents], None]:
    def refused(d: Documents) -> None:
        combined(d, feature, "plain")["replies"][0] = synthetic_features.refused("busy", 503)

    return refused


# check -> an empty or contradictory document, and a part of the sentence that the check must give
NOTHING: list[Row] = [
    ("FEATURE-01", no_cold_answer, "got HTTP 503: busy; there is nothing to compare with"),
    ("FEATURE-01", no_hit_at_all, "counts no hit of its prefix cache, so nothing was tested"),
    ("FEATURE-02", no_hit_at_all, "counts no hit of its prefix cache, so nothing was tested"),
    ("FEATURE-03", option_without_effect, '"frequency_penalty" changes nothing without MTP, so it tests nothing'),
    ("FEATURE-03", no_case, "nothing was looked at"),
    ("FEATURE-04", no_case, "nothing was looked at"),
    ("FEATURE-05", no_case, "nothing was looked at"),
    ("FEATURE-06", no_comparison_with_itself, "was not compared with itself"),
    ("FEATURE-07", no_comparison_with_itself, "was not compared with itself"),
    ("FEATURE-09", nothing_to_cut, "have no tool call or no thought, so nothing could be cut"),
    ("FEATURE-08", nothing_to_cut, "have no tool call or no thought, so nothing could be cut"),
    ("FEATURE-10", no_answer_at_the_limit, "got HTTP 400: too long; there is nothing to compare with"),
    ("FEATURE-11", nothing_preempted, "the server with MTP preempted nothing: its cache of 150 blocks held all 3"),
    ("FEATURE-12", seeds_without_effect, "different seeds give the same text without MTP, so nothing was tested"),
    ("FEATURE-12", no_sample, "seed 1 without MTP got HTTP 503: busy; there is nothing to compare with"),
    (
        "FEATURE-13",
        no_budget_without_mtp,
        "without MTP, no budget ends the thought of 10 tokens, so nothing was tested",
    ),
    ("FEATURE-13", no_thought, "a thought without MTP got HTTP 503: busy; there is nothing to compare with"),
    ("FEATURE-14", no_hit_at_all, "counts no hit of its prefix cache, so nothing was tested"),
    ("FEATURE-15", no_answer_with("batch_invariance"), "without MTP got HTTP 503: busy; there is nothing to compare"),
    ("FEATURE-16", no_answer_with("lora"), "without MTP got HTTP 503: busy; there is nothing to compare with"),
    ("FEATURE-17", no_answer_with("expert_parallel"), "without MTP got HTTP 503: busy; there is nothing to compare"),
    ("FEATURE-18", no_answer_with("v2_runner"), "without MTP got HTTP 503: busy; there is nothing to compare with"),
    ("FEATURE-19", nothing_asked_as_served, "no prompt was asked"),
    ("FEATURE-20", all_have_two_workers, "both servers have workers 2, so nothing was tested"),
    ("FEATURE-20", no_answer_with("as_served"), "without MTP got HTTP 503: busy; there is nothing to compare with"),
    ("FEATURE-21", custom_all_reduce_left_on, "both servers have custom all reduce True, so nothing was tested"),
    ("FEATURE-21", no_answer_with("no_custom_all_reduce"), "got HTTP 503: busy; there is nothing to compare with"),
]
