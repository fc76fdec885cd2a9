"""The curve of a run as InferenceX keeps results: throughput per GPU against interactivity, by concurrency.

A row has the fields that utils/process_result.py of SemiAnalysisAI/InferenceX writes into ``agg_*.json`` for one node,
and that packages/db/src/etl/benchmark-mapper.ts of SemiAnalysisAI/InferenceX-app reads: seconds, and tokens a second.
Numbers under other names would become metrics there, so what only this suite knows is in the object ``conformance``.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from conformance.evidence.folder import Header
from conformance.profile.arms import MTP, PLAIN
from conformance.profile.profile import Profile
from conformance.views.acceptance import Acceptance
from conformance.views.load import Answer, Block, Cell, Load

PRECISIONS = {"nvfp4": "fp4", "fp8": "fp8", "bf16": "bf16"}
SUMMARIES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "mean": statistics.fmean,
    "median": statistics.median,
    "std": statistics.pstdev,
    "p90": lambda values: float(np.percentile(values, 90)),
    "p99": lambda values: float(np.percentile(values, 99)),
}

Row = dict[str, Any]


def rows(load: Load, profile: Profile, header: Header, evidence_sha256: str) -> Iterator[Row]:
    """A row for each concurrency and arm; the arm without MTP is left out where it was not asked.

    ``evidence_sha256`` is that of the manifest, which lists the hashes of all files of the evidence.
    """
    about = _identity(profile, header)
    run: Row = {"unofficial": True, "vllm": header.vllm, "suite": header.suite, "started": header.started}
    run |= {"hardware_detected": header.hardware_detected, "draft": profile.pair.draft, "k": profile.pair.k}
    run |= {"evidence_sha256": evidence_sha256}
    for cell in load.cells.values():
        yield (
            about
            | _measured(cell, MTP, [each.mtp for each in cell.rounds], profile.workers)
            | {"conformance": run | _acceptance(load.k, cell)}
        )
        if without := [each.without for each in cell.rounds if each.without is not None]:
            yield (
                about
                | _measured(cell, PLAIN, without, profile.workers)
                | {"conformance": run | {"k": 0, "draft": None}}
            )


def file_name(row: Row) -> str:
    """The name of the file of a row."""
    return f"agg_{row['infmax_model_prefix']}_{row['hw']}_{row['spec_decoding']}_conc{row['conc']}.json"


def _identity(profile: Profile, header: Header) -> Row:
    pair, arguments = profile.pair, (*profile.pair.serve_args, *profile.hardware.serve_args)
    return {
        "hw": profile.hardware.name,
        "image": header.image or f"vllm {header.vllm}",
        "model": pair.target,
        "infmax_model_prefix": pair.name,
        "framework": "vllm",
        "precision": PRECISIONS.get(pair.quantisation, pair.quantisation),
        "disagg": False,
        "is_multinode": False,
        "tp": profile.workers,
        "ep": profile.workers if "--enable-expert-parallel" in arguments else 1,
        "dp_attention": "false",
    }


def _measured(cell: Cell, arm: str, blocks: Sequence[Block], gpus: int) -> Row:
    answers = [answer for block in blocks for answer in block.answers]
    seconds = sum(block.seconds for block in blocks)
    read, written = (sum(values) for values in ([a.prompt_tokens for a in answers], [a.tokens for a in answers]))
    times = {
        "ttft": [answer.first_seconds for answer in answers],
        "tpot": [_seconds_per_token(answer) for answer in answers if answer.tokens > 1],
        "itl": [gap / 1000 for answer in answers for gap in answer.gaps_ms],
        "e2el": [answer.seconds for answer in answers],
    }
    found = {f"{name}_{what}": of(values) for what, values in times.items() if values for name, of in SUMMARIES.items()}
    tpot = {name: found[f"{name}_tpot"] for name in SUMMARIES if name != "std" and f"{name}_tpot" in found}
    speeds = {f"{name}_intvty": 1 / value for name, value in tpot.items() if value > 0}
    return {
        "spec_decoding": "mtp" if arm == MTP else "none",
        "conc": cell.concurrency,
        "isl": round(read / len(answers)),
        "osl": round(written / len(answers)),
        "tput_per_gpu": (read + written) / seconds / gpus,
        "output_tput_per_gpu": written / seconds / gpus,
        "input_tput_per_gpu": read / seconds / gpus,
        **found,
        **speeds,
    }


def _seconds_per_token(answer: Answer) -> float:
    """Seconds for each token after the first one."""
    return (answer.seconds - answer.first_seconds) / (answer.tokens - 1)


def _acceptance(k: int, cell: Cell) -> Row:
    seen = Acceptance.of(k, [cell], cell.source)
    return {
        "acceptance_length": asdict(seen.length()),
        "acceptance_per_position": [asdict(estimate) for estimate in seen.joint()],
    }
