"""JUnit XML of a run, for continuous integration.

pytest's own ``--junitxml`` knows only outcomes, this file has the verdicts: FAIL and INCONCLUSIVE become ``failure``
(with the verdict as its type), ERROR becomes ``error``, UNSUPPORTED and WAIVED become ``skipped`` with their reason.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from conformance.judging.verdict import Judgement, Record, Run, Verdict
from conformance.reports.sanitize import printable

ELEMENTS = {
    Verdict.FAIL: "failure",
    Verdict.INCONCLUSIVE: "failure",
    Verdict.ERROR: "error",
    Verdict.UNSUPPORTED: "skipped",
    Verdict.WAIVED: "skipped",
}


def junit(run: Run, judgement: Judgement) -> str:
    """One ``testsuite`` with one ``testcase`` for each check; value, floor, n and interval are its properties."""
    outcomes = [ELEMENTS.get(record.verdict) for record in run.records]
    suite = ET.Element(
        "testsuite",
        name=f"conformance {run.hardware} {run.pair}",
        tests=str(len(outcomes)),
        failures=str(outcomes.count("failure")),
        errors=str(outcomes.count("error") + len(run.problems)),
        skipped=str(outcomes.count("skipped")),
        time=f"{sum(record.seconds for record in run.records):.3f}",
    )
    _properties(
        suite,
        {
            "hardware": run.hardware,
            "pair": run.pair,
            "level": run.level,
            "evidence": run.evidence,
            "judgement": judgement.sentence,
            "exit_code": str(int(judgement.exit_code)),
        },
    )
    for record in run.records:
        _case(suite, record)
    for problem in run.problems:
        case = ET.SubElement(suite, "testcase", classname="conformance.run", name="run", time="0")
        ET.SubElement(case, "error", type="ERROR", message=printable(problem))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ET.Element, record: Record) -> None:
    family = record.id.partition("-")[0]
    case = ET.SubElement(
        suite,
        "testcase",
        classname=f"conformance.{family}",
        name=f"{record.id} {record.claim}",
        time=f"{record.seconds:.3f}",
    )
    facts = {"id": record.id, "level": record.level, "verdict": str(record.verdict)}
    for number, finding in enumerate(record.findings, 1):
        suffix = f".{number}" if len(record.findings) > 1 else ""
        facts |= {f"value{suffix}": finding.value, f"floor{suffix}": finding.floor, f"source{suffix}": finding.source}
        if finding.n is not None:
            facts[f"n{suffix}"] = str(finding.n)
        if finding.interval is not None:
            facts[f"interval{suffix}"] = "{:.6g} {:.6g}".format(*finding.interval)
    _properties(case, facts)
    if record.verdict in ELEMENTS:
        message = printable(record.waiver or record.sentence)
        element = ET.SubElement(case, ELEMENTS[record.verdict], type=str(record.verdict), message=message)
        advice = [f"known failure {d.id} ({d.upstream}): {d.advice}" for d in record.diagnoses]
        element.text = printable("\n".join([record.sentence, *advice, record.details]).strip())


def _properties(parent: ET.Element, facts: dict[str, str]) -> None:
    properties = ET.SubElement(parent, "properties")
    for name, value in facts.items():
        ET.SubElement(properties, "property", name=name, value=printable(value))
