"""``scripts/draw_answers FOLDER --keep``: keeps the shortest input of each kind in the suite's own cases."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from conformance.inside_vllm.answer_trials import Answers, Causes, Given
from conformance.inside_vllm.parser_findings import REFUSED
from conformance.workload.parser_cases import load_regressions, write_regressions
from drawn_answers.batch import PROPERTIES
from drawn_answers.shrink import shrink

Key = tuple[str, str, Causes]  # property, harm, causes


def keep(path: Path, found: Iterable[tuple[str, Given]], answers: Answers) -> list[str]:
    """Write the shortest input of each kind into the file; a sentence for each kind.

    ``found`` are inputs, each with its property; those that the file has are tried too.

    Inputs that show nothing with this parser stay: another release may have their kind.
    """
    rows = load_regressions(path)
    drawn = [row for row in rows if row["property"] in PROPERTIES]
    idle = [row for row in drawn if not list(_keys(answers, row["property"], row["example"]["given"]))]
    best: dict[Key, Given] = {}
    known = [(row["property"], row["example"]["given"]) for row in drawn]
    for property, given in [*known, *found]:
        for key in _keys(answers, property, given):
            if key not in best or _size(given) < _size(best[key]):
                best[key] = given
    examples, told = list[tuple[str, Mapping[str, Any]]](), []
    for key, given in sorted(best.items(), key=lambda item: item[0]):
        if _is_a_kind(key, best):
            small = shrink(key[0], given, lambda each, key=key: key in _keys(answers, key[0], each))  # type: ignore[misc]
            examples.append((key[0], answers.judges[key[0]](small).example))
            told.append(f"{key[0]}: {key[1]}: {' with '.join(key[2])}: {examples[-1][1]['text']}")
    others = [row for row in rows if row not in drawn]
    write_regressions(path, [*others, *idle], examples)
    return told


def _keys(answers: Answers, property: str, given: Given) -> Iterator[Key]:
    for harm, causes in answers.judges[property](given).wrong:
        if harm != REFUSED or property != "near_native":
            yield property, harm, causes


def _is_a_kind(key: Key, best: Mapping[Key, Given]) -> bool:
    """A finding with several causes is one only if none of them is a kind of its own."""
    property, harm, causes = key
    return len(causes) <= 1 or not any((property, harm, (cause,)) in best for cause in causes)


def _size(given: Given) -> int:
    return len(json.dumps(given))
