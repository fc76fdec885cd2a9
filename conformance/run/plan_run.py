"""Reads what ``--plan`` shows: the profile and its floors. It starts nothing."""

from __future__ import annotations

import argparse

from conformance.errors import UsageError
from conformance.profile.floors import Floors
from conformance.profile.profile import Profile, load_profile, with_soak_minutes
from conformance.profile.profile_floors import floors_of
from conformance.run import durations
from conformance.run.options import PLANNED, RUN
from conformance.run.session import DEFAULT_LEVEL, DEFAULT_PAIR, detect_hardware

COMMAND_ONLY = ("workers", "picture")  # options that pytest does not have


def plan_run(options: argparse.Namespace) -> tuple[Profile, Floors, float | None]:
    """The profile that the options name, its floors, and the seconds of the last such run on this machine, if any.

    Raises:
        UsageError: a plan does not use an option, or an option names a file or profile that does not exist.
    """
    for name in (*(option.name for option in RUN), *COMMAND_ONLY):
        if name not in PLANNED and getattr(options, name, None) not in (None, False):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"--plan starts nothing and does not use {flag}; leave out one of the two.")
    profile = load_profile(
        options.hardware or detect_hardware(), options.pair or DEFAULT_PAIR, options.level or DEFAULT_LEVEL
    )
    if options.minutes is not None:
        profile = with_soak_minutes(profile, options.minutes)
    floors = floors_of(profile)
    last = durations.load(profile)
    return profile, floors, last.total if last else None
