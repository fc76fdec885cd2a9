"""FEATURE: in the configuration that people serve, MTP changes nothing about what they have switched on."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_at_least, expect_none
from conformance.profile.floors import Floors
from conformance.profile.tolerances import Tolerances
from conformance.views.served.combination import Combination
from conformance.views.served.context_limit import ContextLimit
from conformance.views.served.cut_answers import CutAnswers
from conformance.views.served.parallelism import Parallelism
from conformance.views.served.preemption import Preemption
from conformance.views.served.prefix_caching import PrefixCaching
from conformance.views.served.sampling_options import SamplingOptions
from conformance.views.served.seeds import Seeds
from conformance.views.served.served_load import ServedLoad
from conformance.views.served.thinking_budget import ThinkingBudget
from conformance.views.served.token_scores import TokenScores


@check(
    "FEATURE-01",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="paired",
    claim="After a hit of the prefix cache, every answer is the one that the same prompt gets without a hit.",
    upstream="vllm#43559",
)
def test_answers_after_hits(prefix_caching: PrefixCaching, tolerances: Tolerances) -> None:
    """Repeated, longer and evicted prompts, after a client left, tool calls and thoughts. Near-ties may differ."""
    others = prefix_caching.other_texts(tolerances["logit_resolution"], tolerances["widest_tie"])
    expect_none(others, among=prefix_caching.steps, source=prefix_caching)


@check(
    "FEATURE-02",
    level="qualify",
    severity="slow",
    response="correct-launch",
    oracle="self-consistent",
    no_better_oracle="Only vLLM counts the hits of its cache; FEATURE-01 compares the texts that come of them.",
    claim="The prefix cache finds every prompt that it holds, and no other one.",
    upstream="vllm#54360",
)
def test_hits_of_the_prefix_cache(prefix_caching: PrefixCaching) -> None:
    """By vLLM's own counters. The note compares the shares of tokens that are found with MTP and without."""
    expect_none(
        prefix_caching.wrong_counts(), among=prefix_caching.steps, source=prefix_caching, note=prefix_caching.note()
    )


@check(
    "FEATURE-03",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="paired",
    claim="Sampling options choose the same tokens with MTP as without.",
    upstream="vllm#52311",
)
def test_options_that_choose_tokens(sampling_options: SamplingOptions) -> None:
    """Penalties, forbidden and allowed tokens. Options that vLLM refuses with MTP are left to FEATURE-05."""
    tested = len(sampling_options.tested("choice"))
    expect_none(
        sampling_options.objections("choice"), among=tested, source=sampling_options, note=sampling_options.note()
    )


@check(
    "FEATURE-04",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="paired",
    claim="Answers end at the same token and character with MTP as without.",
    upstream="vllm#47616",
)
def test_options_that_end_answers(sampling_options: SamplingOptions) -> None:
    """Stop strings and tokens inside an accepted block, max_tokens from 1 to k + 2, min_tokens, ignore_eos and n."""
    tested = len(sampling_options.tested("ending"))
    expect_none(sampling_options.objections("ending"), among=tested, source=sampling_options)


@check(
    "FEATURE-05",
    level="qualify",
    severity="informational",
    response="guard-client",
    oracle="paired",
    claim="vLLM accepts every sampling option with MTP that it accepts without.",
    upstream="vllm#42744",
)
def test_refused_options(sampling_options: SamplingOptions) -> None:
    """A 4xx that names the option is a limit of this vLLM, so the check is UNSUPPORTED; other refusals fail."""
    wrong = sampling_options.wrong_refusals()
    expect_none(wrong, among=sampling_options.accepted_without, source=sampling_options, note=sampling_options.note())


@check(
    "FEATURE-06",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="self-consistent",
    no_better_oracle="The form of a logprob follows from its definition; FEATURE-07 compares the values.",
    claim="Every token of an answer and of its prompt has its own logprob, a finite number that is at most zero.",
    upstream="vllm#34497",
)
def test_form_of_logprobs(token_scores: TokenScores) -> None:
    """The numbers of tokens, ids and logprobs agree with usage."""
    expect_none(token_scores.malformed(), among=token_scores.answers, source=token_scores)


