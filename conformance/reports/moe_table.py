"""The table of MoE kernels: what vLLM's own selection would choose on each device, and why not another one."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from conformance.reports.sanitize import json_text
from conformance.views.moe_oracle import NOT_EVALUATED, REFUSED, Device, MoeOracle

FORMAT = 1
BEGIN, END = "<!-- moe-table: begin -->", "<!-- moe-table: end -->"
COLUMNS = ("device", "chosen", "expected", "refused, by what it says no to", "could not be evaluated here")
WIDTH = 140
AFTER = "after the choice: "

Row = tuple[str, str, str, str, str]


def rows(oracle: MoeOracle) -> list[Row]:
    """One row for each device, in the order of COLUMNS."""
    return [
        (name, device.chosen or device.error, _expected(oracle, name), _refused(device), _not_evaluated(device))
        for name, device in oracle.devices.items()
    ]


def as_text(oracle: MoeOracle) -> str:
    """The table for a terminal or a log, in plain characters."""
    table = Table(*COLUMNS, box=box.ASCII2, show_lines=True, title=f"vLLM {oracle.vllm_version}: {_TITLE}")
    for row in rows(oracle):
        table.add_row(*row)
    out = io.StringIO()
    Console(file=out, width=WIDTH, no_color=True, highlight=False, emoji=False).print(table)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def as_markdown(oracle: MoeOracle) -> str:
    """The table for a document, with vLLM's own reason for every refusal."""
    body = [f"| {' | '.join(cells)} |\n" for cells in [COLUMNS, ["---"] * len(COLUMNS), *rows(oracle)]]
    words = [f"- {text}\n" for text in _refusals(oracle)]
    title = f"vLLM {oracle.vllm_version}: {_TITLE}."
    return f"{title}\n\n{''.join(body)}\nvLLM's own words for the refusals:\n\n{''.join(words)}"


def as_json(oracle: MoeOracle) -> str:
    """The same for programs: for each device every backend in the order in which vLLM tries them."""
    devices = [
        {
            "device": name,
            "chosen": device.chosen,
            "error": device.error,
            "expected": [{"backend": row.backend, "not_judged": why} for row, why in oracle.expectations(name)],
            "backends": [
                {"backend": each, "state": device.backends[each].state, "reasons": list(device.backends[each].reasons)}
                for each in device.order
            ],
        }
        for name, device in oracle.devices.items()
    ]
    return json_text({"format": FORMAT, "vllm_version": oracle.vllm_version, "devices": devices})


_TITLE = "its own choice of a kernel for Gemma 4's NVFP4 experts"


def _expected(oracle: MoeOracle, name: str) -> str:
    """Every row of the facts for this device; a row that is not judged has the reason."""
    texts = [row.backend + (f" ({why})" if why else "") for row, why in oracle.expectations(name)]
    return "; ".join(texts) or f"no row for vLLM {oracle.vllm_version}"


def _refused(device: Device) -> str:
    refused = device.in_state(REFUSED)
    return _grouped((", ".join(backend.objections), name) for name, backend in refused.items())


def _not_evaluated(device: Device) -> str:
    backends = device.in_state(NOT_EVALUATED)
    before = {name: backend for name, backend in backends.items() if device.comes_before_choice(name)}
    after = {name: backend for name, backend in backends.items() if name not in before}
    first, then = (
        _grouped((", ".join(backend.reasons), name) for name, backend in part.items()) for part in (before, after)
    )
    return "; ".join([*[first] * bool(first), *[f"{AFTER}{then}"] * bool(then)])


def _grouped(pairs: Iterable[tuple[str, str]]) -> str:
    """``A, B (reason); C (other)``."""
    groups: dict[str, list[str]] = {}
    for reason, name in pairs:
        groups.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in groups.items())


def _refusals(oracle: MoeOracle) -> Sequence[str]:
    """Each reason once, with its backends."""
    found: dict[str, dict[str, None]] = {}
    for device in oracle.devices.values():
        for name, backend in device.in_state(REFUSED).items():
            for reason in backend.reasons:
                found.setdefault(reason, {})[name] = None
    return [f"`{reason}`: {', '.join(names)}" for reason, names in found.items()]
