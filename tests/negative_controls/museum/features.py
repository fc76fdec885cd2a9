"""Defects of what people switch on, put back into the engine of a running server; each returns how it is undone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from negative_controls.museum.undo import Undo, replaced

LAST_END = 106  # the largest of the miniature's tokens that end a turn


def block_of_another_prefix(_: Any) -> Undo:
    """Prompts of one cache share their blocks, whatever their tokens are."""
    from vllm.v1.core import kv_cache_utils

    right = kv_cache_utils.hash_block_tokens

    def blind(function: Any, parent: Any, _tokens: Any, extra_keys: Any = None) -> Any:
        return right(function, parent, (), extra_keys)

    return replaced(kv_cache_utils, "hash_block_tokens", blind)


def no_hit_with_mtp(_: Any) -> Undo:
    """The lookup in the prefix cache always comes back empty (vllm#40624, vllm#54360)."""
    from vllm.v1.core.kv_cache_coordinator import HybridKVCacheCoordinator

    right = HybridKVCacheCoordinator.find_longest_cache_hit

    def empty(self: Any, block_hashes: Any, _longest: int) -> Any:
        return right(self, block_hashes, 0)

    return replaced(HybridKVCacheCoordinator, "find_longest_cache_hit", empty)


def hits_counted_and_not_used(_: Any) -> Undo:
    """What the lookup in the prefix cache finds is counted, and then computed again."""
    from vllm.v1.core.kv_cache_manager import KVCacheManager

    look_up, count, found = KVCacheManager.get_computed_blocks, KVCacheManager.record_prefix_cache_stats, {}

    def forgetting(self: Any, request: Any) -> Any:
        _, hits, boundary = look_up(self, request)
        found[request.request_id] = hits
        return self.empty_kv_cache_blocks, 0, boundary

    def counting(self: Any, request: Any, _hits: int) -> None:
        count(self, request, found.pop(request.request_id, 0))

    undo = [
        replaced(KVCacheManager, "get_computed_blocks", forgetting),
        replaced(KVCacheManager, "record_prefix_cache_stats", counting),
    ]
    return lambda: [each() for each in undo] and None


def seed_ignored(_: Any) -> Undo:
    """Tokens of a step that verifies a draft are drawn without the request's seed (vllm#6038)."""
    from vllm.v1.sample.rejection_sampler import RejectionSampler

    right = RejectionSampler.forward

    def unseeded(self: Any, metadata: Any, probs: Any, logits: Any, sampling: Any) -> Any:
        return right(self, metadata, probs, logits, dataclasses.replace(sampling, generators={}))

    return replaced(RejectionSampler, "forward", unseeded)


def budget_ignored(_: Any) -> Undo:
    """A thinking budget does not reach the tokens of a step that verifies a draft (vllm#39573, vllm#54906)."""
    from vllm.v1.sample.thinking_budget_state import ThinkingBudgetStateHolder

    def ignoring(_self: Any, logits: Any, *_more: Any, **_named: Any) -> Any:
        return logits

    return replaced(ThinkingBudgetStateHolder, "apply_to_logits", ignoring)


def penalty_ignored(_: Any) -> Undo:
    """Penalties do not reach the tokens that were drafted (vllm#18902)."""
    from vllm.v1.sample.rejection_sampler import RejectionSampler

    right = vars(RejectionSampler)["apply_penalties"]  # with its staticmethod, which an attribute would not have

    def ignoring(logits: Any, *_more: Any) -> Any:
        return logits

    replaced(RejectionSampler, "apply_penalties", staticmethod(ignoring))
    return lambda: replaced(RejectionSampler, "apply_penalties", right) and None


def logprobs_shifted_by_one(_: Any) -> Undo:
    """Every token has the logprob of the token before it."""
    from vllm.v1.sample.rejection_sampler import RejectionSampler

    right = RejectionSampler._get_logprobs_tensors

    def shifted(self: Any, *given: Any, **named: Any) -> Any:
        found = right(self, *given, **named)
        return found._replace(logprobs=found.logprobs.roll(1, 0))

    return replaced(RejectionSampler, "_get_logprobs_tensors", shifted)


def stop_overrun_by_one_token(_: Any) -> Undo:
    """A stop token of the request, not one of the model's own ends, ends the answer only after the next token."""
    from vllm.v1.core.sched import scheduler
    from vllm.v1.request import RequestStatus

    right = scheduler.check_stop

    def late(request: Any, longest: int) -> bool:
        stops = {token for token in request.sampling_params.stop_token_ids or () if token > LAST_END}
        said = list(request.output_token_ids)
        if said[-1] in stops and len(said) < request.max_tokens:
            return False
        found: bool = right(request, longest)
        if not found and len(said) > 1 and said[-2] in stops:
            request.status, request.stop_reason = RequestStatus.FINISHED_STOPPED, said[-2]
            return True
        return found

    return replaced(scheduler, "check_stop", late)


def length_reported_as_stop(_: Any) -> Undo:
    """An answer that ends because it has max_tokens tokens says that it is complete."""
    from vllm.v1.core.sched import scheduler
    from vllm.v1.request import RequestStatus

    right = scheduler.check_stop

    def wrong(request: Any, longest: int) -> bool:
        ended: bool = right(request, longest)
        if request.status == RequestStatus.FINISHED_LENGTH_CAPPED:
            request.status = RequestStatus.FINISHED_STOPPED
        return ended

    return replaced(scheduler, "check_stop", wrong)


def preemption_loses_a_token(_: Any) -> Undo:
    """A request that is preempted forgets its last token, which the client already has."""
    from vllm.v1.core.sched.scheduler import Scheduler

    right = Scheduler._preempt_request

    def forgetting(self: Any, request: Any, *more: Any, **options: Any) -> None:
        right(self, request, *more, **options)
        if len(request._output_token_ids) > 1:
            request._output_token_ids.pop()
            request._all_token_ids.pop()

    return replaced(Scheduler, "_preempt_request", forgetting)


FEATURE_EXHIBITS: dict[str, Callable[[Any], Undo]] = {
    each.__name__: each
    for each in (
        block_of_another_prefix,
        no_hit_with_mtp,
        hits_counted_and_not_used,
        seed_ignored,
        budget_ignored,
        penalty_ignored,
        logprobs_shifted_by_one,
        stop_overrun_by_one_token,
        length_reported_as_stop,
        preemption_loses_a_token,
    )
}
