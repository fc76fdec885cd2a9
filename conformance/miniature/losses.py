"""The losses: next-token loss of the target, and the loss of each of the k draft steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from conformance.miniature.data import Batch
from conformance.miniature.model import Draft, Guess, Masks, Seen, Target

BALANCE = 0.01  # the weight of the experts' load-balancing loss in the target's loss


class Step(NamedTuple):
    """The loss of one kind of prediction, and the share of answer tokens that are right."""

    loss: Tensor
    accuracy: Tensor


def shifted(tensor: Tensor, by: int) -> Tensor:
    """The values ``by`` positions later in each row, with zeros after the end."""
    return F.pad(tensor[:, by:], (0, by))


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Step:
    """Weighted mean cross entropy; accuracy over labels of full weight. Shapes [rows, length(, vocabulary)]."""
    each = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none").view_as(weights)
    return Step((each * weights).sum() / weights.sum().clamp(min=1), accuracy(logits, labels, weights))


def target_step(target: Target, batch: Batch, masks: Masks) -> tuple[Step, Seen, Tensor]:
    """The next-token loss with load balancing, the states that the draft reads, and the logits."""
    seen = target(batch.ids, batch.positions, masks)
    logits = target.logits(seen.hidden)
    step = cross_entropy(logits, shifted(batch.ids, 1), shifted(batch.weights, 1))
    return Step(step.loss + BALANCE * seen.imbalance, step.accuracy), seen, logits


def draft_steps(
    draft: Draft, target: Target, batch: Batch, masks: Masks, seen: Seen, logits: Tensor, k: int
) -> list[Step]:
    """The k draft steps from every position at once.

    Query i sees the target's hidden state and keys up to i, and token i + 1. Step s (from 0) reads token i + 1 + s and
    must predict the target's own choice for token i + 2 + s. Position and keys are those of i in all steps, as in
    vLLM's proposer (``constant_draft_positions``).
    """
    choice, hidden, steps = logits.argmax(-1), seen.hidden, []
    for step in range(k):
        known = shifted(batch.ids, 1 + step)
        guess = draft(target.embed(known), hidden, batch.positions, masks, seen)
        inside = shifted(batch.segments, 2 + step) == batch.segments
        weights = shifted(batch.weights, 2 + step) * inside
        steps.append(guess_step(draft, guess, shifted(choice, 1 + step), weights))
        hidden = guess.hidden
    return steps


def guess_step(draft: Draft, guess: Guess, labels: Tensor, weights: Tensor) -> Step:
    """The loss of one draft step; with an ordered head that of the clusters too, and only its candidates are right."""
    step, head = cross_entropy(guess.logits, labels, weights), draft.masked_embedding
    if head is None or guess.of_clusters is None:
        return step
    clusters = cross_entropy(guess.of_clusters, head.clusters()[labels], weights)
    masked = head.mask(guess.logits.detach(), guess.of_clusters.detach())
    return Step(step.loss + clusters.loss, accuracy(masked, labels, weights))


def accuracy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """The share of labels of full weight that are the most likely token."""
    full = weights >= 1.0
    return ((logits.argmax(-1) == labels) & full).sum() / full.sum().clamp(min=1)


def joint_acceptance(steps: list[Step]) -> list[float]:
    """Rough joint acceptance at each position if steps are independent (only for the progress line)."""
    joint, rates = 1.0, []
    for step in steps:
        joint *= float(step.accuracy)
        rates.append(joint)
    return rates


def total(steps: list[Step]) -> Tensor:
    """Sum of the steps' losses."""
    return torch.stack([step.loss for step in steps]).sum()
