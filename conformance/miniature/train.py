"""Trains the miniature pair in stages that can be resumed."""

from __future__ import annotations

import itertools
import random
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from conformance.miniature import data, losses
from conformance.miniature.checkpoint_config import WINDOW, Family, K
from conformance.miniature.generate import in_batches
from conformance.miniature.model import Draft, Target, initialise
from conformance.miniature.tasks import examples

Report = Callable[[str, int, int, float, list[float]], None]  # stage, step, steps, loss, accuracies


@dataclass(frozen=True)
class Stage:
    """One stage of the curriculum: how many steps, and the learning rates."""

    name: str
    steps: int
    warmup: int
    muon: float
    adam: float
    last_rate: float
    together_from: float = 0.0
    together_weight: float = 0.0


@dataclass(frozen=True)
class Curriculum:
    """The values of ``curriculum.toml``; the file explains them."""

    seed: int
    rows: int
    length: int
    shallow: Stage
    target: Stage
    draft: Stage
    self_outputs: int
    longest_answer: int


def read_curriculum(path: Path) -> Curriculum:
    """Read a curriculum from a TOML file."""
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    own = {key: raw["draft"].pop(key) for key in ("self_outputs", "longest_answer")}
    stages = {name: Stage(name, **raw.pop(name)) for name in ("shallow", "target", "draft")}
    values: dict[str, Any] = raw | own | stages
    return Curriculum(**values)