@check(
    "FEATURE-07",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="paired",
    claim="Logprobs with MTP differ from those without no more than these differ from themselves.",
    upstream="vllm#53488",
)
def test_values_of_logprobs(token_scores: TokenScores, tolerances: Tolerances) -> None:
    """Of answers, up to the first different token, and of prompts."""
    bounds = tolerances["logit_resolution"], tolerances["widest_tie"]
    expect_none(
        token_scores.shifted(*bounds), among=token_scores.answers, source=token_scores, note=token_scores.note(*bounds)
    )


@check(
    "FEATURE-08",
    level="qualify",
    severity="wrong output",
    response="guard-client",
    oracle="paired",
    claim="A tool call that max_tokens cuts is reported as cut, and no call has half a name or another value.",
    upstream="vllm#47903",
)
def test_cut_calls(cut_answers: CutAnswers) -> None:
    """Cut at many places, not streamed and streamed. A call that is complete may be reported as one."""
    expect_none(
        cut_answers.objections("call"),
        among=cut_answers.requests("call"),
        source=cut_answers,
        note=cut_answers.note("call"),
    )


@check(
    "FEATURE-09",
    level="qualify",
    severity="wrong output",
    response="guard-client",
    oracle="independent",
    claim="A thought or text that max_tokens cuts is reported as cut, and has as many tokens as asked for.",
)
def test_cut_thoughts(cut_answers: CutAnswers) -> None:
    """Cut at many places, not streamed and streamed."""
    expect_none(
        cut_answers.objections("thought"),
        among=cut_answers.requests("thought"),
        source=cut_answers,
        note=cut_answers.note("thought"),
    )


@check(
    "FEATURE-10",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="paired",
    claim="Prompts longer than a chunk are answered as without MTP, up to the last token of the context.",
)
def test_long_prompts(context_limit: ContextLimit, tolerances: Tolerances) -> None:
    """Among running answers and alone. A prompt that leaves no room for a token gets a 4xx."""
    wrong = context_limit.objections(tolerances["logit_resolution"], tolerances["widest_tie"])
    expect_none(wrong, among=context_limit.requests, source=context_limit)


@check(
    "FEATURE-11",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="paired",
    claim="Requests that vLLM preempts get the same answers, in full, and as many drafts are accepted.",
)
def test_preempted_requests(preemption: Preemption, tolerances: Tolerances) -> None:
    """More requests at once than the cache holds. If vLLM preempts none of them, the check is an ERROR."""
    bounds = tolerances["logit_resolution"], tolerances["widest_tie"], tolerances["acceptance_kept"]
    expect_none(preemption.objections(*bounds), among=preemption.requests, source=preemption, note=preemption.note())


@check(
    "FEATURE-12",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="paired",
    claim="With a seed, a request that is repeated gets the same text, and another seed gives another text.",
    upstream="vllm#6038",
)
def test_seeds(seeds: Seeds) -> None:
    """At temperature 1, alone, for one answer and for n of them. The note compares the texts with those without MTP."""
    expect_none(seeds.objections(), among=seeds.requests, source=seeds, note=seeds.note())


@check(
    "FEATURE-13",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="paired",
    claim="A thought ends at its budget with MTP as without.",
    upstream="vllm#39573",
)
def test_thinking_budgets(thinking_budget: ThinkingBudget, tolerances: Tolerances) -> None:
    """Budgets that end inside a block of drafted tokens and at its ends; alone, among others and streamed."""
    wrong = thinking_budget.objections(tolerances["logit_resolution"], tolerances["widest_tie"])
    expect_none(wrong, among=thinking_budget.requests, source=thinking_budget, note=thinking_budget.note())


