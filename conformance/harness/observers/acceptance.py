"""How many draft tokens the target accepts: counter differences around each request, one request at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.harness.evidence import Evidence
from conformance.harness.observers import timings
from conformance.harness.profile import Profile
from conformance.harness.servers import Servers
from conformance.harness.workload import MIXED, load_prompts

SUMMED = ("drafts", "draft_tokens", "accepted", "output_tokens")


def observe(profile: Profile, servers: Servers, evidence: Evidence) -> Mapping[str, Any]:
    """Counters and answer of every prompt, and their sums.

    The sequential timings have asked the server with MTP for just this, so their counters are taken; of a prompt that
    was asked several times, those of the first time.
    """
    rounds = evidence.observe("timings", lambda: timings.observe(profile, servers, evidence))["sequential"]
    categories = {prompt.id: prompt.category for prompt in load_prompts(profile.prompts / MIXED)}
    rows: dict[str, dict[str, Any]] = {}
    for each in rounds:
        for name, counts, answer in zip(each["prompts"], each["mtp_counts"], each["mtp_answers"], strict=True):
            rows.setdefault(name, {"id": name, "category": categories[name], **counts, "answer": answer})
    totals = {name: sum(row[name] for row in rows.values()) for name in SUMMED}
    by_position = zip(*(row["accepted_per_position"] for row in rows.values()), strict=True)
    totals["accepted_per_position"] = [sum(column) for column in by_position]
    return {"k": profile.pair.k, "prompts": list(rows.values()), "totals": totals}
