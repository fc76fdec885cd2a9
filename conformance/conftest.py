"""Fixtures of ``pytest conformance/``: the arguments of the checks. The hooks are in ``run/pytest_plugin.py``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import pytest

from conformance import FIXTURES
from conformance.errors import ObservationError, Unsupported
from conformance.evidence.folder import Evidence
from conformance.judging.check import declaration
from conformance.judging.sequential import Looks
from conformance.observers import observer
from conformance.profile.arm_facts import load_arm_facts
from conformance.profile.combined_features import other_runner
from conformance.profile.facts import Facts, load_facts
from conformance.profile.floors import Floors
from conformance.profile.known_rates import load_plan
from conformance.profile.moe_facts import load_moe_facts
from conformance.profile.profile import Profile
from conformance.profile.profile_floors import floors_of, workload_floors_of
from conformance.profile.tolerances import Tolerances, load_tolerances
from conformance.profile.workload_floors import WorkloadFloors
from conformance.reference.numeric_error import Bound, Likeness, load_bounds, load_likeness
from conformance.serving.pool import ServerPool
from conformance.views.answers import Tools
from conformance.views.bad_requests import Misuse
from conformance.views.bench import Bench
from conformance.views.calibration import Calibration
from conformance.views.chat import Chat
from conformance.views.cuda_graphs import CudaGraphs
from conformance.views.first_token import FirstTokens
from conformance.views.geometry import Geometry
from conformance.views.gold import Gold, NearTie, load_near_tie
from conformance.views.inside import DraftLoad, Kernels, Moe, MoeRefusal
from conformance.views.load import Load
from conformance.views.moe_oracle import MoeOracle
from conformance.views.numerics import Numerics
from conformance.views.parity import Parity
from conformance.views.parsers import Parsers
from conformance.views.published import Published
from conformance.views.resolved_config import ResolvedConfig
from conformance.views.sampling import Sampling
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
from conformance.views.soak import Energy, Soak
from conformance.views.static import Environment, Headers, Refusals
from conformance.views.steps.graph_steps import GraphSteps
from conformance.views.steps.k_by_batch import KByBatch
from conformance.views.steps.step_time import StepTime
from conformance.views.sweep import Sweep
from conformance.views.task_score import TaskScore
from conformance.views.texts import Form, Texts
from conformance.views.wiring import Attention, PairConfig, Wiring

if TYPE_CHECKING:
    from conformance.run.pytest_plugin import Judge

pytest_plugins = ("conformance.run.pytest_plugin",)

Observe = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="session")
def judge(pytestconfig: pytest.Config) -> Judge:
    """The plugin's judge, made from the command-line options."""
    return cast("Judge", pytestconfig.pluginmanager.get_plugin("conformance-judge"))


@pytest.fixture(scope="session")
def profile(judge: Judge) -> Profile:
    """The hardware, pair and level of this session."""
    return judge.session.profile


@pytest.fixture(scope="session")
def evidence(judge: Judge) -> Evidence:
    """The directory of the observations."""
    return judge.session.evidence


@pytest.fixture(scope="session")
def servers(judge: Judge) -> ServerPool:
    """The servers; they start on first use, and the process that began the session stops them."""
    return judge.servers


@pytest.fixture(scope="session")
def floors(profile: Profile) -> Floors:
    """The lower bounds of this hardware and pair."""
    return floors_of(profile)


@pytest.fixture(scope="session")
def workload_floors(profile: Profile) -> WorkloadFloors:
    """The lower bounds of acceptance length on kinds of prompts."""
    return workload_floors_of(profile)


@pytest.fixture(scope="session")
def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Observe:
    """Return an observation by its name: from the evidence, or made now if it is not there."""
    return lambda name: evidence.observe(name, lambda: observer(name)(profile, servers, evidence), servers.tell)


@pytest.fixture(scope="session")
def environment(observe: Observe) -> Environment:
    """The installed, imported and locked versions."""
    return Environment.of(observe("environment"))


@pytest.fixture(scope="session")
def draft_checkpoint(observe: Observe) -> Headers:
    """The tensors and config of the draft's checkpoint."""
    return Headers.of_draft(observe("checkpoint"))


