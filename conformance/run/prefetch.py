"""A pytest plugin that makes observations in the background, so that a run uses the whole machine.

Without a server: after one import of vLLM, while servers load. From servers: the probes, then what several threads may
ask at the same time. What is counted or timed alone is left to the checks, which come in the order of the catalogue.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any

import pytest

from conformance.errors import ObservationError, Unsupported
from conformance.judging.check import Check, check_of
from conformance.observers import (
    bench,
    combination_support,
    cuda_graphs,
    environment,
    geometry,
    moe_oracle,
    observer,
    parsers,
)
from conformance.observers.refusals import require_sound_pair
from conformance.profile.facts import load_facts
from conformance.profile.profile import Profile
from conformance.run.session import Session
from conformance.serving.command import captures
from conformance.serving.pool import ServerPool

# Observations; fixtures with the same names read them.
# The first one needs the most time, so it goes first.
OFF_LINE = ("parsers", "environment", "geometry", "moe_oracle", "cuda_graphs", "combination_support")
PROBED = ("draft_load", "wiring", "moe", "numerics", "parity")
SHARED = ("tools",)  # and every group of chats
FROM_SERVERS = (*PROBED, *SHARED, "kernels", "chat", "bad_requests", "load", "sweep", "bench", "soak")
# A step of the server costs about the same for one answer and for sixteen, and one prompt nearly as much as several.
SHARED_AT_ONCE = 16
AS_SERVED = "FEATURE-"  # these checks need two more servers
_ABANDON_SECONDS = 1.0
UNTIMED = "texts"  # this fixture waits for the first observation after the load, which is not timed
# Modules that the reference of PARITY and the client import. A second import of the same module waits for the first.
SLOW_IMPORTS = ("openai", "conformance.reference.draft_steps", "transformers.models.gemma4.modeling_gemma4")


class Prefetch:
    """Used in the process that the user started. Under pytest-xdist, the workers make observations at the same time."""

    def __init__(self, session: Session, servers: ServerPool) -> None:
        self._session, self._servers = session, servers
        # Threads of the first pool mostly wait; those of the second one ask the servers.
        self._background = ThreadPoolExecutor(thread_name_prefix="background", max_workers=len(OFF_LINE) + 4)
        self._asking = ThreadPoolExecutor(thread_name_prefix="asking", max_workers=SHARED_AT_ONCE)
        self._work: list[Future[None]] = []
        self._over = self._loads_ahead = self._benches = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Start the observations that the selected checks need."""
        if not self._session.evidence.recording:
            return
        checks = [check for item in session.items if (check := check_of(item))]
        wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
        self._loads_ahead = any(check.id.startswith(AS_SERVED) for check in checks)
        self._benches = "bench" in wanted
        if self._session.profile.has_servers and wanted & set(FROM_SERVERS):
            self._in_background(self._use_servers, wanted, checks)
        self._start_off_line([name for name in OFF_LINE if name in wanted])
        if "moe_refusal" in wanted and self._session.profile.hardware.roomy:
            self._in_background(self._observe, "moe_refusal")
        if "parity" in wanted:
            self._in_background(_import_slow)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Load what later checks need while observations are made that are not timed."""
        if UNTIMED not in getattr(item, "fixturenames", ()):
            return
        if self._benches:
            self._benches = False
            self._in_background(self._start_bench)
        if self._loads_ahead:
            self._loads_ahead = False
            self._in_background(self._load_ahead)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Finish the background work before the servers are stopped and the evidence is closed."""
        self._over = True
        while not all(work.done() for work in self._work):
            self._servers.abandon()  # again and again, because a thread may have been about to start one
            wait(self._work, _ABANDON_SECONDS)
        for pool in (self._background, self._asking):  # the first one fills the second
            pool.shutdown()
        for work in self._work:
            work.result()

    @property
    def _sweeps(self) -> bool:
        """Whether the sweep has a server that runs at the same time as the others."""
        profile = self._session.profile
        return bool(profile.sizes.sweep_prompts) and profile.hardware.sweep == "probe" and profile.hardware.two_servers

    @property
    def _stops_others(self) -> bool:
        """Whether PARITY needs an eager server, for which the others are stopped."""
        profile = self._session.profile
        return captures(profile) and not profile.hardware.roomy

    def _start_off_line(self, names: Sequence[str]) -> None:
        questions = dict(filter(None, (_question(name, self._session.profile) for name in names)))
        if questions and not self._servers.attached:
            self._servers.run_together(questions)
        for name in names:
            self._in_background(self._observe, name)

    def _use_servers(self, wanted: Collection[str], checks: Sequence[Check]) -> None:
        """Start the servers, and then what may be asked of them."""
        if "moe_refusal" in wanted and not self._session.profile.hardware.roomy:
            self._observe("moe_refusal")  # started later, it would stop the other servers
        swept = "sweep" in wanted and self._sweeps
        with _leave_failure_to_check(), self._servers.shared():
            self._observe("refusals")
            require_sound_pair(self._session.profile, self._servers, self._session.evidence)
            if swept:
                with _leave_failure_to_check():
                    self._servers.sweep()  # this starts the other servers too
            self._servers.mtp()
        if self._session.profile.hardware.loads_beside:
            self._in_background(self._load_rest, self._loads_ahead, "sweep" in wanted)
            self._loads_ahead = False
        chats = dict.fromkeys(name for check in checks for name in check.chat_observations)
        left = {"parity"} if self._stops_others else set()  # left to its check
        early = (name for name in (*PROBED, *SHARED) if name in wanted and name not in left)
        for name in (*early, *chats):
            self._work.append(self._asking.submit(self._observe, name))

    def _load_ahead(self) -> None:
        with _leave_failure_to_check():
            self._servers.load_ahead()

    def _start_bench(self) -> None:
        with _leave_failure_to_check():
            bench.import_ahead(self._session.profile, self._servers, self._session.evidence)

    def _load_rest(self, as_served: bool, sweep: bool) -> None:
        """Load the servers that few checks need while the others answer; on a GPU this takes minutes."""
        if as_served:
            self._load_ahead()
        if sweep:
            self._observe("sweep")

    def _in_background(self, work: Any, *arguments: Any) -> None:
        self._work.append(self._background.submit(work, *arguments))

    def _observe(self, name: str) -> None:
        evidence, profile = self._session.evidence, self._session.profile
        if not self._over:
            with _leave_failure_to_check():
                evidence.observe(name, partial(observer(name), profile, self._servers, evidence))


