"""Answers of two more servers, with MTP and without, that have one more feature switched on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from conformance.errors import Unsupported
from conformance.evidence.folder import Evidence
from conformance.observers import combination_support
from conformance.observers.preemption import REQUESTS, TOKENS, crowd_and_few, prompts
from conformance.observers.refusals import require_sound_pair
from conformance.profile.arms import MTP, PLAIN, SERVED, SERVED_PLAIN
from conformance.profile.combined_features import FEATURES, Feature
from conformance.profile.profile import Profile
from conformance.serving.command import Launch
from conformance.serving.pool import ServerPool

ARMS = {PLAIN: SERVED_PLAIN, MTP: SERVED}


def observe(profile: Profile, servers: ServerPool, evidence: Evidence, group: str) -> Mapping[str, Any]:
    """The answers to the same requests, a few at a time and all at once. ``group`` is the feature.

    Raises:
        ObservationError: a server did not start or has died.
        Unsupported: vLLM refuses the feature here, or the profile does not ask for it.
    """
    feature = FEATURES[group]
    support = evidence.observe("combination_support", lambda: combination_support.observe(profile, servers, evidence))
    if reason := support["refusals"][group]:
        raise Unsupported(f"{feature.name} beside MTP: {reason}")
    if group not in profile.hardware.as_served().combinations:
        name = profile.hardware.name
        raise Unsupported(
            f"Hardware {name} does not list {group} under [served] combinations, which starts two servers."
        )
    require_sound_pair(profile, servers, evidence)
    seconds, arms = profile.hardware.bounds.request_seconds, {}
    for arm, configuration in ARMS.items():
        with servers.extra(f"{group}-{arm}", partial(with_feature, feature=feature), configuration) as server:
            arms[arm] = crowd_and_few(server, prompts(profile, server, seconds), seconds)
    settings = {"options": list(feature.options), "environment": dict(feature.environment)}
    return {"feature": group, "settings": settings, "requests": REQUESTS, "asked": TOKENS, "arms": arms}


def with_feature(launch: Launch, feature: Feature) -> Launch:
    """The same server with the feature switched on."""
    command = (*launch.command, *feature.options)
    return replace(launch, command=command, environment={**launch.environment, **feature.environment})
