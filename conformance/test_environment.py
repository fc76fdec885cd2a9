"""ENV: the software is the one that was locked, and it knows Gemma 4's MTP draft."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_equal
from conformance.views.static import Environment


@check("ENV-01", level="static", claim="Installed and imported versions are those of the lock.")
def test_versions_are_locked(environment: Environment) -> None:
    """Every distribution that the lock names, and the three modules that serve as they call themselves."""
    expect_equal(environment.installed, environment.locked, source=environment)
    expect_equal(environment.imported_releases(), environment.locked_modules(), source=environment)


@check("ENV-02", level="static", claim="transformers knows the model type gemma4_assistant.", upstream="vllm#41745")
def test_transformers_knows_the_draft(environment: Environment) -> None:
    """Released transformers before 5.8 stopped at the draft's config."""
    expect_equal(environment.gemma4_assistant_known, True, source=environment, what="gemma4_assistant in transformers")


@check("ENV-03", level="static", claim="vLLM registers Gemma4MTPModel.", upstream="vllm#41745")
def test_vllm_registers_the_draft(environment: Environment) -> None:
    """vLLM has it from 0.21.0 on."""
    expect_equal(environment.mtp_model_registered, True, source=environment, what="Gemma4MTPModel in vLLM's registry")