@pytest.fixture(scope="session")
def published(observe: Observe, facts: Facts) -> Published:
    """Both checkpoints, compared with the facts about the published checkpoints."""
    return Published.of(observe("checkpoint"), facts)


@pytest.fixture(scope="session")
def refusals(observe: Observe) -> Refusals:
    """The reasons why the pair must not be served."""
    return Refusals.of(observe("refusals"))


@pytest.fixture(scope="session")
def facts() -> Facts:
    """The facts about the published checkpoints."""
    return load_facts()


@pytest.fixture(scope="session")
def geometry(observe: Observe, facts: Facts) -> Geometry:
    """The draft as this vLLM builds it at every published size."""
    return Geometry.of(observe("geometry"), facts)


@pytest.fixture(scope="session")
def draft_load(observe: Observe) -> DraftLoad:
    """The draft as vLLM loaded it."""
    return DraftLoad.of(observe("draft_load"))


@pytest.fixture(scope="session")
def pair_config(observe: Observe) -> PairConfig:
    """Both configs of the pair."""
    return PairConfig.of(observe("checkpoint"))


@pytest.fixture(scope="session")
def wiring(observe: Observe) -> Wiring:
    """How the draft is connected to its target."""
    return Wiring.of(observe("wiring"))


@pytest.fixture(scope="session")
def attention(observe: Observe, profile: Profile) -> Attention:
    """The backends of the attention layers."""
    return Attention.of(observe("wiring"), profile)


@pytest.fixture(scope="session")
def resolved_config(observe: Observe) -> ResolvedConfig:
    """The configuration that vLLM arrived at in each server."""
    return ResolvedConfig.of(observe("resolved_config"), load_arm_facts())


@pytest.fixture(scope="session")
def numerics(observe: Observe) -> Numerics:
    """The outputs of single modules, and their reference."""
    return Numerics.of(observe("numerics"))


@pytest.fixture(scope="session")
def parity(observe: Observe, tolerances: Tolerances) -> Parity:
    """Captured draft steps, and the same steps in transformers."""
    return Parity.of(observe("parity"), tolerances["parity_proposals"])


@pytest.fixture(scope="session")
def gold(observe: Observe, load: Looks[Load]) -> Gold:
    """Greedy answers, and those of transformers."""
    found = observe("gold")
    return Gold.of(load.first(), found, FIXTURES / "gold")


@pytest.fixture(scope="session")
def near_tie() -> NearTie:
    """The gap at which a greedy answer may have either of two tokens."""
    return load_near_tie(FIXTURES / "facts" / "gold.toml")


@pytest.fixture(scope="session")
def numeric_bounds(profile: Profile) -> Mapping[str, Bound]:
    """The bounds for the relative error of modules."""
    return load_bounds(FIXTURES / "facts" / "numerics.toml", on_gpu=profile.hardware.sm is not None)


@pytest.fixture(scope="session")
def moe(observe: Observe, profile: Profile) -> Moe:
    """The backend that serves the target's experts."""
    return Moe.of(observe("moe"), profile)


@pytest.fixture(scope="session")
def kernels(observe: Observe, moe: Moe) -> Kernels:
    """The kernels that the device executes."""
    return Kernels.of(observe("kernels"), moe, load_moe_facts().kernels)


@pytest.fixture(scope="session")
def moe_refusal(observe: Observe) -> MoeRefusal:
    """The result of a start with a backend that this hardware does not support."""
    return MoeRefusal.of(observe("moe_refusal"))


@pytest.fixture(scope="session")
def moe_oracle(observe: Observe) -> MoeOracle:
    """The kernel that vLLM would choose on every device."""
    return MoeOracle.of(observe("moe_oracle"), load_moe_facts().expected)


@pytest.fixture(scope="session")
def cuda_graphs(observe: Observe) -> CudaGraphs:
    """The CUDA graph that vLLM would use for every batch."""
    return CudaGraphs.of(observe("cuda_graphs"))


