"""The entry by which a recipe of vllm-project/recipes says that a hardware is verified, with what shows it."""

from __future__ import annotations

import json

from conformance.evidence.folder import Header
from conformance.judging.verdict import Judgement, Run
from conformance.reports.sanitize import printable


def as_yaml(header: Header, run: Run, judgement: Judgement, hardware: str, evidence_sha256: str) -> str:
    """The lines for meta of the recipe; ``hardware`` is its name in recipes. Comments name versions and evidence."""
    date = json.dumps(header.started[:10])
    return printable(
        f"# {run.pair}, vLLM {header.vllm}, gemma4-mtp-conformance {header.suite}\n"
        f"# {' '.join(judgement.sentence.split())}\n"
        f"# evidence: manifest.json has SHA-256 {evidence_sha256}\n"
        f"meta:\n  date_updated: {date}\n  hardware:\n    {hardware}: verified\n"
        f"model:\n  min_vllm_version: {json.dumps(header.vllm)}\n"
    )
