"""The greedy answer to every mixed prompt with and without MTP, each asked alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.harness.evidence import Evidence
from conformance.harness.observers import timings
from conformance.harness.profile import Profile
from conformance.harness.servers import Servers
from conformance.harness.workload import MIXED, load_prompts


def observe(profile: Profile, servers: Servers, evidence: Evidence) -> Mapping[str, Any]:
    """Text, finish reason and tokens of both arms.

    The sequential timings have asked both servers for just this, so their answers are taken instead of asking again.
    """
    rounds = evidence.observe("timings", lambda: timings.observe(profile, servers, evidence))["sequential"]
    categories = {prompt.id: prompt.category for prompt in load_prompts(profile.prompts / MIXED)}
    rows: dict[str, dict[str, Any]] = {}
    for each in rounds:
        for name, mtp, plain in zip(each["prompts"], each["mtp_answers"], each["plain_answers"], strict=True):
            rows.setdefault(name, {"id": name, "category": categories[name], "mtp": mtp, "plain": plain})
    return {"prompts": list(rows.values())}
