"""Synthetic acceptance: seeded random numbers decide instead of the target, so that the true rates are known.

It calibrates the instrument on the CPU, where vLLM's own ``rejection_sample_method: "synthetic"`` does not run. Only
this module changes the answers of the server, and only between ``begin`` and ``end``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from conformance.inside_vllm import adapters

NOTHING = -1  # vLLM's PLACEHOLDER_TOKEN_ID


class SyntheticAcceptance:
    """Replaces the output of the rejection sampler by a hook, from its creation until ``end``."""

    def __init__(self, worker: Any, rates: Sequence[float], seed: int) -> None:
        """``rates[i]``: the probability that the token at position i + 1 is accepted, given that the previous one was.

        Raises:
            Unsupported: this vLLM verifies drafts in another way.
            ValueError: these are not k probabilities.
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
        drawn = torch.rand(shape, generator=self._generator, dtype=torch.float64) < self._rates[: shape[1]]
        self.drafts += int((drafted[:, :1] != NOTHING).sum())
        made.sampled_token_ids.copy_(decide(drafted, own, drawn.to(drafted.device)))

    def end(self) -> int:
        """Restore the sampler; return the number of drafts that this decided."""
        self._hook.remove()
        return self.drafts


def decide(drafted: Tensor, own: Tensor, drawn: Tensor) -> Tensor:
    """The tokens of one step, int64 [requests, k + 1], with ``NOTHING`` after the last token.

    ``drafted`` [requests, k] has ``NOTHING`` where a request has fewer tokens; ``own`` [requests, k + 1] are the
    target's own tokens at each position and after the last; ``drawn`` [requests, k] says which tokens are accepted. The
    first False ends the step.
    """
    accepted = ((drafted != NOTHING) & drawn).long().cumprod(1).sum(1, keepdim=True)
    places = torch.arange(own.shape[1], device=own.device)
    padded = nn.functional.pad(drafted, (0, 1), value=NOTHING)
    kept = torch.where(places < accepted, padded, torch.full_like(padded, NOTHING))
    return torch.where(places == accepted, own, kept)
