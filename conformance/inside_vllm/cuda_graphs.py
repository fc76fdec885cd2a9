"""``python -m conformance.inside_vllm.cuda_graphs``: the CUDA graph of every batch of decoding, without a GPU.

Standard input is a JSON list of settings (see ``Settings``). The last line of standard output is JSON: the version, and
for each of the settings the captured sizes and the graph that vLLM's own dispatcher picks for 1 … ``max_num_seqs``
requests that each decode one step. It is a process of its own, because it replaces vLLM's platform by a stand-in.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

from conformance.errors import Unsupported
from conformance.inside_vllm.adapters import follow, upstream, vllm_version
from conformance.inside_vllm.oracle_adapters import device

MANAGER = "vllm.v1.worker.gpu.cudagraph_utils"  # of the new model runner
DISPATCHER = "vllm.v1.cudagraph_dispatcher"  # of the old one
Dispatch = Callable[[int], str]  # from a number of requests to FULL, PIECEWISE or NONE


@dataclass(frozen=True)
class Settings:
    """What decides about graphs; sizes are in tokens, and None where a server was started without the option."""

    sm: int
    k: int  # 0 without MTP
    max_num_seqs: int
    max_num_batched_tokens: int
    maximum: int | None  # --max-cudagraph-capture-size
    sizes: list[int] | None  # --cudagraph-capture-sizes
    new_runner: bool

    @property
    def query(self) -> int:
        """Tokens of one request in a step of decoding."""
        return 1 + self.k


def main() -> None:
    """Answer the questions in standard input."""
    asked = [Settings(**row) for row in json.load(sys.stdin)]
    try:
        answers = [graphs(settings) for settings in asked]
    except Unsupported as reason:
        print(json.dumps({"unsupported": str(reason)}))
    else:
        print(json.dumps({"vllm_version": vllm_version(), "answers": answers}))


def graphs(settings: Settings) -> dict[str, Any]:
    """The captured sizes, and the numbers of requests by the kind of their graph; or vLLM's refusal.

    Raises:
        Unsupported: this vLLM lacks a name that the question needs.
    """
    # Before the stand-in, because what a module of vLLM imports depends on the platform.
    kind = upstream(MANAGER, "CudaGraphManager") if settings.new_runner else upstream(DISPATCHER, "CudagraphDispatcher")
    with device(settings.sm), ExitStack() as stack:
        try:
            config = vllm_config(settings)
            dispatch = (_new_runner if settings.new_runner else _old_runner)(kind, config, settings, stack)
        except (ValueError, AssertionError) as refusal:
            return {"sizes": [], "batches": {}, "error": f"{type(refusal).__name__}: {refusal}"}
        batches: dict[str, list[int]] = defaultdict(list)
        for requests in range(1, settings.max_num_seqs + 1):
            batches[dispatch(requests)].append(requests)
        return {"sizes": list(config.compilation_config.cudagraph_capture_sizes), "batches": batches, "error": None}


def vllm_config(settings: Settings) -> Any:
    """A VllmConfig with nothing but what decides about graphs; vLLM's own code has computed the sizes."""
    kind = upstream("vllm.config.vllm", "VllmConfig")
    modes, levels = (upstream("vllm.config.compilation", name) for name in ("CUDAGraphMode", "CompilationMode"))
    wanted = {"max_cudagraph_capture_size": settings.maximum, "cudagraph_capture_sizes": settings.sizes}
    given = {name: value for name, value in wanted.items() if value is not None}
    compilation = upstream("vllm.config.compilation", "CompilationConfig")(mode=follow(levels, "VLLM_COMPILE"), **given)
    compilation.cudagraph_mode = follow(modes, "FULL_AND_PIECEWISE")  # vLLM's default
    compilation.splitting_ops = list(follow(compilation, "_attention_ops"))
    compilation.compile_sizes = compilation.compile_sizes or []
    drafts = SimpleNamespace(
        num_speculative_tokens=settings.k,
        num_speculative_tokens_per_batch_size=None,
        max_num_new_slots_for_drafting=0,
        uses_dynamic_speculative_decoding=lambda: False,
    )
    config = object.__new__(kind)
    vars(config).update(
        model_config=SimpleNamespace(enforce_eager=False),
        compilation_config=compilation,
        scheduler_config=SimpleNamespace(
            max_num_seqs=settings.max_num_seqs, max_num_batched_tokens=settings.max_num_batched_tokens
        ),
        speculative_config=drafts if settings.k else None,
        parallel_config=SimpleNamespace(tensor_parallel_size=1, data_parallel_size=1),
        cache_config=SimpleNamespace(use_kda_recoverssm=False),
        lora_config=None,
        diffusion_config=None,
        performance_mode="balanced",
    )
    follow(kind, "_set_cudagraph_sizes")(config)
    return config


def _new_runner(kind: Any, config: Any, settings: Settings, stack: ExitStack) -> Dispatch:
    """The dispatch of ``CudaGraphManager``, as if everything had been captured."""
    alone = SimpleNamespace(is_first_rank=True, is_last_rank=True)
    no_gpu = SimpleNamespace(get_global_graph_pool=lambda: None)
    stand_ins = {"get_pp_group": lambda: alone, "current_platform": no_gpu}
    stack.enter_context(mock.patch.dict(vars(sys.modules[MANAGER]), stand_ins))
    manager = kind(config, None, config.compilation_config.cudagraph_mode, settings.query)
    manager._graphs_captured = True

    def dispatch(requests: int) -> str:
        given = {"num_reqs": requests, "num_tokens": requests * settings.query, "uniform_token_count": settings.query}
        found = manager.dispatch(**_taken(manager.dispatch, given | {"num_active_loras": 0}))
        return str(follow(found, "cg_mode.name"))

    return dispatch


def _old_runner(kind: Any, config: Any, settings: Settings, _stack: ExitStack) -> Dispatch:
    """The dispatch of ``CudagraphDispatcher``; the old runner first rounds the sizes to whole requests."""
    compilation = config.compilation_config
    if settings.k:
        follow(compilation, "adjust_cudagraph_sizes_for_spec_decode")(settings.query)
    dispatcher = kind(config)
    dispatcher.initialize_cudagraph_keys(compilation.cudagraph_mode, settings.query)

    def dispatch(requests: int) -> str:
        mode, _ = dispatcher.dispatch(requests * settings.query, uniform_decode=True)
        return str(mode.name)

    return dispatch


def _taken(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that this version of the function takes."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in given.items() if name in known}


if __name__ == "__main__":
    main()
