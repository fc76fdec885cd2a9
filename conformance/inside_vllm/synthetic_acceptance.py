"""Acceptance decided by seeded coins instead of by the target, so that the true rates are known.

It calibrates the instrument where vLLM's own ``rejection_sample_method: "synthetic"`` does not run: on the CPU. It is
the one thing in this package that changes what the server answers, and only between ``begin`` and ``end``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from conformance.inside_vllm import adapters

NOTHING = -1  # vLLM's PLACEHOLDER_TOKEN_ID


class SyntheticAcceptance:
    """The rejection sampler's answers, replaced by a hook from when this is made until ``end``."""

    def __init__(self, worker: Any, rates: Sequence[float], seed: int) -> None:
        """``rates[i]``: the chance that the token at position i + 1 is accepted, given that the one before was.

        Raises Unsupported where this vLLM verifies drafts in another way, ValueError for rates that are none.
        """
        sampler: nn.Module = adapters.rejection_sampler(worker)
        k = adapters.draft_tokens(worker)
        if len(rates) != k or not all(0 <= rate <= 1 for rate in rates):
            raise ValueError(f"{list(rates)} are not {k} shares, one for each drafted token")
        self._rates = torch.tensor(rates, dtype=torch.float64)
        self._generator = torch.Generator().manual_seed(seed)
        self.drafts = 0
        self._hook = sampler.register_forward_hook(self._instead)

    def _instead(self, _: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        drafted, own = adapters.verified(given)
        shape = (len(drafted), int(drafted.shape[1]))
        coins = torch.rand(shape, generator=self._generator, dtype=torch.float64) < self._rates[: shape[1]]
        self.drafts += int((drafted[:, :1] != NOTHING).sum())
        made.sampled_token_ids.copy_(decide(drafted, own, coins.to(drafted.device)))

    def end(self) -> int:
        """Leave the sampler as it was; returns the number of drafts that were decided."""
        self._hook.remove()
        return self.drafts


def decide(drafted: Tensor, own: Tensor, coins: Tensor) -> Tensor:
    """The tokens of one step, int64 [requests, k + 1], with ``NOTHING`` behind the last.

    ``drafted`` [requests, k], ``NOTHING`` where a request has fewer; ``own`` [requests, k + 1], what the target itself
    would say at each place and after the last; ``coins`` bool [requests, k]. The first coin that fell wrong ends it.
    """
    accepted = ((drafted != NOTHING) & coins).long().cumprod(1).sum(1, keepdim=True)
    places = torch.arange(own.shape[1], device=own.device)
    padded = nn.functional.pad(drafted, (0, 1), value=NOTHING)
    kept = torch.where(places < accepted, padded, torch.full_like(padded, NOTHING))
    return torch.where(places == accepted, own, kept)
