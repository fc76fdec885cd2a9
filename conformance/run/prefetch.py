"""A pytest plugin that makes observations in the background: servers load while other observations are made."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from functools import partial

import pytest

from conformance.errors import ObservationError, Unsupported
from conformance.observers import observer
from conformance.observers.refusals import require_sound_pair
from conformance.run.session import Session
from conformance.serving.pool import ServerPool

# Observations; fixtures with the same names read them.
OFF_LINE = ("environment", "geometry", "moe_refusal", "moe_oracle", "parsers")
SERVED = (
    "draft_load",
    "wiring",
    "numerics",
    "parity",
    "moe",
    "kernels",
    "tools",
    "chats",
    "bad_requests",
    "load",
    "sweep",
    "bench",
    "soak",
)
# Modules that the reference of PARITY imports. A second import of the same module waits for the first.
SLOW_IMPORTS = ("conformance.reference.draft_steps", "transformers.models.gemma4.modeling_gemma4")


class Prefetch:
    """Used in the process that the user started. Under pytest-xdist, the workers make observations at the same time."""

    def __init__(self, session: Session, servers: ServerPool) -> None:
        self._session, self._servers = session, servers
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="prefetch")
        self._work: list[Future[None]] = []
        self._over = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Start the observations that the selected checks need."""
        if not self._session.evidence.recording:
            return
        wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
        if self._session.profile.has_servers and wanted & set(SERVED):
            self._work.append(self._pool.submit(self._start_servers, wanted))
        self._work.append(self._pool.submit(self._observe, [name for name in OFF_LINE if name in wanted]))
        self._work += [self._pool.submit(_import, name) for name in SLOW_IMPORTS if "parity" in wanted]

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Finish the background work before the servers are stopped and the evidence is closed."""
        self._over = True
        if not all(work.done() for work in self._work):
            self._servers.abandon()
        self._pool.shutdown()
        for work in self._work:
            work.result()

    @property
    def _sweeps(self) -> bool:
        """Whether the sweep has a server that runs at the same time as the others."""
        profile = self._session.profile
        return bool(profile.sizes.sweep_prompts) and profile.hardware.sweep == "probe" and profile.hardware.two_servers

    def _start_servers(self, wanted: Collection[str]) -> None:
        if "moe_refusal" in wanted and not self._session.profile.hardware.roomy:
            self._observe(["moe_refusal"])  # started later, it would stop the other servers
        swept = "sweep" in wanted and self._sweeps
        with _leave_failure_to_check(), self._servers.shared():
            self._observe(["refusals"])
            require_sound_pair(self._session.profile, self._servers, self._session.evidence)
            if swept:
                with _leave_failure_to_check():
                    self._servers.sweep()  # this starts the other servers too
            self._servers.mtp()

    def _observe(self, names: Sequence[str]) -> None:
        evidence, profile = self._session.evidence, self._session.profile
        for name in names:
            if not self._over:
                with _leave_failure_to_check():
                    evidence.observe(name, partial(observer(name), profile, self._servers, evidence))


def _import(name: str) -> None:
    importlib.import_module(name)


def _leave_failure_to_check() -> AbstractContextManager[None]:
    """Ignore a failure here: the evidence or the server pool keeps it for the check that needs the observation."""
    return suppress(ObservationError, Unsupported)