@pytest.fixture(scope="session")
def graph_steps(observe: Observe) -> GraphSteps:
    """Steps by the kind of their CUDA graph, and the speed by the number of requests."""
    return GraphSteps.of(observe("graph_steps"))


@pytest.fixture(scope="session")
def tools(observe: Observe) -> Tools:
    """Tool calls, not streamed and streamed."""
    return Tools.of(observe("tools"))


@pytest.fixture(scope="session")
def parsers(observe: Observe) -> Parsers:
    """Trials of the parser as a function."""
    return Parsers.of(observe("parsers"))


@pytest.fixture
def chat(request: pytest.FixtureRequest, observe: Observe) -> Chat:
    """The chats of the groups that the check declares; their correct answers are known."""
    check = declaration(request.function)
    assert check
    return Chat.of([observe(name) for name in check.chat_observations])


@pytest.fixture(scope="session")
def bad_requests(observe: Observe) -> Misuse:
    """Invalid requests, and clients that disconnected."""
    return Misuse.of(observe("bad_requests"))


@pytest.fixture(scope="session")
def load(observe: Observe, profile: Profile, evidence: Evidence) -> Looks[Load]:
    """The same prompts with and without MTP, in group-sequential looks."""

    def seen(look: int) -> Load | None:
        names = ["load", *(f"load-{number}" for number in range(2, look + 1))]
        if look > 1 and not evidence.recording and not evidence.holds(names[-1]):
            return None
        return Load.of([observe(name) for name in names])

    return Looks(profile.sizes.looks, functools.cache(seen))


@pytest.fixture(scope="session")
def known_config(observe: Observe) -> ResolvedConfig | None:
    """The configurations of the servers, where they only explain a failure; None if they are not known."""
    try:
        return ResolvedConfig.of(observe("resolved_config"), load_arm_facts())
    except (ObservationError, Unsupported):
        return None


@pytest.fixture(scope="session")
def first_tokens(load: Looks[Load], known_config: ResolvedConfig | None) -> FirstTokens:
    """The time to the first token with and without MTP."""
    return FirstTokens.of(load.first(), load_arm_facts(), known_config)


@pytest.fixture(scope="session")
def step_time(load: Looks[Load], known_config: ResolvedConfig | None) -> StepTime:
    """The time of a step with drafts and without."""
    return StepTime.of(load.first(), load_arm_facts(), known_config)


@pytest.fixture(scope="session")
def texts(observe: Observe) -> Texts:
    """The places where answers with and without MTP differ."""
    return Texts.of(observe("near_ties"))


@pytest.fixture(scope="session")
def sampling(observe: Observe) -> Sampling:
    """Tokens sampled with and without MTP."""
    return Sampling.of(observe("sampling"))


@pytest.fixture(scope="session")
def likeness() -> Likeness:
    """The rule by which two samples count as drawn from one distribution."""
    return load_likeness(FIXTURES / "facts" / "sampling.toml")


@pytest.fixture(scope="session")
def task_score(observe: Observe, tolerances: Tolerances) -> TaskScore:
    """Questions with checkable answers, answered with and without MTP."""
    return TaskScore.of(observe("task_score"), tolerances["task_score_least"])


@pytest.fixture(scope="session")
def form(observe: Observe, load: Looks[Load]) -> Form:
    """The endings, lengths and repetitions of the answers."""
    return Form.of(load.first(), observe("checkpoint"))


@pytest.fixture(scope="session")
def tolerances() -> Tolerances:
    """How far two results that should be equal may differ."""
    return load_tolerances()


@pytest.fixture(scope="session")
def calibration(observe: Observe) -> Calibration:
    """Draft tokens that are accepted at random, at known rates."""
    return Calibration.of(observe("calibration"), load_plan())


@pytest.fixture(scope="session")
def sweep(observe: Observe) -> Sweep:
    """The time and the acceptance at every k."""
    return Sweep.of(observe("sweep"))


@pytest.fixture(scope="session")
def k_by_batch(observe: Observe) -> KByBatch:
    """Every k at several numbers of requests at once."""
    return KByBatch.of(observe("k_by_batch"))


