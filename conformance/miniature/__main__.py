"""The command behind ``scripts/train_micro_models``: tokenizer, target, draft, export, each stage resumable."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from conformance import FIXTURES
from conformance.miniature import (
    data,
    evaluate,
    export,
    gold_answers,
    train,
    write_chat_cases,
    write_prompts,
)
from conformance.miniature.checkpoint_config import FAMILIES
from conformance.miniature.model import Draft, Target
from conformance.workload.chat_cases import CHAT
from conformance.workload.parser_cases import STREAMS
from conformance.workload.prompts import load_prompts
from conformance.workload.questions import QUESTIONS

PROMPTS = FIXTURES / "prompts"
GOLD = FIXTURES / "gold"
CACHE = Path(__file__).parents[2] / ".cache"
PROMPTER = "micro-26b-a4b"  # the family whose target chooses the prompts that all are asked
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
    parser.add_argument("--family", choices=FAMILIES, default=PROMPTER, help=f"which miniature (default: {PROMPTER})")
    parser.add_argument("--checkpoints", type=Path, help="where unfinished work is kept (default: .cache/FAMILY)")
    parser.add_argument("--device", default="cpu", help="where to train, cuda for instance (default: cpu)")
    parser.add_argument("--evaluate", action="store_true", help="examine the shipped target again, train nothing")
    parser.add_argument("--gold", action="store_true", help="compute the gold continuations again, train nothing")
    parser.add_argument("--questions", action="store_true", help="write the questions again, train nothing")
    parser.add_argument("--chats", action="store_true", help="choose the chats with known answers again, train nothing")
    options = parser.parse_args(arguments)
    if (options.questions or options.chats) and options.family != PROMPTER:
        parser.error(f"all miniatures are asked the prompts of {PROMPTER}; leave --family out")
    home = FIXTURES / "models" / options.family
    plan = train.read_curriculum(home / "curriculum.toml")
    torch.set_num_threads(2)
    if options.evaluate:
        examine(home, *export.read_target(home / "target-bf16"), made=json.loads(manifest(home).read_text())["made"])
    elif options.gold:
        write_gold(home, export.read_target(home / "target-bf16")[1])
    elif options.questions:
        write_questions(plan.seed)
    elif options.chats:
        write_chats(*export.read_target(home / "target-bf16"), plan.seed)
    else:
        checkpoints = options.checkpoints or CACHE / options.family
        checkpoints.mkdir(parents=True, exist_ok=True)
        torch.use_deterministic_algorithms(True)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic
        family, device = FAMILIES[options.family], torch.device(options.device)
        tokenizer = data.build_tokenizer(empty_thought=family.empty_thought)
        target, draft = train.train_pair(family, plan, tokenizer, device, checkpoints, progress())
        ship(home, target, draft, tokenizer, plan)
    return 0


def manifest(home: Path) -> Path:
    """Where the hashes and the evaluation of a miniature are."""
    return home / "manifest.json"


def ship(home: Path, target: Target, draft: Draft, tokenizer: PreTrainedTokenizerFast, plan: train.Curriculum) -> None:
    """Write checkpoints and prompts, evaluate the target, and write the manifest."""
    calibration = next(train.target_batches(tokenizer, plan, plan.seed + 3))
    export.export(home, FAMILIES[home.name], tokenizer, target, draft, calibration)
    shipped, _ = export.read_target(home / "target-bf16")
    if home.name == PROMPTER:
        write_prompts.write_jsonl(PROMPTS / "mixed.jsonl", write_prompts.mixed(plan.seed))
        write_prompts.write_jsonl(PROMPTS / "tools.jsonl", write_prompts.tool_calls(shipped, tokenizer, plan.seed))
        write_chats(shipped, tokenizer, plan.seed)
        write_questions(plan.seed)
    write_gold(home, tokenizer)
    examine(home, shipped, tokenizer, made=export.made_with(target.model.embed_tokens.weight.device))


def write_chats(target: Target, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
    """Write the chats with a known right answer, and the answers that are cut into deltas."""
    write_prompts.write_jsonl(PROMPTS / CHAT, write_chat_cases.chats(target, tokenizer, seed))
    write_prompts.write_jsonl(PROMPTS / STREAMS, write_chat_cases.streams(tokenizer, seed))


def write_questions(seed: int) -> None:
    """Write the questions with checkable answers; they are others than the mixed prompts and the chats."""
    write_prompts.write_jsonl(PROMPTS / QUESTIONS, write_prompts.questions(seed + 5))


def write_gold(home: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write the gold continuations of the shipped targets."""
    asked = load_prompts(PROMPTS / "mixed.jsonl")
    for target in sorted(home.glob("target-*")):
        write_prompts.write_jsonl(
            GOLD / f"{home.name}-{target.name.removeprefix('target-')}.jsonl",
            gold_answers.rows(target, tokenizer, asked),
        )


def examine(home: Path, target: Target, tokenizer: PreTrainedTokenizerFast, made: dict[str, Any]) -> None:
    """Print the skills of the target, and write them into the manifest with the SHA-256 of every file."""
    seed = train.read_curriculum(home / "curriculum.toml").seed + 4
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
    export.write_json(manifest(home), export.manifest(home, home / "curriculum.toml", made, examined))


if __name__ == "__main__":
    raise SystemExit(main())
