"""Reports of made-up runs. Every text that a server, a model or a log could have written is an attack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conformance.judging.verdict import Diagnosis, Finding, Record, Run, Verdict, judge_run
from conformance.profile.profile import load_profile
from conformance.reports.report import Report, gather
from support import synthetic

ATTACK = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
ATTACK += "](http://x) |\n\n| @somebody #1 `"
UNBROKEN = "0x" + "f" * 400

PASSED = Record(
    "ACC-02",
    "Joint acceptance reaches its floor at every draft position.",
    "qualify",
    Verdict.PASS,
    "reaches",
    2.0,
    tuple(
        Finding(Verdict.PASS, "reaches", f"0.9{i}1", f"0.{i}", 120, (0.9, 0.95), "observations/load.json", ATTACK)
        for i in range(1, 5)
    ),
)
FAILED = Record(
    "DRAFT-01",
    "The draft's MLP is as wide as its checkpoint says.",
    "smoke",
    Verdict.FAIL,
    f"{ATTACK} is {UNBROKEN}",
    31.25,
    (Finding(Verdict.FAIL, ATTACK, "7 of 8", "all", 8, None, "observations/draft_load.json, observations/moe.json"),),
    details=f"log line \x1b[31mred\x1b[0m {ATTACK}",
    upstream="vllm#41745",
    diagnoses=(Diagnosis("INTSIZE", "vllm-project/vllm#41745", "Use a release."),),
)
WAIVED = Record(
    "API-07",
    "Broken schemas and grammars are refused as the client's fault, never with a 5xx.",
    "qualify",
    Verdict.WAIVED,
    "got HTTP 500",
    1.0,
    (Finding(Verdict.FAIL, "got HTTP 500", "7 of 8", "all", 8, None, "observations/bad_requests.json"),),
    waiver="a grammar is no client's fault (https://github.com/vllm-project/vllm/issues/57725; us, until 2027-03-31)",
)
OTHERS = tuple(
    Record(f"ENV-{number:02}", "A claim.", "static", verdict, f"{verdict} it is", 0.0)
    for number, verdict in enumerate((Verdict.INCONCLUSIVE, Verdict.UNSUPPORTED, Verdict.ERROR), 1)
)
EVERY = (PASSED, FAILED, WAIVED, *OTHERS)


def diverged() -> synthetic.Documents:
    """A run whose answers to one prompt differ after ten tokens, just before an attack."""
    documents = synthetic.healthy()
    for row in documents["load"]["rounds"]:
        answers = [row[arm]["answers"][row["prompts"].index("code-00")] for arm in ("plain", "mtp") if has(row, arm)]
        for answer, text in zip(answers, ("return 1", f"return {ATTACK}"), strict=False):
            answer["text"] = f"def f():\n    {text}"
        if answers:
            answers[1]["token_ids"][10] += 1
    between = ["plain 1", "mtp 1"]
    documents["near_ties"]["divergences"] = [
        {"id": "code-00", "between": between, "place": 10, "tokens": [7, 8], "gap": 0.06},
        {"id": "nowhere", "between": between, "place": 3, "tokens": [7, None], "gap": 0.02},
        {"id": "code-00", "between": ["plain 1", "plain_again 1"], "place": 3, "tokens": [7, 9], "gap": 0.01},
    ]
    documents["environment"]["platform"] = ATTACK
    return documents


def has(row: Mapping[str, Any], arm: str) -> bool:
    """Whether this arm was asked the prompt in a round."""
    return "code-00" in row["prompts"] and row[arm] is not None


def run_of(evidence: Path, *records: Record, **changes: Any) -> Run:
    """A run that has judged these records and asked for no others."""
    ids = tuple(record.id for record in records)
    return Run(
        **{"hardware": "cpu", "pair": "micro-26b-a4b-nvfp4", "level": "qualify", "evidence": str(evidence)}
        | {"expected": ids, "records": records}
        | changes
    )


def report_of(evidence: Path, *records: Record, **changes: Any) -> Report:
    """The report of that run, from the evidence on disk."""
    run = run_of(evidence, *records, **changes)
    return gather(run, judge_run(run), load_profile("cpu", "micro-26b-a4b-nvfp4", "qualify"))