def _question(name: str, profile: Profile) -> tuple[str, Any] | None:
    """The module that answers an observation without a server, and its standard input; None if that is bad input."""
    makers: Mapping[str, tuple[Sequence[str], Callable[[], Any]]] = {
        "environment": (environment.COMMAND, lambda: None),
        "geometry": (geometry.COMMAND, lambda: geometry.request(load_facts())),
        "moe_oracle": (moe_oracle.COMMAND, lambda: None),
        "cuda_graphs": (cuda_graphs.COMMAND, lambda: cuda_graphs.request(cuda_graphs.cases(profile))),
        "parsers": (parsers.COMMAND, lambda: parsers.build_request(profile)),
        "combination_support": (combination_support.COMMAND, lambda: combination_support.request(profile)),
    }
    command, make = makers[name]
    with _leave_failure_to_check():
        return command[2], make()
    return None


def _import_slow() -> None:
    """Import one module after another: threads that import parts of one package at once may see half of it.

    What fails here is imported again by the check that needs it.
    """
    for name in SLOW_IMPORTS:
        with suppress(ImportError):
            importlib.import_module(name)


def _leave_failure_to_check() -> AbstractContextManager[None]:
    """Ignore a failure here: the evidence or the server pool keeps it for the check that needs the observation."""
    return suppress(ObservationError, Unsupported)
