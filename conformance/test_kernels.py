"""MOE: the target's experts run on the kernel expected on this hardware, and impossible backends are refused."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_all, expect_equal, expect_match, expect_none
from conformance.views.inside import Kernels, Moe, MoeRefusal
from conformance.views.moe_oracle import MoeOracle

REFUSAL = r"^(ValueError|NotImplementedError): .*(?i:moe[ _]backend)"


@check(
    "MOE-01",
    level="smoke",
    severity="slow",
    response="change-kernel",
    oracle="published",
    claim="The experts run on the MoE backend expected on this hardware.",
    upstream="vllm#42027",
)
def test_moe_backend(moe: Moe) -> None:
    """According to the layers themselves, and according to the log."""
    expect_all(moe.backends(), (moe.expected(),), source=moe)
    expect_all(moe.logged(), (moe.expected(),), source=moe)


@check(
    "MOE-02",
    level="qualify",
    severity="blocks serving",
    response="change-release",
    oracle="published",
    claim="The server refuses to start with a MoE backend that cannot serve, and vLLM gives the reason.",
)
def test_moe_refusal(moe_refusal: MoeRefusal) -> None:
    """vLLM must not silently replace a backend that was requested by name."""
    expect_match(moe_refusal.ending(), REFUSAL, source=moe_refusal, what=f"--moe-backend {moe_refusal.backend}")


@check(
    "MOE-03",
    level="static",
    severity="slow",
    response="change-kernel",
    oracle="published",
    claim="vLLM selects the expected MoE backend on every SM.",
    upstream="vllm#42027",
)
def test_moe_choice(moe_oracle: MoeOracle) -> None:
    """The installed vLLM selects for Gemma 4's experts. Backends whose library is not installed are left out."""
    expect_equal(moe_oracle.chosen(), moe_oracle.expected(), source=moe_oracle, note=moe_oracle.left_out())


@check(
    "MOE-04",
    level="static",
    severity="informational",
    response="change-release",
    oracle="self-consistent",
    no_better_oracle="Only vLLM knows which backend cannot serve; MOE-03 compares its choice with recorded facts.",
    claim="vLLM raises a ValueError with a reason for a requested MoE backend that cannot serve.",
)
def test_moe_requests(moe_oracle: MoeOracle) -> None:
    """On every SM and on the CPU. vLLM never selects another backend instead."""
    expect_none(moe_oracle.wrong_refusals(), among=len(moe_oracle.refused_requests()), source=moe_oracle)


@check(
    "MOE-05",
    level="static",
    severity="slow",
    response="change-kernel",
    oracle="published",
    claim="No GPU falls back to EMULATION.",
    upstream="vllm#42027",
)
def test_moe_emulation(moe_oracle: MoeOracle) -> None:
    """Every GPU also has a kernel."""
    expect_none(moe_oracle.fallbacks(), among=len(moe_oracle.gpus()), source=moe_oracle)


@check(
    "MOE-06",
    level="smoke",
    severity="slow",
    response="change-kernel",
    oracle="self-consistent",
    no_better_oracle="Classes of experts have other names in each release; MOE-01 compares the backend with a fact.",
    claim="Every MoE layer of the running server uses the same class of experts.",
)
def test_moe_classes(moe: Moe) -> None:
    """A layer that fell back alone has another kernel class than the other layers, whatever the log says."""
    expect_all(moe.experts(), (moe.experts_of_the_first_layer(),), source=moe)


@check(
    "MOE-07",
    level="qualify",
    severity="slow",
    response="change-kernel",
    oracle="published",
    claim="The device executes the kernel of the expected MoE backend.",
)
def test_moe_kernels(kernels: Kernels) -> None:
    """By kernel names in torch's profiler. Only this check finds a layer that names one backend and runs another."""
    expect_none(kernels.unexpected_kernels(), among=len(kernels.executed), source=kernels, note=kernels.note())
