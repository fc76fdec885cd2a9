"""MOE: the target's experts run on the kernel that this hardware should have, and a wrong wish is refused."""

from __future__ import annotations

from conformance.harness.check import check, expect_all, expect_match
from conformance.harness.views.inside import Moe, MoeRefusal

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
