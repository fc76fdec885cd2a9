"""Cases of sampling options: rows of fixtures/prompts/options.jsonl, filled with what the model says by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic.dataclasses import dataclass as table

from conformance.errors import ObservationError
from conformance.formats.toml_tables import STRICT
from conformance.workload.prompts import load_rows

OPTIONS = "options.jsonl"  # in the profile's folder of prompts


@table(frozen=True, config=STRICT)
class OptionCase:
    """One row.

    ``set`` may hold "$id:5", the token at place 5 of the answer without options; "$text:5:7", the text of the tokens 5
    and 6; "$length:6", six more than its tokens; and "$k:1", one more than the drafted tokens of a step.
    """

    id: str
    licence: str
    field: str  # the option that is tested; a refusal must name it
    about: Literal["choice", "ending"]  # which tokens are chosen, or where the answer ends
    question: Literal["code", "short", "tale"]
    set: dict[str, Any]
    shows: bool = True  # whether the option must change the answer; a choice of the best token alone does not
    not_on_cpu: str = ""  # why a CPU must not be asked


@dataclass(frozen=True)
class Baseline:
    """The answer without options: its token ids, and the text of each token."""

    token_ids: Sequence[int]
    texts: Sequence[str]
    k: int


def load_options(path: Path) -> list[OptionCase]:
    """The cases of a JSON Lines file.

    Raises:
        UsageError: the file is wrong; the sentence names the file, the line and the mend.
    """
    return load_rows(path, OptionCase)


def filled(value: Any, baseline: Baseline) -> Any:
    """The value with every placeholder replaced, also in keys.

    Raises:
        ObservationError: the answer is too short for a placeholder.
    """
    if isinstance(value, Mapping):
        return {str(filled(name, baseline)): filled(each, baseline) for name, each in value.items()}
    if isinstance(value, list):
        return [filled(each, baseline) for each in value]
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    kind, *numbers = value.removeprefix("$").split(":")
    places = [int(number) for number in numbers]
    if kind == "k":
        return baseline.k + places[0]
    if kind == "length":
        return len(baseline.token_ids) + places[0]
    if max(places) >= len(baseline.token_ids):
        raise ObservationError(f"the answer of {len(baseline.token_ids)} tokens has none at place {max(places)}")
    return baseline.token_ids[places[0]] if kind == "id" else "".join(baseline.texts[places[0] : places[1]])
