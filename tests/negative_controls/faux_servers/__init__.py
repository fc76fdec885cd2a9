"""Small real servers that stand in for vLLM: a good one, and some that each go wrong in one way."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from conformance.evidence.folder import Evidence
from conformance.profile.arms import MTP, REFUSED, SERVED, SERVED_PLAIN, SWEEP
from conformance.profile.profile import Bounds, Hardware, Pair, Profile, Served, Sizes
from conformance.serving.command import Launch

HERE = Path(__file__).parent
BOUNDS = Bounds(load_seconds=30, silence_seconds=20, request_seconds=10, stop_seconds=0.5)
HARDWARE = Hardware(
    name="faux",
    memory="host",
    two_servers=True,
    locked_environment="cpu",
    bounds=BOUNDS,
    unsupported_moe_backend="cutlass",
    served=Served(serve_args=("--enable-prefix-caching",)),
)
PAIR = Pair(name="faux-pair", home="/nowhere", target="./target", draft="./draft", k=4, quantisation="nvfp4")
SIZES = Sizes(
    mixed_prompts=9,
    tool_prompts=2,
    calling_cases=2,
    text_cases=2,
    sampling_prompts=2,
    sampling_seeds=30,
    rounds={"1": 3, "8": 1},
    warm_up_rounds=1,
    again_every=2,
    longest_answer=32,
    tie_prompts=4,
    questions_at_once=4,
    sweep_prompts=3,
    sweep_tokens=32,
    sweep_longest_draft=4,
    bench_prompts=14,
    bench_tokens=16,
    bench_at_once=4,
    bench_rounds=6,
    bench_most_rounds=6,
    bench_half_width=0.02,
    soak_minutes=0.1,
    soak_at_once=4,
    soak_prompts=9,
    soak_window_seconds=0.25,
)
PROFILE = Profile(HARDWARE, PAIR, "qualify", SIZES)
Observe = Callable[..., dict[str, Any]]  # makes an observation, given its name


def answering(script: str) -> tuple[str, ...]:
    """The command of a stand-in for a Python program that the suite starts."""
    return (sys.executable, "-c", script)


def _shell(script: str) -> Launch:
    return Launch(("sh", "-c", script), dict(os.environ))


LOADING = "echo 'INFO 11-23 14:25:00 [loader.py:7] Loading weights'"
SILENT = _shell(f"{LOADING}; sleep 600")  # writes one line and then nothing more
LOADS = (
    'i=0; while :; do i=$((i+1)); echo "INFO 11-23 14:25:00 [loader.py:7] Loading weights: part $i"; sleep 0.1; done'
)
CHATTY = _shell(LOADS)  # loads for ever, and writes lines about it
RETRIES = 'while :; do echo "WARNING $(date +%m-%d\\ %H:%M:%S) [shm.py:9] No free slot, trying again"; sleep 0.1; done'


def launch(script: str, *arguments: str) -> Launch:
    """The launch of one of the servers in this folder."""
    return Launch((sys.executable, str(HERE / f"{script}.py"), *arguments), dict(os.environ))


def launcher(**arms: Launch) -> Callable[[Profile, str, Path, Mapping[str, str]], Launch]:
    """Good servers for both arms and a crashing one for the MoE refusal, unless ``arms`` has others."""
    known = {
        MTP: launch("good", "--k", "4"),
        "plain": launch("good"),
        REFUSED: launch("crashing"),
        SWEEP: launch("good", "--k", "4"),
        SERVED: launch("good", "--k", "4"),
        SERVED_PLAIN: launch("good"),
        **{arm.replace("_", "-"): given for arm, given in arms.items()},
    }
    return lambda _profile, arm, _snapshots, _inherited: known[arm]


def recording(directory: Path) -> Evidence:
    """Evidence that can be recorded into."""
    for folder in ("observations", "logs", ".locks"):
        (directory / folder).mkdir(parents=True)
    return Evidence(directory, recording=True)


def with_prompts(profile: Profile, folder: Path) -> Profile:
    """The profile with its own few prompts."""
    rows = [
        {"id": f"{kind}-{number}", "category": kind, "licence": "CC0-1.0", "max_tokens": 64}
        | {"messages": [{"role": "user", "content": f"{kind} {number}"}]}
        for kind in ("code", "prose", "json")
        for number in range(4)
    ]
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    call = {"expected": {"name": "weather", "arguments": {"city": "Oslo"}}, "tools": [tool]}
    prefixes = [{"id": f"s-{i}", "category": "prose", "licence": "CC0-1.0", "text": f"Once {i}"} for i in range(3)]
    chats = [
        {"id": f"{group}-{number}", "group": group, "licence": "CC0-1.0", "max_tokens": 64}
        | {"messages": [{"role": "user", "content": f"{group} {number}"}], "expected": {"content": "-"}}
        for group in ("call", "two", "strict", "omitted")
        for number in range(3)
    ]
    post = {"licence": "CC0-1.0", "method": "POST", "path": "/v1/chat/completions", "statuses": [400]}
    wrong = [{"id": "no-json", "raw": "{", **post}, {"id": "huge", "body": {"model": "$MODEL", "a": "$HUGE"}, **post}]
    folder.mkdir()
    kinds = {"mixed": rows, "tools": [row | call for row in rows[:2]], "sampling": prefixes, "chat": chats}
    for name, content in {**kinds, "bad_requests": wrong}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    return replace(profile, prompts=folder)
