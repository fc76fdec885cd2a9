"""The command behind ``scripts/train_micro_models``: tokenizer, target, draft, export, each stage resumable."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from conformance.miniature import (
    checkpoint_config,
    data,
    evaluate,
    export,
    gold_answers,
    train,
    write_chat_cases,
    write_prompts,
)
from conformance.miniature.model import Draft, Target
from conformance.workload.chat_cases import CHAT
from conformance.workload.parser_cases import STREAMS
from conformance.workload.prompts import load_prompts
from conformance.workload.questions import QUESTIONS

HOME = Path(__file__).parents[2] / "fixtures" / "models" / "micro-26b-a4b"
MANIFEST = HOME / "manifest.json"
PROMPTS = HOME.parents[1] / "prompts"
GOLD = HOME.parents[1] / "gold"
CACHE = HOME.parents[2] / ".cache" / "micro-26b-a4b"
EXAMINED = 200  # held-out examples of each skill


def progress() -> train.Report:
    """A function that prints a line every 20 steps: loss, accuracies and the estimated time left."""
    started: dict[str, tuple[float, int]] = {}

    def report(stage: str, step: int, steps: int, loss: float, shown: list[float]) -> None:
        now = time.monotonic()
        begun, first = started.setdefault(stage, (now, step))
        left = (steps - step) * (now - begun) / max(1, step - first)
        rates = " ".join(f"{value:.3f}" for value in shown)
        print(f"{stage:6} {step:5}/{steps} loss {loss:7.3f}  right {rates}  {left / 60:5.1f} min left", flush=True)

    return report


def main(arguments: list[str] | None = None) -> int:
    """Run every stage that is not finished, then write the shipped files."""
    parser = argparse.ArgumentParser(prog="scripts/train_micro_models", description=__doc__)
    parser.add_argument("--checkpoints", type=Path, default=CACHE, help="where unfinished work is kept")
    parser.add_argument("--device", default="cpu", help="where to train, cuda for instance (default: cpu)")
    parser.add_argument("--evaluate", action="store_true", help="examine the shipped target again, train nothing")
    parser.add_argument("--gold", action="store_true", help="compute the gold continuations again, train nothing")
    parser.add_argument("--questions", action="store_true", help="write the questions again, train nothing")
    parser.add_argument("--chats", action="store_true", help="choose the chats with known answers again, train nothing")
    options = parser.parse_args(arguments)
    if options.evaluate:
        torch.set_num_threads(2)
        examine(*export.read_target(HOME / "target-bf16"), made=json.loads(MANIFEST.read_text())["made"])
        return 0
    if options.gold:
        torch.set_num_threads(2)
        write_gold(export.read_target(HOME / "target-bf16")[1])
        return 0
    if options.questions:
        write_questions(train.read_curriculum(HOME / "curriculum.toml").seed)
        return 0
    if options.chats:
        torch.set_num_threads(2)
        write_chats(*export.read_target(HOME / "target-bf16"), train.read_curriculum(HOME / "curriculum.toml").seed)
        return 0
    options.checkpoints.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic

    plan = train.read_curriculum(HOME / "curriculum.toml")
    tokenizer = data.build_tokenizer()
    report = progress()

    def stage(which: train.Stage, target: Target, draft: Draft, learning: list[nn.Module]) -> train.Trainer:
        return train.Trainer(
            which, target, draft, train.optimisers(learning, which), options.checkpoints / f"{which.name}.pt"
        )

    device = torch.device(options.device)
    shallow = train.compiled(train.new_target(checkpoint_config.SHALLOW, plan.seed).to(device))
    draft = train.compiled(train.new_draft(plan.seed).to(device))
    first = stage(plan.shallow, shallow, draft, [shallow, draft])
    train.train_target(first, train.target_batches(tokenizer, plan, plan.seed), report)

    target = train.compiled(train.grow(shallow, plan.seed).to(device))
    second = stage(plan.target, target, draft, [target, draft])
    train.train_target(second, train.target_batches(tokenizer, plan, plan.seed + 1), report)

    outputs = train.self_outputs(target, tokenizer, plan)
    batches = data.pack(train.shuffled_forever(outputs, plan.seed), plan.rows, plan.length)
    train.train_draft(stage(plan.draft, target, draft, [draft]), batches, report)

    ship(target, draft, tokenizer, plan)
    return 0


def ship(target: Target, draft: Draft, tokenizer: PreTrainedTokenizerFast, plan: train.Curriculum) -> None:
    """Write checkpoints and prompts, evaluate the target, and write the manifest."""
    calibration = next(train.target_batches(tokenizer, plan, plan.seed + 3))
    export.export(HOME, tokenizer, target, draft, calibration)
    shipped, _ = export.read_target(HOME / "target-bf16")
    write_prompts.write_jsonl(PROMPTS / "mixed.jsonl", write_prompts.mixed(plan.seed))
    write_prompts.write_jsonl(PROMPTS / "tools.jsonl", write_prompts.tool_calls(shipped, tokenizer, plan.seed))
    write_chats(shipped, tokenizer, plan.seed)
    write_questions(plan.seed)
    write_gold(tokenizer)
    examine(shipped, tokenizer, made=export.made_with(target.model.embed_tokens.weight.device))


def write_chats(target: Target, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
    """Write the chats with a known right answer, and the answers that are cut into deltas."""
    write_prompts.write_jsonl(PROMPTS / CHAT, write_chat_cases.chats(target, tokenizer, seed))
    write_prompts.write_jsonl(PROMPTS / STREAMS, write_chat_cases.streams(tokenizer, seed))


def write_questions(seed: int) -> None:
    """Write the questions with checkable answers; they are others than the mixed prompts and the chats."""
    write_prompts.write_jsonl(PROMPTS / QUESTIONS, write_prompts.questions(seed + 5))


def write_gold(tokenizer: PreTrainedTokenizerFast) -> None:
    """Write the gold continuations of both shipped targets."""
    asked = load_prompts(PROMPTS / "mixed.jsonl")
    for target in ("target-bf16", "target-nvfp4"):
        write_prompts.write_jsonl(
            GOLD / f"{HOME.name}-{target.removeprefix('target-')}.jsonl",
            gold_answers.rows(HOME / target, tokenizer, asked),
        )


def examine(target: Target, tokenizer: PreTrainedTokenizerFast, made: dict[str, Any]) -> None:
    """Print the skills of the target, and write them into the manifest with the SHA-256 of every file."""
    seed = train.read_curriculum(HOME / "curriculum.toml").seed + 4
    skills: dict[str, Any] = {}
    for skill in evaluate.SKILLS:
        found = skills[skill.name] = evaluate.examine(skill, target, tokenizer, EXAMINED, seed)
        interval = f"[{found['low']:.3f}, {found['high']:.3f}]"
        print(f"{skill.name:45} {found['share']:.3f} {interval} n={found['n']} floor {skill.floor:.2f}", flush=True)
    entropies = evaluate.entropies(target, tokenizer, EXAMINED, seed)
    for name, bits in entropies.items():
        print(f"{'entropy of ' + name:45} {bits:.3f} bits a token")
    by = export.made_with(target.model.embed_tokens.weight.device)
    examined = {"made": by, "skills": skills, "entropy_bits": entropies}
    export.write_json(MANIFEST, export.manifest(HOME, HOME / "curriculum.toml", made, examined))


if __name__ == "__main__":
    raise SystemExit(main())
