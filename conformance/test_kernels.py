"""MOE: the target's experts run on the kernel that this hardware should have, and a wrong wish is refused."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_all, expect_equal, expect_match, expect_none
from conformance.views.inside import Kernels, Moe, MoeRefusal
from conformance.views.moe_oracle import MoeOracle

REFUSAL = r"^(ValueError|NotImplementedError): .*(?i:moe[ _]backend)"


@check("MOE-01", level="smoke", claim="The experts run on the MoE backend expected here.", upstream="vllm#42027")
def test_moe_backend(moe: Moe) -> None:
    """As the layers themselves say it, and as the log does."""
    expect_all(moe.backends(), (moe.expected(),), source=moe)
    expect_all(moe.logged(), (moe.expected(),), source=moe)


@check("MOE-02", level="qualify", claim="A MoE backend that cannot serve is refused at start, with vLLM's reason.")
def test_moe_refusal(moe_refusal: MoeRefusal) -> None:
    """Asked for by name, it must not be replaced in silence."""
    expect_match(moe_refusal.ending(), REFUSAL, source=moe_refusal, what=f"--moe-backend {moe_refusal.backend}")


@check(
    "MOE-03",
    level="static",
    claim="vLLM's own selection chooses the expected MoE backend on every SM.",
    upstream="vllm#42027",
)
def test_moe_choice(moe_oracle: MoeOracle) -> None:
    """Asked of the installed vLLM with Gemma 4's experts; backends whose library is not here are left out."""
    expect_equal(moe_oracle.chosen(), moe_oracle.expected(), source=moe_oracle, note=moe_oracle.left_out())


@check(
    "MOE-04",
    level="static",
    claim="A MoE backend asked for by name that cannot serve is a ValueError with a reason.",
)
def test_moe_requests(moe_oracle: MoeOracle) -> None:
    """On every SM and on the CPU; never another backend in its place."""
    expect_none(moe_oracle.unrefused(), among=len(moe_oracle.refused_requests()), source=moe_oracle)


@check("MOE-05", level="static", claim="No GPU falls back to EMULATION.", upstream="vllm#42027")
def test_moe_emulation(moe_oracle: MoeOracle) -> None:
    """Nor is any left without a kernel."""
    expect_none(moe_oracle.fallbacks(), among=len(moe_oracle.gpus()), source=moe_oracle)


@check("MOE-06", level="smoke", claim="One class of experts serves every MoE layer of the running server.")
def test_moe_classes(moe: Moe) -> None:
    """A layer that fell back by itself has another kernel object than its neighbours, whatever the log says."""
    expect_all(moe.experts(), (moe.experts_of_the_first_layer(),), source=moe)


@check("MOE-07", level="qualify", claim="What the device executes is the expected MoE backend's kernel.")
def test_moe_kernels(kernels: Kernels) -> None:
    """By its name in torch's profiler: a layer that names one backend and runs another is found here alone."""
    expect_none(kernels.strangers(), among=len(kernels.executed), source=kernels, note=kernels.note())
