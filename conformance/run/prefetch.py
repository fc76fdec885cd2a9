"""A pytest plugin that makes in the background what needs no quiet: servers load while other things are looked at."""

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

# Observations, and the fixtures that read them.
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
# What the reference of PARITY will import; whoever comes first does it, the others wait.
SLOW_IMPORTS = ("conformance.reference.draft_steps", "transformers.models.gemma4.modeling_gemma4")


class Prefetch:
    """Lives in a session of one process; pytest-xdist's workers share the work among themselves anyway."""

    def __init__(self, session: Session, servers: ServerPool) -> None:
        self._session, self._servers = session, servers
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="backstage")
        self._work: list[Future[None]] = []
        self._over = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Begin with whatever the selected checks will ask for."""
        if not self._session.evidence.recording:
            return
        wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
        if self._session.profile.has_servers and wanted & set(SERVED):
            self._work.append(self._pool.submit(self._start_servers, wanted))
        self._work.append(self._pool.submit(self._observe, [name for name in OFF_LINE if name in wanted]))
        self._work += [self._pool.submit(_import, name) for name in SLOW_IMPORTS if "parity" in wanted]

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Nothing goes on when the servers are stopped and the evidence is closed."""
        self._over = True
        if not all(work.done() for work in self._work):
            self._servers.abandon()
        self._pool.shutdown()
        for work in self._work:
            work.result()

    @property
    def _sweeps(self) -> bool:
        """Whether the sweep has a server that is up beside the others."""
        profile = self._session.profile
        return bool(profile.sizes.sweep_prompts) and profile.hardware.sweep == "probe" and profile.hardware.two_servers

    def _start_servers(self, wanted: Collection[str]) -> None:
        if "moe_refusal" in wanted and not self._session.profile.hardware.roomy:
            self._observe(["moe_refusal"])  # later it would stop the others
        swept = "sweep" in wanted and self._sweeps
        with _left_to_whoever_asks(), self._servers.beside():
            self._observe(["refusals"])
            require_sound_pair(self._session.profile, self._servers, self._session.evidence)
            if swept:
                with _left_to_whoever_asks():
                    self._servers.sweep()  # brings the others with it
            self._servers.mtp()

    def _observe(self, names: Sequence[str]) -> None:
        evidence, profile = self._session.evidence, self._session.profile
        for name in names:
            if not self._over:
                with _left_to_whoever_asks():
                    evidence.observe(name, partial(observer(name), profile, self._servers, evidence))


def _import(name: str) -> None:
    importlib.import_module(name)


def _left_to_whoever_asks() -> AbstractContextManager[None]:
    """A failure is kept in the evidence, or by the servers, and told to the check that needs what failed."""
    return suppress(ObservationError, Unsupported)
