"""Judge a check on documents, through the views that its fixtures would make of them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from support import synthetic

from conformance import FIXTURES, PACKAGE
from conformance.judging.check import declaration, judge, outcome_of
from conformance.judging.sequential import Looks
from conformance.judging.verdict import Outcome
from conformance.profile.arm_facts import load_arm_facts
from conformance.profile.floors import load_floors
from conformance.profile.known_rates import load_plan
from conformance.profile.moe_facts import load_moe_facts
from conformance.profile.profile import load_profile
from conformance.profile.tolerances import load_tolerances
from conformance.profile.workload_floors import load_workload_floors
from conformance.reference.numeric_error import load_bounds, load_likeness
from conformance.views.answers import Tools
from conformance.views.bad_requests import Misuse
from conformance.views.bench import Bench
from conformance.views.calibration import Calibration
from conformance.views.chat import Chat
from conformance.views.cuda_graphs import CudaGraphs
from conformance.views.first_token import FirstTokens
from conformance.views.geometry import Geometry
from conformance.views.gold import Gold, load_near_tie
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

Documents = synthetic.Documents
PROFILE = load_profile("cpu", "micro-26b-a4b-nvfp4", "qualify")
Builders = dict[str, Callable[[Documents], Any]]
BUILDERS: Builders = {
    "environment": lambda d: Environment.of(d["environment"]),
    "draft_checkpoint": lambda d: Headers.of_draft(d["checkpoint"]),
    "geometry": lambda d: Geometry.of(d["geometry"], synthetic.FACTS),
    "published": lambda d: Published.of(d["checkpoint"], synthetic.FACTS),
    "refusals": lambda d: Refusals.of(d["refusals"]),
    "draft_load": lambda d: DraftLoad.of(d["draft_load"]),
    "pair_config": lambda d: PairConfig.of(d["checkpoint"]),
    "wiring": lambda d: Wiring.of(d["wiring"]),
    "attention": lambda d: Attention.of(d["wiring"], PROFILE),
    "numerics": lambda d: Numerics.of(d["numerics"]),
    "numeric_bounds": lambda _: load_bounds(FIXTURES / "facts" / "numerics.toml", on_gpu=False),
    "parity": lambda d: Parity.of(d["parity"], load_tolerances()["parity_proposals"]),
    "gold": lambda d: Gold.of(Load.of([d["load"]]), d["gold"], FIXTURES / "gold"),
    "near_tie": lambda _: load_near_tie(FIXTURES / "facts" / "gold.toml"),
    "moe": lambda d: Moe.of(d["moe"], PROFILE),
    "kernels": lambda d: Kernels.of(d["kernels"], Moe.of(d["moe"], PROFILE), load_moe_facts().kernels),
    "moe_refusal": lambda d: MoeRefusal.of(d["moe_refusal"]),
    "moe_oracle": lambda d: MoeOracle.of(d["moe_oracle"], load_moe_facts().expected),
    "calibration": lambda d: Calibration.of(d["calibration"], load_plan()),
    "cuda_graphs": lambda d: CudaGraphs.of(d["cuda_graphs"]),
    "graph_steps": lambda d: GraphSteps.of(d["graph_steps"]),
    "resolved_config": lambda d: ResolvedConfig.of(d["resolved_config"], load_arm_facts()),
    "first_tokens": lambda d: FirstTokens.of(
        Load.of([d["load"]]), load_arm_facts(), ResolvedConfig.of(d["resolved_config"], load_arm_facts())
    ),
    "step_time": lambda d: StepTime.of(
        Load.of([d["load"]]), load_arm_facts(), ResolvedConfig.of(d["resolved_config"], load_arm_facts())
    ),
    "tools": lambda d: Tools.of(d["tools"]),
    "parsers": lambda d: Parsers.of(d["parsers"]),
    "bad_requests": lambda d: Misuse.of(d["bad_requests"]),
    "load": lambda d: Looks(1, lambda _: Load.of([d["load"]])),
    "task_score": lambda d: TaskScore.of(d["task_score"], load_tolerances()["task_score_least"]),
    "texts": lambda d: Texts.of(d["near_ties"]),
    "form": lambda d: Form.of(Load.of([d["load"]]), d["checkpoint"]),
    "tolerances": lambda _: load_tolerances(),
    "sampling": lambda d: Sampling.of(d["sampling"]),
    "likeness": lambda _: load_likeness(FIXTURES / "facts" / "sampling.toml"),
    "k_by_batch": lambda d: KByBatch.of(d["k_by_batch"]),
    "sweep": lambda d: Sweep.of(d["sweep"]),
    "bench": lambda d: Bench.of(d["bench"]),
    "prefix_caching": lambda d: PrefixCaching.of(d["prefix_caching"]),
    "sampling_options": lambda d: SamplingOptions.of(d["sampling_options"]),
    "token_scores": lambda d: TokenScores.of(d["token_scores"]),
    "cut_answers": lambda d: CutAnswers.of(d["cut_answers"]),
    "context_limit": lambda d: ContextLimit.of(d["context_limit"]),
    "preemption": lambda d: Preemption.of(d["preemption"]),
    "seeds": lambda d: Seeds.of(d["seeds"]),
    "thinking_budget": lambda d: ThinkingBudget.of(d["thinking_budget"]),
    "batch_invariance": lambda d: Combination.of(d["combination-batch_invariance"]),
    "lora": lambda d: Combination.of(d["combination-lora"]),
    "expert_parallel": lambda d: Combination.of(d["combination-expert_parallel"]),
    **{
        feature: lambda d, feature=feature: Parallelism.of(d[f"combination-{feature}"], d["combination-as_served"])
        for feature in ("one_worker", "no_custom_all_reduce")
    },
    "other_model_runner": lambda d: Combination.of(d["combination-v2_runner"]),
    "served_load": lambda d: ServedLoad.of(
        d["served_load"],
        Load.of([d["load"]]),
        ResolvedConfig.of(d["resolved_config"], load_arm_facts()),
        load_arm_facts(),
    ),
    "soak": lambda d: Soak.of(d["soak"], 0.1),
    "energy": lambda d: Energy.of(d["energy"]),
    "workload_floors": lambda _: load_workload_floors(FIXTURES / "workloads", "micro-26b-a4b-nvfp4", 4),
    "floors": lambda _: load_floors(FIXTURES / "floors", "cpu", "micro-26b-a4b-nvfp4", 4),
}
MODULES = [importlib.import_module(f"conformance.{path.stem}") for path in sorted(PACKAGE.glob("test_*.py"))]
FUNCTIONS = {declared.id: value for m in MODULES for value in vars(m).values() if (declared := declaration(value))}


def outcome(id: str, documents: Documents) -> Outcome:
    """A check judged on these documents."""
    return judged(id, documents, {})


def chat_observations(id: str) -> tuple[str, ...]:
    """The observations of the chats that a check judges."""
    declared = declaration(FUNCTIONS[id])
    assert declared
    return declared.chat_observations


def judged(id: str, documents: Documents, special: Builders) -> Outcome:
    """The same with some other views; an exception from a view counts as in pytest's setup phase."""
    function = FUNCTIONS[id]
    builders = BUILDERS | {"chat": lambda d: Chat.of([d[name] for name in chat_observations(id)])} | special
    try:
        arguments = {name: builders[name](documents) for name in inspect.signature(function).parameters}
    except Exception as error:
        return outcome_of(error)
    return judge(function, arguments)
