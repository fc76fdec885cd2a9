"""The schedule of draft lengths: vLLM itself reads it, and gives every number of requests its k."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from support import synthetic

from conformance.profile.draft_schedule import SCHEDULE, ranges, settings
from conformance.views.steps.k_by_batch import KByBatch


@pytest.fixture(scope="module")
def vllms() -> Any:
    """vLLM's own module, without the import of vLLM, which takes seconds."""
    package = importlib.util.find_spec("vllm")
    assert package
    assert package.submodule_search_locations
    path = f"{package.submodule_search_locations[0]}/v1/spec_decode/dynamic/utils.py"
    spec = importlib.util.spec_from_file_location("dynamic_utils", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("best", "rows"),
    [
        ({1: 4, 2: 4, 4: 2, 8: 2, 16: 0}, [[1, 2, 4], [3, 8, 2], [9, 16, 0]]),
        ({4: 3, 1: 8}, [[1, 1, 8], [2, 4, 3]]),
        ({64: 1}, [[1, 64, 1]]),
    ],
)
def test_vllm_gives_every_measured_number_its_k(best: dict[int, int], rows: list[list[int]], vllms: Any) -> None:
    assert ranges(best) == rows
    lookup = vllms.build_dynamic_sd_schedule_lookup(rows, max(best) + 9, max(best.values()))
    assert {number: lookup[number] for number in best} == best
    assert lookup[-1] == best[max(best)]


def test_one_k_needs_no_schedule_and_none_no_draft() -> None:
    assert settings({1: 3, 8: 3}) == {"num_speculative_tokens": 3}
    assert settings({1: 0, 8: 0}) == settings({}) == {}
    assert settings({1: 3, 8: 0})[SCHEDULE] == [[1, 1, 3], [2, 8, 0]]


def test_the_fastest_k_of_each_number_becomes_the_schedule() -> None:
    seen = KByBatch.of(synthetic.k_by_batch())
    assert seen.best() == {1: 4, 4: 2, 16: 2}
    schedule = '{"num_speculative_tokens": 4, "num_speculative_tokens_per_batch_size": [[1, 1, 4], [2, 16, 2]]}'
    assert seen.settings() == schedule
    assert seen.advice() == (
        "1 to 1 at once: k = 4; 2 to 16 at once: k = 2. In vLLM's form: "
        f"{schedule}. Read vllm#48494, vllm#49548 before a schedule is used."
    )
    assert "fastest at 1 at once: k = 4, 3.0" in seen.note()


def test_where_no_k_pays_the_advice_is_to_serve_without_mtp() -> None:
    facts = synthetic.k_by_batch()
    for row in facts["rows"]:
        row["seconds"] *= 9 if row["k"] else 1
    assert KByBatch.of(facts).advice() == "No k is shown to pay at any number of requests at once: serve without MTP."


def test_a_rate_beyond_the_published_ones_is_told() -> None:
    facts = synthetic.k_by_batch()
    assert KByBatch.of(facts).rates() == "Drafts were accepted at joint rates 0.85, 0.72, 0.62, 0.51."
    facts["joint"].append(0.42)
    assert "from position 5 on the last published share" in KByBatch.of(facts).rates()
