"""Measures the server with MTP by the suite's client and by ``vllm bench serve``, with the same prompts."""

from __future__ import annotations

import json
import math
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from conformance.checkpoints.headers import target_folder
from conformance.errors import ObservationError, Unsupported
from conformance.evidence.folder import Evidence
from conformance.observers.refusals import require_sound_pair
from conformance.profile.profile import Profile, Sizes
from conformance.serving.command import Launch, vllm_environment
from conformance.serving.line_process import LineProcess
from conformance.serving.metrics import read_after, read_when_still
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.views.bench import speed_half_width
from conformance.workload.client import Client, client
from conformance.workload.prompts import MIXED, Prompt, load_prompts, spread

MODULE = "conformance.inside_vllm.bench_serve"
OURS, VLLM = "ours", "vllm"
BENCH_LOG = "bench-serve.log"
MOST_TIMES = 32  # the prompts are repeated
_COUNTS = {"drafts": "spec_decode_num_drafts", "accepted": "spec_decode_accepted_tokens"}


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """Tokens, seconds, drafts and the client's CPU time of every run; the clients take turns in going first.

    Raises:
        ObservationError: a server or a client failed.
        Unsupported: the server runs on another host, or this vLLM's benchmark lacks a figure.
    """
    require_sound_pair(profile, servers, evidence)
    if not servers.executor.same_machine:
        raise Unsupported("vllm bench serve would measure the connection to the host too; run the suite on that host.")
    sizes, request_seconds = profile.sizes, profile.hardware.bounds.request_seconds
    folder = _folder(evidence)
    with (
        servers.beside.use(MODULE, partial(_start, profile, servers, evidence)) as theirs,
        servers.quiet(),
        client(server := servers.mtp(), request_seconds) as asking,
    ):
        prompts = last_long_enough(choose_prompts(load_prompts(profile.prompts / MIXED), sizes), asking, sizes)
        (folder / "prompts.json").write_text(json.dumps(as_sharegpt(prompts), ensure_ascii=False), encoding="utf-8")
        seconds = request_seconds * math.ceil(len(prompts) / sizes.bench_at_once)
        command = bench_command(profile, server, folder, len(prompts))

        def measure(who: str, number: int) -> dict[str, Any]:
            if who == OURS:
                return _ours(server, asking, prompts, sizes)
            one_run = (*command, "--result-filename", f"run-{number}.json")
            return _theirs(server, partial(theirs.ask, json.dumps(one_run[3:]), seconds), folder / one_run[-1])

        runs = measure_rounds(measure, sizes)
    names = [prompt.id for prompt in prompts]
    return {"prompts": names, "at_once": sizes.bench_at_once, "command": list(command), "runs": runs}


def measure_rounds(measure: Callable[[str, int], dict[str, Any]], sizes: Sizes) -> list[dict[str, Any]]:
    """Measure each client once in every round; the first one alternates, so that a drift of the machine cancels.

    The first round warms both up and does not count. Measuring ends when the ratio of the speeds is known to the
    half-width of the profile, or after the most rounds; the ratio itself does not matter.
    """
    runs: list[dict[str, Any]] = []
    for number in range(1 + sizes.bench_most_rounds):
        pair = [measure(who, number) for who in ((OURS, VLLM) if number % 2 == 0 else (VLLM, OURS))]
        if number > 0:
            runs += pair
        if number >= sizes.bench_rounds and speed_half_width(runs) <= sizes.bench_half_width:
            break
    return runs


def choose_prompts(prompts: Sequence[Prompt], sizes: Sizes) -> list[Prompt]:
    """Prompts that ``vllm bench serve`` can ask too: one message, no tools, no thinking; repeated if they are too few.

    Raises:
        ObservationError: there is no such prompt.
    """
    plain = [each for each in prompts if not each.tools and not each.chat_template_kwargs and _single(each)]
    if not plain:
        raise ObservationError(
            "vllm bench serve needs prompts of one message without tools and thinking, and there is none"
        )
    taken = islice(cycle(spread(plain, len(plain))), sizes.bench_prompts)
    return [replace(prompt, max_tokens=sizes.bench_tokens) for prompt in taken]


