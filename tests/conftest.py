"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from support.micro_pair import MicroPair

    from conformance.serving.server import Server


def pytest_configure(config: pytest.Config) -> None:
    from support.budgets import Budgets

    config.pluginmanager.register(Budgets())
    config.addinivalue_line("markers", "server: starts a real vLLM server, which takes tens of seconds")
    config.addinivalue_line("markers", "faults: one of the slow faults, which scripts/test runs with --all only")
    config.addinivalue_line("markers", "fault(declared): what goes wrong here; see support/faults.py")
    config.addinivalue_line("markers", "alone: measures time, so nothing may run beside it")
    config.addinivalue_line("markers", "quick: starts a real server, and scripts/test runs it without --all too")
    config.addinivalue_line("markers", "long: needs much processor time, so scripts/test runs it with --all only")
    config.addinivalue_line("markers", "builds: builds a whole environment, which takes a minute")
    config.addinivalue_line("markers", "exhibit(name): shows a defect of museum/exhibits.toml, as room/name")


@pytest.fixture(scope="session", autouse=True)
def own_durations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What earlier runs on this machine took is not known, and tests add nothing to it."""
    from conformance.run import durations

    folder = tmp_path_factory.mktemp("durations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durations, "user_cache_path", lambda _: folder)
        yield


@pytest.fixture(scope="session")
def micro_pair(tmp_path_factory: pytest.TempPathFactory) -> MicroPair:
    """A random-weight pair: BF16 target, NVFP4 target, draft."""
    from support.micro_pair import make_micro_pair

    return make_micro_pair(tmp_path_factory.mktemp("micro-pair"))


@pytest.fixture(scope="session")
def timed_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """Both servers of the tests that measure time, which run one after another, with the museum's probe."""
    from negative_controls.museum.show import on_show

    from conformance.profile.arms import MTP, PLAIN
    from conformance.profile.profile import load_profile

    profile = load_profile("cpu", "micro-26b-a4b-nvfp4", "qualify")
    with on_show(profile, tmp_path_factory.mktemp("timed"), MTP, PLAIN) as up:
        yield up


@pytest.fixture
def pristine() -> Iterator[Any]:
    """vLLM's modelopt module and linear kernels as upstream made them, put back afterwards."""
    from vllm.model_executor.kernels import linear
    from vllm.model_executor.layers.quantization import modelopt
    from vllm.platforms import PlatformEnum

    config, kernels = modelopt.ModelOptNvFp4Config, linear._POSSIBLE_NVFP4_KERNELS
    method = config.__dict__["FusedMoEMethodCls"]
    config.FusedMoEMethodCls = modelopt.ModelOptNvFp4FusedMoE
    before = kernels.pop(PlatformEnum.CPU, None)
    yield SimpleNamespace(modelopt=modelopt, linear=linear, kernels=kernels, cpu=PlatformEnum.CPU)
    config.FusedMoEMethodCls = method
    kernels.pop(PlatformEnum.CPU, None)
    if before is not None:
        kernels[PlatformEnum.CPU] = before


@pytest.fixture
def no_waivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A healthy run as made up by tests has none of the defects that the shipped waivers are about."""
    from conformance.run import session

    monkeypatch.setattr(session, "load_waivers", lambda _: ())
