"""A schedule of draft lengths by the number of requests at once, in the form of vLLM's speculative configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCHEDULE = "num_speculative_tokens_per_batch_size"  # vllm/config/speculative.py
LONGEST = "num_speculative_tokens"


def ranges(best: Mapping[int, int]) -> list[list[int]]:
    """Rows [first, last, k] of numbers of requests; ``best`` has the k of each measured number.

    Between two measured numbers the k of the larger one holds, because more requests leave less room for drafts. vLLM
    uses the last row for larger numbers too.
    """
    found: list[list[int]] = []
    for number, k in sorted(best.items()):
        if found and found[-1][2] == k:
            found[-1][1] = number
        else:
            found.append([found[-1][1] + 1 if found else 1, number, k])
    return found


def settings(best: Mapping[int, int]) -> dict[str, Any]:
    """The keys of ``--speculative-config``: one k if it is the same for every number, else a schedule.

    It is empty if drafts pay nowhere.
    """
    longest = max(best.values(), default=0)
    if not longest:
        return {}
    if set(best.values()) == {longest}:
        return {LONGEST: longest}
    return {LONGEST: longest, SCHEDULE: ranges(best)}