def last_long_enough(prompts: Sequence[Prompt], asking: Client, sizes: Sizes) -> list[Prompt]:
    """The prompts, so often that asking them takes ``bench_seconds``; a shorter run measures its begin and end."""
    if not sizes.bench_seconds:
        return list(prompts)
    for _ in range(2):  # the first time warms up
        _, took = asking.ask_at_once(prompts, stream=True, at_once=sizes.bench_at_once, ignore_eos=True)
    return list(prompts) * min(MOST_TIMES, math.ceil(sizes.bench_seconds / took))


def _single(prompt: Prompt) -> bool:
    return len(prompt.messages) == 1 and isinstance(prompt.messages[0].get("content"), str)


def as_sharegpt(prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """The format that ``vllm bench serve`` reads without further packages; its format "custom" needs pandas."""
    return [
        {"conversations": [{"from": "human", "value": p.messages[0]["content"]}, {"from": "gpt", "value": "-"}]}
        for p in prompts
    ]


def bench_command(profile: Profile, server: Server, folder: Path, count: int) -> tuple[str, ...]:
    """``vllm bench serve`` as a closed loop at temperature 0, in the order of the file, with the suite's fields."""
    sizes = profile.sizes
    options = {
        "--backend": "openai-chat",
        "--base-url": server.base_url,
        "--endpoint": "/v1/chat/completions",
        "--model": server.model,
        "--tokenizer": str(target_folder(profile.pair)),
        "--dataset-name": "sharegpt",
        "--dataset-path": str(folder / "prompts.json"),
        "--sharegpt-output-len": str(sizes.bench_tokens),
        "--num-prompts": str(count),
        "--max-concurrency": str(sizes.bench_at_once),
        "--temperature": "0",
        "--extra-body": json.dumps({"return_token_ids": True}),
        "--result-dir": str(folder),
    }
    words = [word for option in options.items() for word in option]
    return (
        sys.executable,
        "-m",
        MODULE,
        *words,
        "--disable-shuffle",
        "--ignore-eos",  # short answers would measure the pause between requests
        "--no-oversample",
        "--save-result",
        "--disable-tqdm",
    )


def import_ahead(profile: Profile, servers: ServerPool, evidence: Evidence) -> None:
    """Let ``vllm bench serve`` import vLLM while nothing is timed.

    Raises:
        ObservationError: the process cannot be started.
    """
    if servers.executor.same_machine:
        servers.beside.start(MODULE, partial(_start, profile, servers, evidence))


def _start(profile: Profile, servers: ServerPool, evidence: Evidence) -> LineProcess:
    """The process of ``vllm bench serve``."""
    environment = vllm_environment(profile, _folder(evidence), servers.executor.inherited)
    launch = Launch((sys.executable, "-m", MODULE), environment)
    launch = servers.executor.adapt_launch(launch, f"conformance-bench-{secrets.token_hex(8)}")
    return LineProcess(launch, evidence.logs / BENCH_LOG, "vllm bench serve measured nothing")


def _folder(evidence: Evidence) -> Path:
    folder = evidence.directory.absolute() / "bench"
    folder.mkdir(exist_ok=True)
    return folder


def _ours(server: Server, asking: Client, prompts: Sequence[Prompt], sizes: Sizes) -> dict[str, Any]:
    before = read_when_still(server)
    cpu = time.process_time()
    answers, seconds = asking.ask_at_once(prompts, stream=True, at_once=sizes.bench_at_once, ignore_eos=True)
    cpu = time.process_time() - cpu
    tokens = sum(answer.output_tokens for answer in answers)
    counted = read_after(server, before, tokens) - before
    return _run(OURS, len(answers), tokens, seconds, cpu, {"drafts": counted.drafts, "accepted": counted.accepted})


def _theirs(server: Server, run: Callable[[], dict[str, Any]], file: Path) -> dict[str, Any]:
    read_when_still(server)
    said = run()
    result = json.loads(file.read_text(encoding="utf-8"))
    if missing := [key for key in _COUNTS.values() if key not in result]:
        raise Unsupported(f"This vLLM's bench serve does not report {', '.join(missing)}.")
    counts = {name: result[key] for name, key in _COUNTS.items()}
    return _run(
        VLLM, result["completed"], result["total_output_tokens"], result["duration"], said["cpu_seconds"], counts
    )


def _run(
    who: str, completed: int, tokens: int, seconds: float, cpu: float, counts: Mapping[str, int]
) -> dict[str, Any]:
    row = {"client": who, "completed": completed, "output_tokens": tokens, "seconds": seconds}
    return {**row, **counts, "client_cpu_seconds": cpu}
