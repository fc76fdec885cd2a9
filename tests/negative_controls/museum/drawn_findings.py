"""Drawn answers that show what public reports show, without the kept cases of the suite, and what a mend changes.

``python -m negative_controls.museum.drawn_findings`` reads the question of ``parser_trials``. It prints JSON:
``reports`` has for each report the first drawn answer that shows it, or null after ``MOST_BATCHES`` batches;
``mended`` has the kinds that are left of the property "schemas" where references are resolved.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

from conformance.inside_vllm.answer_trials import Answers, Given, draw
from conformance.inside_vllm.parser_input import near_native
from conformance.inside_vllm.parser_trials import Trials
from conformance.inside_vllm.parsing import Gemma4
from negative_controls.museum import parsers
from negative_controls.reported_answers import BATCH, FORMS, MOST_BATCHES, REPORTS, shows


def main() -> None:
    """Draw and judge until every report is found."""
    asked = json.load(sys.stdin)
    near_native.FORMS = {form: near_native.FORMS[form] for form in FORMS}
    parser = Gemma4(Path(asked["tokenizer"]))
    answers = Answers(parser, Trials(parser, asked["template"], 1).native)
    found = {report: first(answers, report) for report in REPORTS}
    parsers.install(lambda: parsers.references_resolved.__name__)
    mended = answers.run(asked, asked["examples"], ["schemas"])["schemas"]["kinds"]
    print(json.dumps({"reports": found, "mended": [row["kind"] for row in mended]}))


@functools.cache
def findings(answers: Answers, property: str, batch: int) -> list[dict[str, Any]]:
    """All findings of one batch."""
    rows: list[dict[str, Any]] = []

    def take(given: Given) -> None:
        judged = answers.judges[property](given)
        found = {"property": property, **judged.example}
        rows.extend({**found, "harm": harm, "causes": causes} for harm, causes in judged.wrong)

    draw(answers.drawn()[property], take, BATCH[property], str(batch))
    return rows


def first(answers: Answers, report: str) -> str | None:
    """The text of the first answer that shows the report."""
    batches = (findings(answers, REPORTS[report][0], batch) for batch in range(MOST_BATCHES))
    return next((each["text"] for rows in batches for each in rows if shows(report, each)), None)


if __name__ == "__main__":
    main()
