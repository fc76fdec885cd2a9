"""Options and fixtures of ``pytest conformance/``; the hooks are in ``harness/plugin.py``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import pytest

from conformance import FIXTURES
from conformance.harness.calibration import load_plan
from conformance.harness.closeness import Bound, Likeness, load_bounds, load_likeness
from conformance.harness.containers import PROGRAMS
from conformance.harness.evidence import Evidence
from conformance.harness.facts import Facts, load_facts
from conformance.harness.floors import Floors, load_floors
from conformance.harness.looks import Looks
from conformance.harness.moe_facts import load_moe_facts
from conformance.harness.observers import observer
from conformance.harness.profile import LEVELS, Profile
from conformance.harness.servers import Servers
from conformance.harness.tolerances import Tolerances, load_tolerances
from conformance.harness.views.answers import Tools
from conformance.harness.views.bench import Bench
from conformance.harness.views.calibration import Calibration
from conformance.harness.views.chat import Chat, Chats
from conformance.harness.views.geometry import Geometry
from conformance.harness.views.gold import Gold, NearTie, load_near_tie
from conformance.harness.views.inside import DraftLoad, Kernels, Moe, MoeRefusal
from conformance.harness.views.load import Load
from conformance.harness.views.misuse import Misuse
from conformance.harness.views.numerics import Numerics
from conformance.harness.views.oracle import MoeOracle
from conformance.harness.views.parity import Parity
from conformance.harness.views.parsers import Parsers
from conformance.harness.views.published import Published
from conformance.harness.views.sampling import Sampling
from conformance.harness.views.soak import Soak
from conformance.harness.views.static import Environment, Headers, Refusals
from conformance.harness.views.sweep import Sweep
from conformance.harness.views.texts import Form, Texts
from conformance.harness.views.wiring import Attention, PairConfig, Wiring

if TYPE_CHECKING:
    from conformance.harness.plugin import Judge

pytest_plugins = ("conformance.harness.plugin",)

Observe = Callable[[str], dict[str, Any]]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The command's options, for those who call pytest themselves."""
    group = parser.getgroup("conformance")
    group.addoption("--hardware", help="a name in fixtures/hardware, or a TOML file (default: what is detected)")
    group.addoption("--pair", help="a name in fixtures/models, or a TOML file (default: micro-26b-a4b-nvfp4)")
    group.addoption("--level", choices=LEVELS, help="how much to inspect (default: qualify)")
    group.addoption(
        "--minutes", type=float, metavar="N", help="how long --level soak holds its load (default: as in levels.toml)"
    )
    group.addoption("--evidence", metavar="DIR", help="where to record; a finished recording is judged again instead")
    group.addoption("--resume", metavar="DIR", help="go on with evidence that a run left unfinished")
    group.addoption(
        "--dataset", metavar="FILE", help="JSON Lines to ask instead of the mixed prompts, as for vllm bench"
    )
    group.addoption("--attach", metavar="URL", help="judge a server with MTP that somebody else runs; starts none")
    group.addoption("--attach-plain", metavar="URL", help="the same without MTP, to compare the attached one with")
    group.addoption("--model", metavar="NAME", help="which model to ask, where attached servers have several")
    group.addoption("--image", help="start the servers in containers of this image")
    group.addoption("--container", choices=PROGRAMS, help="what runs it (default: docker, or podman where that is not)")
    group.addoption("--ssh", metavar="HOST", help="start the servers on another host, by OpenSSH; needs --hardware")
    group.addoption("--ssh-python", metavar="PATH", help="its Python with vLLM and suite (default: this one's path)")
    group.addoption("--recorded-only", action="store_true", help="judge what --evidence holds, observe nothing")
    group.addoption("--no-reports", action="store_true", help="leave the reports beside the evidence as they are")
    group.addoption("--certify", action="store_true", help="allow no waiver, nothing unsupported, nothing left out")
    group.addoption("--unlocked", action="store_true", help="hold what is installed against no lock; the run says so")
    group.addoption("--moe-table", action="store_true", help="print vLLM's choice of a MoE kernel by device and exit")
    group.addoption("--plan", action="store_true", help="print how many samples each floor needs and exit")
    group.addoption("--list-checks", action="store_true", help="print the catalogue of checks and exit")


