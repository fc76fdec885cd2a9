"""``python -m conformance.serving.installed FOLDER…``: prints one line of JSON about this Python.

The line has the installed versions of vLLM and the suite, those folders that do not exist, and a free loopback port.
The module imports neither vLLM, which takes seconds, nor anything outside the standard library and this package.
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
from conformance.profile.draft_schedule import SCHEDULE

SUITE = "gemma4-mtp-conformance"
COUNTS = "per_request_spec_decode_metrics"
GRAPHS = "cudagraph_metrics"
# Settings that only some versions of vLLM have, by the module of vllm.config that defines them.
_OF_SOME = {COUNTS: "observability", GRAPHS: "observability", SCHEDULE: "speculative"}


@dataclass(frozen=True)
class Installed:
    """The installed versions, None if not installed, and those settings of ``_OF_SOME`` that this vLLM has."""

    vllm: str | None
    suite: str | None
    settings: tuple[str, ...]

    @property
    def counts_by_request(self) -> bool:
        """Whether vLLM can add a request's own count of drafts to its answer."""
        return COUNTS in self.settings

    @property
    def counts_graphs(self) -> bool:
        """Whether vLLM can log how many steps ran from which kind of CUDA graph."""
        return GRAPHS in self.settings

    @property
    def draft_schedule(self) -> bool:
        """Whether vLLM can change the draft length while it runs."""
        return SCHEDULE in self.settings


@functools.cache
def installed_here() -> Installed:
    """The versions and settings that this interpreter finds."""
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
    with socket.socket() as probe:  # a free port
        probe.bind(("127.0.0.1", 0))
        absent = [each for each in sys.argv[1:] if not Path(each).is_dir()]
        print(json.dumps(asdict(installed_here()) | {"absent": absent, "port": probe.getsockname()[1]}))
