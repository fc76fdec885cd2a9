"""ENV: the installed software matches the lock and supports Gemma 4's MTP draft."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_equal
from conformance.views.static import Environment


@check(
    "ENV-01",
    level="static",
    severity="informational",
    response="install-lock",
    oracle="published",
    claim="The installed and imported versions match the lock.",
)
def test_versions_are_locked(environment: Environment) -> None:
    """Every distribution that the lock names, and the versions that the three serving modules report themselves.

    NVIDIA's libraries that a bundle of wheels left to the machine are listed with the machine's versions.
    """
    expect_equal(environment.installed, environment.locked, source=environment, note=environment.own_libraries)
    expect_equal(environment.imported_releases(), environment.locked_modules(), source=environment)


@check(
    "ENV-02",
    level="static",
    severity="blocks serving",
    response="change-release",
    oracle="self-consistent",
    no_better_oracle="Only transformers knows which model types it has; the DRAFT and GEOM checks then use the type.",
    claim="transformers knows the model type gemma4_assistant.",
    upstream="vllm#41745",
)
def test_transformers_knows_the_draft(environment: Environment) -> None:
    """transformers before 5.8 cannot read the draft's config."""
    expect_equal(
        environment.gemma4_assistant_known, True, source=environment, what='"transformers knows gemma4_assistant"'
    )


@check(
    "ENV-03",
    level="static",
    severity="blocks serving",
    response="change-release",
    oracle="self-consistent",
    no_better_oracle="Only vLLM knows which models it has; the GEOM checks then build this one.",
    claim="vLLM registers Gemma4MTPModel.",
    upstream="vllm#41745",
)
def test_vllm_registers_the_draft(environment: Environment) -> None:
    """vLLM has had this model since 0.21.0."""
    expect_equal(environment.mtp_model_registered, True, source=environment, what='"vLLM registers Gemma4MTPModel"')
