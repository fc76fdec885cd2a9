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
from conformance.observers.served_answers import as_served, ask_both
from conformance.observers.served_load import config_of
from conformance.profile.arms import MTP, PLAIN, SERVED, SERVED_PLAIN
from conformance.profile.combined_features import AS_SERVED, CUSTOM_ALL_REDUCE, FEATURES, WORKERS, Feature
from conformance.profile.profile import Profile
from conformance.serving.command import Launch
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server

ARMS = {PLAIN: SERVED_PLAIN, MTP: SERVED}
# What a server says of its tensor parallelism -> the field of its configuration.
PARALLEL = {WORKERS: "parallel_config.tensor_parallel_size", CUSTOM_ALL_REDUCE: "worker.custom_all_reduce"}


def observe(profile: Profile, servers: ServerPool, evidence: Evidence, group: str) -> Mapping[str, Any]:
    """The answers to the same requests, a few at a time and all at once.

    ``group`` is the feature, or AS_SERVED for the servers without any, with which others are compared.

    Raises:
        ObservationError: a server did not start or has died.
        Unsupported: vLLM refuses the feature here, or the profile does not ask for it.
    """
    seconds = profile.hardware.bounds.request_seconds
    if group == AS_SERVED:
        with as_served(profile, servers, evidence):
            asked = prompts(profile, servers.served_plain(), seconds)
            arms = ask_both(profile, servers, partial(answers, prompts=asked, seconds=seconds))
        return _document(group, Feature("no feature"), arms)
    feature = FEATURES[group]
    _require(profile, servers, evidence, group)
    require_sound_pair(profile, servers, evidence)
    arms = {}
    for arm, configuration in ARMS.items():
        with servers.extra(f"{group}-{arm}", partial(with_feature, feature=feature), configuration) as server:
            arms[arm] = answers(server, prompts(profile, server, seconds), seconds)
    return _document(group, feature, arms)


def answers(server: Server, prompts: list[list[int]], seconds: float) -> dict[str, Any]:
    """The replies of one server, what it counted, and what it says of its tensor parallelism.

    Raises:
        ObservationError: the server has died.
    """
    config = config_of(server, seconds) or {}
    parallel = {name: config[field] for name, field in PARALLEL.items() if field in config}
    return {**crowd_and_few(server, prompts, seconds), "parallel": parallel}


def with_feature(launch: Launch, feature: Feature) -> Launch:
    """The same server with the feature switched on."""
    command = (*launch.command, *feature.options)
    return replace(launch, command=command, environment={**launch.environment, **feature.environment})


def _require(profile: Profile, servers: ServerPool, evidence: Evidence, group: str) -> None:
    """Require that vLLM accepts the feature, and that the profile asks for it.

    Raises:
        Unsupported: one of the two does not hold.
    """
    support = evidence.observe("combination_support", lambda: combination_support.observe(profile, servers, evidence))
    if reason := support["refusals"][group]:
        raise Unsupported(f"{FEATURES[group].name} beside MTP: {reason}")
    if group not in profile.hardware.as_served().combinations:
        name = profile.hardware.name
        raise Unsupported(
            f"Hardware {name} does not list {group} under [served] combinations, which starts two servers."
        )


def _document(group: str, feature: Feature, arms: Mapping[str, Any]) -> dict[str, Any]:
    settings = {"options": list(feature.options), "environment": dict(feature.environment)}
    return {"feature": group, "settings": settings, "requests": REQUESTS, "asked": TOKENS, "arms": dict(arms)}
