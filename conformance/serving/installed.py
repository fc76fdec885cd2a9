"""``python -m conformance.serving.installed FOLDER…``: which vLLM and which suite a Python has, as one line of JSON.

It says too which of the folders are not there, and a loopback port that is free.

They are read and not imported, since importing vLLM takes seconds; this module needs the standard library alone.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import socket
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from conformance.profile.arms import ENGINES

SUITE = "gemma4-mtp-conformance"
SCHEDULE = "num_speculative_tokens_per_batch_size"
COUNTS = "per_request_spec_decode_metrics"
# Settings that not every vLLM has, by the module of vllm.config that would name them.
_OF_SOME = {COUNTS: "observability", SCHEDULE: "speculative"}


@dataclass(frozen=True)
class Installed:
    """Versions, None where there is none, and which settings of ``_OF_SOME`` this vLLM has."""

    vllm: str | None
    suite: str | None
    settings: tuple[str, ...]

    @property
    def counts_by_request(self) -> bool:
        """Whether a request's own count of drafts can be put into its answer."""
        return COUNTS in self.settings

    @property
    def draft_schedule(self) -> bool:
        """Whether it knows drafts whose length changes while it runs."""
        return SCHEDULE in self.settings


@functools.cache
def installed_here() -> Installed:
    """What this interpreter has."""
    engine = next((version for name in ENGINES if (version := _version(name))), None)
    return Installed(engine, _version(SUITE), tuple(name for name, part in _OF_SOME.items() if _names(part, name)))


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _names(part: str, name: str) -> bool:
    """Whether vllm/config/<part>.py has the name."""
    found = importlib.util.find_spec("vllm")
    sources = [Path(folder) / "config" / f"{part}.py" for folder in (found and found.submodule_search_locations) or ()]
    return any(source.is_file() and name in source.read_text(encoding="utf-8") for source in sources)


if __name__ == "__main__":
    with socket.socket() as probe:  # a port that nobody listens on at this moment
        probe.bind(("127.0.0.1", 0))
        absent = [each for each in sys.argv[1:] if not Path(each).is_dir()]
        print(json.dumps(asdict(installed_here()) | {"absent": absent, "port": probe.getsockname()[1]}))