@check(
    "FEATURE-14",
    level="qualify",
    severity="slow",
    response="correct-launch",
    oracle="self-consistent",
    no_better_oracle="Only vLLM counts the tokens that it computes; only the length of the prompt is known besides.",
    claim="vLLM computes the tokens of a prompt that its prefix cache does not have, and no others.",
    upstream="vllm#54360",
)
def test_hits_are_used(prefix_caching: PrefixCaching) -> None:
    """By vLLM's own counters: the tokens that were found and those that were computed are the prompt."""
    expect_none(prefix_caching.wasted_hits(), among=prefix_caching.steps, source=prefix_caching)


@check(
    "FEATURE-15",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="paired",
    claim="With VLLM_BATCH_INVARIANT, every answer with MTP is the one without, to the last token.",
    upstream="vllm#54506",
)
def test_batch_invariance(batch_invariance: Combination) -> None:
    """A few at a time and in a crowd, preempted where the cache is small. There are no near-ties."""
    found = batch_invariance
    expect_none(found.objections(), among=found.requests, source=found, note=found.note())


@check(
    "FEATURE-16",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="paired",
    claim="With LoRA switched on, the model itself answers with MTP as without.",
)
def test_lora(lora: Combination, tolerances: Tolerances) -> None:
    """No adapter is loaded, because none is known for every pair."""
    bounds = tolerances["logit_resolution"], tolerances["widest_tie"]
    expect_none(lora.objections(*bounds), among=lora.requests, source=lora, note=lora.note())


@check(
    "FEATURE-17",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="paired",
    claim="With expert parallelism, answers with MTP are those without.",
)
def test_expert_parallelism(expert_parallel: Combination, tolerances: Tolerances) -> None:
    """With one worker, vLLM gives it every expert, and the check is UNSUPPORTED."""
    wrong = expert_parallel.objections(tolerances["logit_resolution"], tolerances["widest_tie"])
    expect_none(wrong, among=expert_parallel.requests, source=expert_parallel, note=expert_parallel.note())


@check(
    "FEATURE-18",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="paired",
    claim="With the other model runner, answers with MTP are those without.",
    upstream="vllm#52311",
)
def test_other_model_runner(other_model_runner: Combination, tolerances: Tolerances) -> None:
    """The one that the other checks do not use: V2 on a CPU, else V1 (VLLM_USE_V2_MODEL_RUNNER)."""
    wrong = other_model_runner.objections(tolerances["logit_resolution"], tolerances["widest_tie"])
    expect_none(wrong, among=other_model_runner.requests, source=other_model_runner, note=other_model_runner.note())


@check(
    "FEATURE-19",
    level="qualify",
    severity="slow",
    response="measure-again",
    oracle="paired",
    claim="In the configuration that people serve, requests in a row are faster with MTP.",
)
def test_mtp_pays_as_served(served_load: ServedLoad, floors: Floors) -> None:
    """The note says how the speedup differs from the measured one, by prompt length, and what the difference is."""
    what = "speedup in a row, as people serve it,"
    expect_at_least(served_load.speedup(), floors["pays"], source=served_load, what=what, note=served_load.note())


@check(
    "FEATURE-20",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="paired",
    claim="One worker gives the answers that several workers give (tensor parallelism).",
)
def test_one_worker(one_worker: Parallelism, tolerances: Tolerances) -> None:
    """With MTP and without. Near-ties may differ, because workers add up their parts in another order."""
    wrong = one_worker.objections(tolerances["logit_resolution"], tolerances["widest_tie"])
    expect_none(wrong, among=one_worker.compared, source=one_worker, note=one_worker.note())


@check(
    "FEATURE-21",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="paired",
    claim="Without vLLM's custom all-reduce, the workers give the same answers.",
)
def test_other_all_reduce(no_custom_all_reduce: Parallelism, tolerances: Tolerances) -> None:
    """NCCL adds up the parts instead (--disable-custom-all-reduce). With MTP and without; near-ties may differ."""
    found = no_custom_all_reduce
    wrong = found.objections(tolerances["logit_resolution"], tolerances["widest_tie"])
    expect_none(wrong, among=found.compared, source=found, note=found.note())
