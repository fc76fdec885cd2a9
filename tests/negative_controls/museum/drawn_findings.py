"""Every finding among drawn answers, without the kept cases of the suite.

``python -m negative_controls.museum.drawn_findings`` reads the question of ``parser_trials`` with ``drawn``, the number
of answers of each property, and ``forms`` of near-native answers; each finding is a line of JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from conformance.inside_vllm.answer_trials import Answers, Given, draw
from conformance.inside_vllm.parser_input import near_native
from conformance.inside_vllm.parser_trials import Trials
from conformance.inside_vllm.parsing import Gemma4


def main() -> None:
    """Draw and judge."""
    asked = json.load(sys.stdin)
    near_native.FORMS = {form: near_native.FORMS[form] for form in asked["forms"]}
    parser = Gemma4(Path(asked["tokenizer"]))
    answers = Answers(parser, Trials(parser, asked["template"], 1).native)
    for property, count in asked["drawn"].items():
        draw(answers.drawn()[property], printing(answers, property), count)


def printing(answers: Answers, property: str) -> Callable[[Given], None]:
    """A function that judges an answer and prints its findings."""

    def take(given: Given) -> None:
        judged = answers.judges[property](given)
        for harm, causes in judged.wrong:
            print(json.dumps({"property": property, "harm": harm, "causes": causes, **judged.example}))

    return take


if __name__ == "__main__":
    main()
