"""The options of a server that decide about its CUDA graphs, as a hardware profile and a pair give them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from conformance.errors import UsageError
from conformance.profile.profile import Hardware

NEW_RUNNER = "VLLM_USE_V2_MODEL_RUNNER"


@dataclass(frozen=True)
class GraphOptions:
    """Sizes are in tokens, and None where the option is not given. ``eager``: the server captures no graph."""

    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    maximum: int | None
    sizes: tuple[int, ...] | None
    eager: bool
    new_runner: bool


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"serve_args cannot be read: {message}.")


def graph_options(hardware: Hardware, more: Sequence[str] = ()) -> GraphOptions:
    """The options of the measured servers of a hardware profile, and ``more`` arguments, such as those of a pair.

    Raises:
        UsageError: an option has no number where it needs one.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--max-num-seqs", type=int)
    parser.add_argument("--max-num-batched-tokens", type=int)
    parser.add_argument("--max-cudagraph-capture-size", type=int)
    parser.add_argument("--cudagraph-capture-sizes", type=int, nargs="+")
    parser.add_argument("--enforce-eager", action="store_true")
    parser.add_argument("--compilation-config", "-cc", type=_table, default={})
    found, _ = parser.parse_known_args([*more, *hardware.measured])
    table = found.compilation_config
    maximum = found.max_cudagraph_capture_size or table.get("max_cudagraph_capture_size")
    sizes = found.cudagraph_capture_sizes or table.get("cudagraph_capture_sizes")
    return GraphOptions(
        found.max_num_seqs,
        found.max_num_batched_tokens,
        maximum,
        tuple(sizes) if sizes else None,
        found.enforce_eager,
        (hardware.environment or {}).get(NEW_RUNNER) == "1",
    )


def _table(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError
    return found
