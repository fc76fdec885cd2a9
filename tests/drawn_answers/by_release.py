"""``python -m drawn_answers.by_release FOLDER VERSION=PYTHON …``: the same answers for the parsers of many releases.

Each Python has that release of vLLM; ``VERSION=PYTHON:PATH`` puts PATH before its packages, such as an unpacked wheel.
FOLDER gets a file for each release, and a later call leaves out those that are there. Without arguments it judges
standard input with its own vLLM: so it runs in each Python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from support.reference_parser import ReferenceParser

from conformance.inside_vllm.adapters import vllm_version
from conformance.inside_vllm.answer_trials import Answers, Given, draw
from conformance.inside_vllm.parser_input import near_native
from conformance.inside_vllm.parser_trials import Trials
from conformance.inside_vllm.parsing import Gemma4
from conformance.observers.parsers import build_request
from conformance.profile.profile import load_profile

DRAWN = {"schemas": 30, "names": 30, "cut": 30}
EACH_FORM = 5  # near-native answers
SECONDS = 3600


def main(arguments: list[str]) -> int:
    """Ask every release, or answer."""
    if not arguments:
        asked = json.load(sys.stdin)
        parser = Gemma4(Path(asked["tokenizer"]))
        answers = Answers(parser, Trials(parser, asked["template"], 1).native)
        print(json.dumps({"vllm": vllm_version(), "answers": answers.run(asked, examples=0)}))
        return 0
    folder, question = Path(arguments[0]), json.dumps(build_question())
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for version, _, where in (each.partition("=") for each in arguments[1:]):
        path = folder / f"{version}.json"
        if not path.is_file():
            print(f"{version} …", flush=True)
            found, problem = ask(question, *where.split(":"))
            failed += not found
            path.with_suffix(".json" if found else ".failed").write_text(found or problem, encoding="utf-8")
    return 1 if failed else 0


def build_question() -> dict[str, Any]:
    """Kept cases, drawn answers, every fourth published instance, and the prefixes of every third recorded answer."""
    question = build_request(load_profile("cpu", "micro-26b-a4b-nvfp4", "static"))
    parser = ReferenceParser(Path(question["tokenizer"]))
    answers = Answers(parser, Trials(parser, question["template"], 1).native)  # type: ignore[arg-type]
    strategies = answers.drawn()
    drawn = [(property, given) for property, count in DRAWN.items() for given in taken(strategies[property], count)]
    drawn += [("near_native", given) for form in near_native.FORMS for given in taken(near_native_of(form), EACH_FORM)]
    rows = [{"property": property, "example": {"given": given}} for property, given in drawn]
    return question | {
        "regressions": [*question["regressions"], *rows],
        "suite": question["suite"][::4],
        "streams": question["streams"][::3],
    }


def taken(strategy: st.SearchStrategy[Given], count: int) -> list[Given]:
    """So many answers of a strategy, always the same."""
    found: list[Given] = []
    draw(strategy, lambda given: found.append(given), count)
    return found


def near_native_of(form: str) -> st.SearchStrategy[Given]:
    """Near-native answers of one form."""
    return st.builds(
        lambda drawn: {"form": form, "tools": drawn[0], "calls": [vars(call) for call in drawn[1]], "sizes": [1]},
        near_native.calls(),
    )


def ask(question: str, python: str, path: str = "") -> tuple[str, str]:
    """What a release finds as JSON, or else why it finds nothing."""
    environment = {**os.environ, "PYTHONPATH": ":".join(filter(None, (path, os.environ["PYTHONPATH"])))}
    environment |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        (python, "-m", "drawn_answers.by_release"),
        input=question,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return (done.stdout.splitlines()[-1], "") if done.returncode == 0 else ("", done.stderr[-4000:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