@pytest.fixture(scope="session")
def judge(pytestconfig: pytest.Config) -> Judge:
    """What the plugin made of the options."""
    return cast("Judge", pytestconfig.pluginmanager.get_plugin("conformance-judge"))


@pytest.fixture(scope="session")
def profile(judge: Judge) -> Profile:
    """Hardware, pair and level of this session."""
    return judge.session.profile


@pytest.fixture(scope="session")
def evidence(judge: Judge) -> Evidence:
    """The directory that observations are kept in."""
    return judge.session.evidence


@pytest.fixture(scope="session")
def servers(judge: Judge) -> Servers:
    """The servers, started at first need and stopped by the process that began the session."""
    return judge.servers


@pytest.fixture(scope="session")
def floors(profile: Profile) -> Floors:
    """The lower bounds of this hardware and pair."""
    return load_floors(FIXTURES / "floors", profile.hardware.name, profile.pair.name, profile.pair.k)


@pytest.fixture(scope="session")
def observe(profile: Profile, servers: Servers, evidence: Evidence) -> Observe:
    """An observation by its name: read from the evidence, made first if it is not there."""
    return lambda name: evidence.observe(name, lambda: observer(name)(profile, servers, evidence))


@pytest.fixture(scope="session")
def environment(observe: Observe) -> Environment:
    """Versions as installed, imported and locked."""
    return Environment.of(observe("environment"))


@pytest.fixture(scope="session")
def draft_checkpoint(observe: Observe) -> Headers:
    """Tensors and config of the draft's checkpoint."""
    return Headers.of_draft(observe("checkpoint"))


@pytest.fixture(scope="session")
def published(observe: Observe, facts: Facts) -> Published:
    """Both checkpoints beside what is known of the published ones."""
    return Published.of(observe("checkpoint"), facts)


@pytest.fixture(scope="session")
def refusals(observe: Observe) -> Refusals:
    """Why the pair must not be served."""
    return Refusals.of(observe("refusals"))


@pytest.fixture(scope="session")
def facts() -> Facts:
    """What is known of the published checkpoints."""
    return load_facts()


@pytest.fixture(scope="session")
def geometry(observe: Observe, facts: Facts) -> Geometry:
    """The draft as this vLLM builds it at every published size."""
    return Geometry.of(observe("geometry"), facts)


@pytest.fixture(scope="session")
def draft_load(observe: Observe) -> DraftLoad:
    """The draft as vLLM loaded it."""
    return DraftLoad.of(observe("draft_load"))


@pytest.fixture(scope="session")
def pair_config(observe: Observe) -> PairConfig:
    """Both configs of the pair."""
    return PairConfig.of(observe("checkpoint"))


@pytest.fixture(scope="session")
def wiring(observe: Observe) -> Wiring:
    """What the draft is wired to."""
    return Wiring.of(observe("wiring"))


@pytest.fixture(scope="session")
def attention(observe: Observe, profile: Profile) -> Attention:
    """What the attention layers run on."""
    return Attention.of(observe("wiring"), profile)


@pytest.fixture(scope="session")
def numerics(observe: Observe) -> Numerics:
    """Outputs of single modules beside their reference."""
    return Numerics.of(observe("numerics"))


@pytest.fixture(scope="session")
def parity(observe: Observe, tolerances: Tolerances) -> Parity:
    """Captured draft steps beside transformers' own."""
    return Parity.of(observe("parity"), tolerances["parity_proposals"])


@pytest.fixture(scope="session")
def gold(observe: Observe, load: Looks[Load]) -> Gold:
    """Greedy answers beside those of transformers."""
    found = observe("gold")
    return Gold.of(load.first(), found, FIXTURES / "gold")


@pytest.fixture(scope="session")
def near_tie() -> NearTie:
    """Where a greedy answer may go either way."""
    return load_near_tie(FIXTURES / "facts" / "gold.toml")


