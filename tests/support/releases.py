"""Judged releases for tests."""

from __future__ import annotations

from collections.abc import Mapping

from conformance.profile.release_facts import Judged, Release


def judged(verdict: str, *failures: str) -> Judged:
    """One check with the names of known failures beside it."""
    return Judged(verdict, failures, "" if verdict == "PASS" else f"what made it {verdict}")


def release(version: str, checks: Mapping[str, Judged], level: str = "smoke", hardware: str = "cpu") -> Release:
    """One judged run."""
    return Release(
        release=version,
        hardware=hardware,
        pair="micro-26b-a4b-nvfp4",
        level=level,
        started="2026-11-29T20:00:00Z",
        seconds=90.0,
        archive=f"{version}.tar.xz",
        versions={"torch": "2.13.0+cpu", "transformers": "5.17.0"},
        sentence="Not qualified.",
        checks=checks,
        figures={},
    )