@pytest.fixture(scope="session")
def bench(observe: Observe) -> Bench:
    """Measurements of our client and of vllm bench serve."""
    return Bench.of(observe("bench"))


@pytest.fixture(scope="session")
def prefix_caching(observe: Observe) -> PrefixCaching:
    """Answers to prompts that the prefix cache holds, and to those that it does not."""
    return PrefixCaching.of(observe("prefix_caching"))


@pytest.fixture(scope="session")
def sampling_options(observe: Observe) -> SamplingOptions:
    """Every sampling option with MTP and without."""
    return SamplingOptions.of(observe("sampling_options"))


@pytest.fixture(scope="session")
def token_scores(observe: Observe) -> TokenScores:
    """Logprobs with MTP and without."""
    return TokenScores.of(observe("token_scores"))


@pytest.fixture(scope="session")
def cut_answers(observe: Observe) -> CutAnswers:
    """Calls and thoughts that max_tokens cut."""
    return CutAnswers.of(observe("cut_answers"))


@pytest.fixture(scope="session")
def context_limit(observe: Observe) -> ContextLimit:
    """Long prompts, up to the end of the context."""
    return ContextLimit.of(observe("context_limit"))


@pytest.fixture(scope="session")
def preemption(observe: Observe) -> Preemption:
    """Requests that vLLM preempted."""
    return Preemption.of(observe("preemption"))


@pytest.fixture(scope="session")
def seeds(observe: Observe) -> Seeds:
    """Texts that were sampled with seeds."""
    return Seeds.of(observe("seeds"))


@pytest.fixture(scope="session")
def thinking_budget(observe: Observe) -> ThinkingBudget:
    """Thoughts that a budget ends."""
    return ThinkingBudget.of(observe("thinking_budget"))


@pytest.fixture(scope="session")
def combination_support(observe: Observe) -> Observe:
    """Return an observation of servers with one more feature; vLLM was asked before, without a server, if it has it."""
    observe("combination_support")
    return observe


@pytest.fixture(scope="session")
def batch_invariance(combination_support: Observe) -> Combination:
    """Answers of servers with batch invariance."""
    return Combination.of(combination_support("combination-batch_invariance"))


@pytest.fixture(scope="session")
def lora(combination_support: Observe) -> Combination:
    """Answers of servers with LoRA switched on."""
    return Combination.of(combination_support("combination-lora"))


@pytest.fixture(scope="session")
def expert_parallel(combination_support: Observe) -> Combination:
    """Answers of servers with expert parallelism."""
    return Combination.of(combination_support("combination-expert_parallel"))


@pytest.fixture(scope="session")
def other_model_runner(combination_support: Observe, profile: Profile) -> Combination:
    """Answers of servers with the model runner that the others do not use."""
    return Combination.of(combination_support(f"combination-{other_runner(profile.hardware)}"))


@pytest.fixture(scope="session")
def one_worker(combination_support: Observe) -> Parallelism:
    """Answers of one worker, and those of the servers with several."""
    return Parallelism.of(*map(combination_support, ("combination-one_worker", "combination-as_served")))


@pytest.fixture(scope="session")
def no_custom_all_reduce(combination_support: Observe) -> Parallelism:
    """Answers of workers without custom all-reduce, and those with it."""
    return Parallelism.of(*map(combination_support, ("combination-no_custom_all_reduce", "combination-as_served")))


@pytest.fixture(scope="session")
def served_load(observe: Observe, load: Looks[Load], known_config: ResolvedConfig | None) -> ServedLoad:
    """The speedup as people serve it, beside the measured one."""
    return ServedLoad.of(observe("served_load"), load.first(), known_config, load_arm_facts())


@pytest.fixture(scope="session")
def soak(observe: Observe, tolerances: Tolerances) -> Soak:
    """A load that was sustained for minutes."""
    return Soak.of(observe("soak"), tolerances["soak_warm_up"])


@pytest.fixture(scope="session")
def energy(observe: Observe) -> Energy:
    """The energy of a load with MTP and without."""
    return Energy.of(observe("energy"))