@pytest.fixture(scope="session")
def numeric_bounds() -> Mapping[str, Bound]:
    """How exact a module has to be."""
    return load_bounds(FIXTURES / "facts" / "numerics.toml")


@pytest.fixture(scope="session")
def moe(observe: Observe, profile: Profile) -> Moe:
    """The backend that serves the target's experts."""
    return Moe.of(observe("moe"), profile)


@pytest.fixture(scope="session")
def kernels(observe: Observe, moe: Moe) -> Kernels:
    """What the device executes."""
    return Kernels.of(observe("kernels"), moe, load_moe_facts().kernels)


@pytest.fixture(scope="session")
def moe_refusal(observe: Observe) -> MoeRefusal:
    """A start with a backend that this hardware cannot have."""
    return MoeRefusal.of(observe("moe_refusal"))


@pytest.fixture(scope="session")
def moe_oracle(observe: Observe) -> MoeOracle:
    """The kernel that vLLM would choose on every device."""
    return MoeOracle.of(observe("moe_oracle"), load_moe_facts().expected)


@pytest.fixture(scope="session")
def tools(observe: Observe) -> Tools:
    """Tool calls, in one piece and streamed."""
    return Tools.of(observe("tools"))


@pytest.fixture(scope="session")
def parsers(observe: Observe) -> Parsers:
    """The parser as a function."""
    return Parsers.of(observe("parsers"))


@pytest.fixture(scope="session")
def chats(observe: Observe) -> Chats:
    """Chats whose right answer is known, by group."""
    return lambda *groups: Chat.of([observe(f"chat-{group}") for group in groups])


@pytest.fixture(scope="session")
def misuse(observe: Observe) -> Misuse:
    """Wrong requests and clients that left."""
    return Misuse.of(observe("misuse"))


@pytest.fixture(scope="session")
def load(observe: Observe, profile: Profile, evidence: Evidence) -> Looks[Load]:
    """The same prompts with and without MTP, look by look."""

    def seen(look: int) -> Load | None:
        names = ["load", *(f"load-{number}" for number in range(2, look + 1))]
        if look > 1 and not evidence.recording and not evidence.holds(names[-1]):
            return None
        return Load.of([observe(name) for name in names])

    return Looks(profile.sizes.looks, functools.cache(seen))


@pytest.fixture(scope="session")
def texts(observe: Observe) -> Texts:
    """Where answers with MTP leave those without."""
    return Texts.of(observe("ties"))


@pytest.fixture(scope="session")
def sampling(observe: Observe) -> Sampling:
    """Tokens sampled with and without MTP."""
    return Sampling.of(observe("sampling"))


@pytest.fixture(scope="session")
def likeness() -> Likeness:
    """When two samples count as drawn from one distribution."""
    return load_likeness(FIXTURES / "facts" / "sampling.toml")


@pytest.fixture(scope="session")
def form(observe: Observe, load: Looks[Load]) -> Form:
    """How answers end and go on."""
    return Form.of(load.first(), observe("checkpoint"))


@pytest.fixture(scope="session")
def tolerances() -> Tolerances:
    """How far two things that should be the same may differ."""
    return load_tolerances()


@pytest.fixture(scope="session")
def calibration(observe: Observe) -> Calibration:
    """Accepted draft tokens where chance alone accepts them, at known rates."""
    return Calibration.of(observe("calibration"), load_plan())


@pytest.fixture(scope="session")
def sweep(observe: Observe) -> Sweep:
    """Seconds and acceptance at every k."""
    return Sweep.of(observe("sweep"))


@pytest.fixture(scope="session")
def bench(observe: Observe) -> Bench:
    """Our client beside vllm bench serve."""
    return Bench.of(observe("bench"))


@pytest.fixture(scope="session")
def soak(observe: Observe, tolerances: Tolerances) -> Soak:
    """A load that was held for minutes."""
    return Soak.of(observe("soak"), tolerances["soak_warm_up"])