def optimisers(modules: list[nn.Module], stage: Stage) -> list[torch.optim.Optimizer]:
    """The optimisers: Muon for hidden matrices, AdamW for embeddings, norms, routers and the stacked experts."""
    named = [item for module in modules for item in module.named_parameters()]
    hidden = [p for name, p in named if p.dim() == 2 and "embed" not in name and "router" not in name]
    chosen = {id(parameter) for parameter in hidden}
    others = [parameter for _, parameter in named if id(parameter) not in chosen]
    return [
        torch.optim.Muon(hidden, lr=stage.muon, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=stage.adam, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def set_rate(optimisers_: list[torch.optim.Optimizer], stage: Stage, step: int) -> None:
    """Set the learning rate: linear warm-up, then linear decay."""
    decayed = 1 - (1 - stage.last_rate) * step / stage.steps
    factor = min(1.0, (step + 1) / stage.warmup) * decayed
    for optimiser, rate in zip(optimisers_, (stage.muon, stage.adam), strict=True):
        for group in optimiser.param_groups:
            group["lr"] = rate * factor


@dataclass
class Trainer:
    """The models and optimisers that a stage changes; they are saved and restored together."""

    stage: Stage
    target: Target
    draft: Draft
    optimisers: list[torch.optim.Optimizer]
    checkpoint: Path

    def save(self, step: int) -> None:
        state = {
            "step": step,
            "target": plain_state(self.target),
            "draft": plain_state(self.draft),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def restore(self) -> int:
        """Restore the last checkpoint; return its step, or 0 if there is none."""
        if not self.checkpoint.exists():
            return 0
        state = torch.load(self.checkpoint, weights_only=True)
        load_plain(self.target, state["target"])
        load_plain(self.draft, state["draft"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        return int(state["step"])


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict with transformers' names (``torch.compile`` wraps layers and renames them)."""
    return {name.replace("_orig_mod.", ""): tensor for name, tensor in module.state_dict().items()}


def load_plain(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Load a state dict of ``plain_state``."""
    module.load_state_dict({name: state[name.replace("_orig_mod.", "")] for name in module.state_dict()})


def new_target(settings: dict[str, Any], seed: int) -> Target:
    """An untrained target; the same seed gives the same weights."""
    target = Target(settings)
    initialise(target, torch.Generator().manual_seed(seed))
    return target


def new_draft(settings: dict[str, Any], seed: int) -> Draft:
    """An untrained draft."""
    draft = Draft(settings)
    initialise(draft, torch.Generator().manual_seed(seed))
    return draft


def compiled(module: Target | Draft) -> Any:
    """The same module with each layer compiled."""
    torch._dynamo.config.recompile_limit = 64  # layers of all kinds share one forward
    for layer in module.model.layers:
        layer.compile(dynamic=False)
    return module


def grow(shallow: Target, family: Family, seed: int) -> Target:
    """A target of full depth: the two groups of the shallow target at both ends, and new groups between them.

    The two post-norms of a new layer begin at zero, so that the layer does not change its input.
    """
    deep = new_target(family.target, seed)
    given = plain_state(shallow)
    first, depth = len(family.group), len(family.target["layer_types"])
    with torch.no_grad():
        for name, tensor in plain_state(deep).items():
            prefix, dot, rest = name.removeprefix("model.layers.").partition(".")
            if not name.startswith("model.layers."):
                tensor.copy_(given[name])
            elif int(prefix) < first or int(prefix) >= depth - first:
                index = int(prefix) if int(prefix) < first else int(prefix) - depth + 2 * first
                tensor.copy_(given[f"model.layers.{index}{dot}{rest}"])
            elif rest in ("post_attention_layernorm.weight", "post_feedforward_layernorm.weight"):
                tensor.zero_()
    return deep


def run(
    trainer: Trainer,
    batches: Iterator[data.Batch],
    loss: Callable[[data.Batch, int], tuple[Tensor, list[float]]],
    report: Report,
) -> None:
    """Run the steps of a stage, starting at its last checkpoint."""
    stage, start = trainer.stage, trainer.restore()
    modules = (trainer.target, trainer.draft)
    for step, batch in enumerate(itertools.islice(batches, start, stage.steps), start=start):
        set_rate(trainer.optimisers, stage, step)
        value, shown = loss(batch, step)
        value.backward()
        for module in modules:
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        for optimiser in trainer.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        if step % 20 == 19 or step + 1 == stage.steps:
            report(stage.name, step + 1, stage.steps, float(value.detach()), shown)
        if step % 50 == 49 or step + 1 == stage.steps:
            trainer.save(step + 1)


def target_batches(tokenizer: PreTrainedTokenizerFast, plan: Curriculum, seed: int) -> Iterator[data.Batch]:
    """Batches of training examples, without held-out ones."""
    fast = tokenizer.backend_tokenizer
    stream = (data.encode(fast, tokenizer, example) for example in examples(seed, held_out=False))
    return data.pack(stream, plan.rows, plan.length)


def train_target(trainer: Trainer, batches: Iterator[data.Batch], report: Report) -> None:
    """Train next-token prediction; near the end also the draft's loss, so that keys and values suit the draft."""
    device = trainer.target.model.embed_tokens.weight.device

    def loss(batch: data.Batch, step: int) -> tuple[Tensor, list[float]]:
        batch = batch.to(device)
        masks = batch.masks(WINDOW)
        own, seen, logits = losses.target_step(trainer.target, batch, masks)
        if step < trainer.stage.together_from * trainer.stage.steps:
            return own.loss, [float(own.accuracy)]
        steps = losses.draft_steps(trainer.draft, trainer.target, batch, masks, seen, logits.detach(), K)
        shown = [float(own.accuracy), *losses.joint_acceptance(steps)]
        return own.loss + trainer.stage.together_weight * losses.total(steps), shown

    run(trainer, batches, loss, report)


def self_outputs(target: Target, tokenizer: PreTrainedTokenizerFast, plan: Curriculum) -> list[data.Encoded]:
    """Training prompts with the target's own greedy answers."""
    fast = tokenizer.backend_tokenizer
    chosen = itertools.islice(examples(plan.seed + 2, held_out=False), plan.self_outputs)
    prompts = [fast.encode(data.render(tokenizer, example), add_special_tokens=False).ids for example in chosen]
    answers = in_batches(target, prompts, WINDOW, plan.longest_answer)
    return [
        data.Encoded(prompt + answer, [data.PROMPT_WEIGHT] * len(prompt) + [1.0] * len(answer))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def shuffled_forever(items: list[data.Encoded], seed: int) -> Iterator[data.Encoded]:
    """An endless stream of the items, in a new order each time."""
    rng = random.Random(seed)
    while True:
        yield from rng.sample(items, len(items))


def train_draft(trainer: Trainer, batches: Iterator[data.Batch], report: Report) -> None:
    """Train the k draft steps to predict the target's own choices; the target does not change."""
    device = trainer.target.model.embed_tokens.weight.device
    trainer.target.requires_grad_(False)

    def loss(batch: data.Batch, _: int) -> tuple[Tensor, list[float]]:
        batch = batch.to(device)
        masks = batch.masks(WINDOW)
        with torch.no_grad():
            seen = trainer.target(batch.ids, batch.positions, masks)
            logits = trainer.target.logits(seen.hidden)
        steps = losses.draft_steps(trainer.draft, trainer.target, batch, masks, seen, logits, K)
        return losses.total(steps), losses.joint_acceptance(steps)

    run(trainer, batches, loss, report)


def order_tokens(draft: Draft, target: Target) -> None:
    """Give the clusters of an ordered head the tokens: the target's embeddings, halved again and again.

    Each half is split at the median of its first principal component, so that all clusters have the same size.
    """
    head = draft.masked_embedding
    if head is None:
        return
    parts = [torch.arange(len(head.token_ordering))]
    embedded = F.normalize(target.model.embed_tokens.weight.detach().cpu().double(), dim=-1)
    while len(parts) < head.centroids.out_features:
        parts = [half for part in parts for half in _halves(part, embedded[part])]
    head.token_ordering.copy_(torch.cat(parts))


def _halves(tokens: Tensor, embedded: Tensor) -> tuple[Tensor, ...]:
    centred = embedded - embedded.mean(0)
    component = torch.linalg.svd(centred, full_matrices=False).Vh[0]
    component = component * component[component.abs().argmax()].sign()  # svd leaves the sign open
    order = torch.argsort(centred @ component, stable=True)
    return tuple(half.sort().values for half in tokens[order].chunk(2))


def train_pair(
    family: Family,
    plan: Curriculum,
    tokenizer: PreTrainedTokenizerFast,
    device: torch.device,
    checkpoints: Path,
    report: Report,
) -> tuple[Target, Draft]:
    """All stages: a shallow target, the whole one, and the draft; finished stages are read from ``checkpoints``."""

    def stage(which: Stage, target: Target, draft: Draft, learning: list[nn.Module]) -> Trainer:
        return Trainer(which, target, draft, optimisers(learning, which), checkpoints / f"{which.name}.pt")

    shallow = compiled(new_target(family.shallow, plan.seed).to(device))
    draft = compiled(new_draft(family.draft, plan.seed).to(device))
    first = stage(plan.shallow, shallow, draft, [shallow, draft])
    train_target(first, target_batches(tokenizer, plan, plan.seed), report)

    target = compiled(grow(shallow, family, plan.seed).to(device))
    second = stage(plan.target, target, draft, [target, draft])
    train_target(second, target_batches(tokenizer, plan, plan.seed + 1), report)

    order_tokens(draft, target)
    outputs = self_outputs(target, tokenizer, plan)
    batches = data.pack(shuffled_forever(outputs, plan.seed), plan.rows, plan.length)
    train_draft(stage(plan.draft, target, draft, [draft]), batches, report)
    return target, draft
