"""Where the value comes from that a check expects: one word in each check's declaration."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Oracle(StrEnum):
    """How strong the comparison of a check is, the strongest first."""

    INDEPENDENT = "independent"
    PAIRED = "paired"
    PUBLISHED = "published"
    SELF_CONSISTENT = "self-consistent"


MEANINGS: Mapping[Oracle, str] = {
    Oracle.INDEPENDENT: "Without vLLM: transformers in float32, jsonschema, the checkpoint's files, or the request.",
    Oracle.PAIRED: "vLLM is asked twice, and one thing differs: MTP, the batch, the deltas, or the time.",
    Oracle.PUBLISHED: "A figure or a fact from `fixtures/`, which names its source.",
    Oracle.SELF_CONSISTENT: "What vLLM says of itself, or earlier runs of this suite.",
}


def checked_oracle(id: str, oracle: str, no_better_oracle: str) -> Oracle:
    """The word as ``Oracle``.

    Raises:
        ValueError: the word is unknown, or the reason is missing, no sentence, or beside a stronger oracle.
    """
    if oracle not in list(Oracle):
        raise ValueError(f"{id}: oracle {oracle!r} is none of {', '.join(Oracle)}")
    if oracle != Oracle.SELF_CONSISTENT:
        if no_better_oracle:
            raise ValueError(f"{id}: no_better_oracle is only for {Oracle.SELF_CONSISTENT} checks")
    elif not no_better_oracle.endswith(".") or " " not in no_better_oracle:
        raise ValueError(f"{id}: no_better_oracle must say in a sentence why only vLLM itself knows what is right")
    return Oracle(oracle)
