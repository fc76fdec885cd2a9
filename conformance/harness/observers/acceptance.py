"""How many draft tokens the target accepts: counter differences around each request, one request at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.harness.evidence import Evidence
from conformance.harness.metrics import Counters, must_agree, read_after, read_when_still
from conformance.harness.observers.refusals import require_sound_pair
from conformance.harness.profile import Profile
from conformance.harness.servers import Servers
from conformance.harness.workload import MIXED, client, load_prompts, spread


def observe(profile: Profile, servers: Servers, evidence: Evidence) -> Mapping[str, Any]:
    """Counters and answer of every prompt, and the counters of the whole workload."""
    require_sound_pair(profile, servers, evidence)
    prompts = spread(load_prompts(profile.prompts / MIXED), profile.sizes.mixed_prompts)
    with servers.exclusive():
        server = servers.mtp()
        with client(server, profile.hardware.bounds.request_seconds) as asking:
            first = before = read_when_still(server)
            rows = []
            for prompt in prompts:
                answer = asking.ask(prompt)
                after = read_after(server, before, answer.output_tokens)
                must_agree(after - before, profile.pair.k, requests=1)
                whose = {"id": prompt.id, "category": prompt.category}
                rows.append(whose | _counts(after - before) | {"answer": answer.written()})
                before = after
    must_agree(before - first, profile.pair.k, len(rows))
    return {"k": profile.pair.k, "prompts": rows, "totals": _counts(before - first)}


def _counts(counted: Counters) -> dict[str, Any]:
    return {
        "drafts": counted.drafts,
        "draft_tokens": counted.draft_tokens,
        "accepted": counted.accepted,
        "accepted_per_position": list(counted.per_position),
        "output_tokens": counted.generated,
    }
