"""Known-bad builds: vLLM's own code with one defect put back, and the checks that must see it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FunctionType

import pytest
from support.paths import PYTHONPATH

from conformance import FIXTURES, test_geometry
from conformance.errors import Unsupported
from conformance.judging.check import declaration, judge
from conformance.judging.diagnose import diagnose, load_known_failures
from conformance.judging.verdict import Outcome, Verdict
from conformance.observers.geometry import COMMAND, build, request
from conformance.profile.facts import Facts, load_facts
from conformance.serving.json_subprocess import Together
from conformance.views.geometry import Geometry
from negative_controls.museum.exhibits import Display, mark

MUSEUM = Path(__file__).parent / "museum"
SHOWN = {"half_width_mlp", "quantisation_leak", "moved_name", "refused_draft", "refused_configuration"}
MOVED = r"^vLLM \d+\.\d+\S* has no vllm\.model_executor\.model_loader\.utils\.initialize_model\.$"
LEAKY = "26B-A4B under nvfp4-modelopt: model.layers.0.mlp"


@pytest.fixture(scope="module")
def facts() -> Facts:
    """The facts of one pair, because the defects are the same at every size."""
    known = load_facts()
    return replace(known, drafts={"26B-A4B": known.drafts["26B-A4B"]})


Build = Callable[[str], Geometry]


@pytest.fixture(scope="module")
def built(facts: Facts) -> Iterator[Build]:
    """What a module builds; all modules run after one import of vLLM."""
    exhibits = [f"negative_controls.museum.{name}" for name in sorted(SHOWN)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PYTHONPATH)
        together = Together(dict.fromkeys((COMMAND[2], *exhibits), request(facts)))

    def build_by(module: str) -> Geometry:
        return Geometry.of(build(request(facts), (sys.executable, "-m", module), together=together), facts)

    yield build_by
    together.stop()


@pytest.fixture
def exhibit(built: Build) -> Build:
    """What an exhibit builds."""
    return lambda name: built(f"negative_controls.museum.{name}")


def outcomes(seen: Geometry) -> dict[str, Outcome]:
    functions = [value for value in vars(test_geometry).values() if isinstance(value, FunctionType)]
    return {it.id: judge(f, {"geometry": seen}) for f in functions if (it := declaration(f))}


def failing(found: dict[str, Outcome]) -> set[str]:
    assert {outcome.verdict for outcome in found.values()} <= {Verdict.PASS, Verdict.FAIL}
    return {id for id, outcome in found.items() if outcome.verdict is Verdict.FAIL}


def explained(id: str, found: dict[str, Outcome]) -> list[tuple[str, str]]:
    """The known failures that are named beside a verdict."""
    known = diagnose(id, found[id].sentence, load_known_failures(FIXTURES / "known_failures"))
    return [(it.id, it.upstream) for it in known]


def test_every_exhibit_is_shown() -> None:
    assert {path.stem for path in MUSEUM.glob("*.py")} == SHOWN | {
        "__init__",
        "drawn_findings",
        "moe_oracle",
        "cuda_graphs",
        "worker",
        "__main__",
        "api",
        "exhibits",
        "features",
        "forking_server",
        "load",
        "page",
        "parsers",
        "show",
        "surplus_ids",
        "undo",
    }
    assert all(f"`{name}.py`" in (MUSEUM / "README.md").read_text() for name in SHOWN)


def test_a_healthy_build_passes(built: Build) -> None:
    found = outcomes(built(COMMAND[2]))
    assert found.keys() == {"GEOM-01", "GEOM-02", "GEOM-03"}
    assert failing(found) == set()


@mark("build/half_width_mlp")
def test_a_draft_with_half_an_mlp(exhibit: Build, display: Display) -> None:
    found = outcomes(exhibit("half_width_mlp"))
    display(["GEOM-01"], found)
    assert failing(found) == {"GEOM-01"}
    assert (
        "26B-A4B under bf16: model.layers.0.mlp.down_proj is 4096 to 1024 where 8192 to 1024 is expected"
        in found["GEOM-01"].sentence
    )
    assert "is 1024 to 8192 where 1024 to 16384 is expected" in found["GEOM-01"].sentence
    assert explained("GEOM-01", found) == [("INTSIZE", "vllm-project/vllm#41745")]


@mark("build/quantisation_leak")
def test_a_draft_that_the_targets_quantisation_reached(exhibit: Build, display: Display) -> None:
    seen = exhibit("quantisation_leak")
    weights = seen.weights()
    assert weights[f"{LEAKY}.down_proj"] == "uint8 [1024, 4096]"
    assert weights[f"{LEAKY}.gate_up_proj"] == "uint8 [16384, 512]"
    found = outcomes(seen)
    display(["GEOM-02", "GEOM-03"], found)
    assert failing(found) == {"GEOM-02", "GEOM-03"}
    assert explained("GEOM-02", found) == [("QUANTLEAK", "vllm-project/vllm#41745")]
    packed = outcomes(only(seen, "26B-A4B under nvfp4-modelopt"))["GEOM-02"].sentence
    first = r"26B-A4B under nvfp4-modelopt: model\.\S+ is uint8 \[\d+, \d+\] where bfloat16 \["  # 0.21 quantised others
    assert re.match(first, packed)
    assert failing(outcomes(only(seen, "26B-A4B under bf16"))) == set()  # with a BF16 target it does not show


def only(seen: Geometry, name: str) -> Geometry:
    return replace(seen, builds={name: seen.builds[name]})


def test_a_name_that_moved_is_unsupported(exhibit: Build) -> None:
    with pytest.raises(Unsupported, match=MOVED):
        exhibit("moved_name")


@mark("build/refused_draft")
def test_a_draft_that_cannot_be_built_fails_beside_those_that_can(exhibit: Build, display: Display) -> None:
    found = outcomes(exhibit("refused_draft"))
    display(["GEOM-01"], found)
    assert failing(found) == {"GEOM-01"}
    assert "26B-A4B under fp8 is KeyError: 'layers.0.mlp.down_proj.weight_scale' where built is expected" in (
        found["GEOM-01"].sentence
    )


def test_configurations_that_vllm_refuses_are_named_beside_the_verdict(exhibit: Build) -> None:
    seen = exhibit("refused_configuration")
    assert set(seen.unsupported) == {"26B-A4B under fp8", "26B-A4B under nvfp4-modelopt"}
    found = outcomes(seen)
    assert failing(found) == set()
    assert re.search(
        r"26B-A4B under fp8 is unsupported: vLLM \S+ does not accept this configuration: fp8 quantization is currently "
        r"not supported in \w+\.",
        found["GEOM-01"].findings[0].note,
    )
