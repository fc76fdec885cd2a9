"""With which command and in which environment each server was started, written down before it runs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from jsonschema import Draft202012Validator

from conformance.errors import ObservationError
from conformance.evidence.folder import now, write_atomically
from conformance.evidence.redaction import redact_command, redact_environment
from conformance.serving.server import Server

FOLDER = "servers"
SCHEMA = Path(__file__).parent / "start.schema.json"
# Settings of the engine and of what it runs on; of the rest, only what the launch itself has set is written down.
TELLING = (
    *("VLLM_", "CUDA_", "NVIDIA_", "NCCL_", "FLASHINFER_", "TRITON_", "TORCH", "PYTORCH_", "HF_", "TRANSFORMERS_"),
    *("OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "LD_PRELOAD", "LD_LIBRARY_PATH", "CONFORMANCE_"),
)


@dataclass(frozen=True)
class Started:
    """One server: the command, the settings in its environment, both without secrets, and when it was started."""

    name: str  # its log is logs/<name>.log
    started: str
    command: tuple[str, ...]
    environment: Mapping[str, str]


def write_start(directory: Path, server: Server, environment: Mapping[str, str]) -> None:
    """Note a server that is about to be started."""
    folder = directory / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    chosen = {name: value for name, value in sorted(environment.items()) if _matters(name, value)}
    command = tuple(redact_command(server.command, environment))
    note = Started(server.log.stem, now(), command, redact_environment(chosen, environment))
    write_atomically(folder / f"{note.name}.json", json.dumps(asdict(note), indent=1, ensure_ascii=False) + "\n")


def read_starts(directory: Path) -> list[Started]:
    """Every server that was started, by name; ObservationError where a note is damaged."""
    schema = Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    found = []
    for path in sorted((directory / FOLDER).glob("*.json")):
        try:
            note = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ObservationError(f"{path} cannot be read: {error}") from error
        if wrong := next(schema.iter_errors(note), None):
            raise ObservationError(f"{path} is not in its agreed shape: {wrong.message[:300]}")
        found.append(Started(**{**note, "command": tuple(note["command"])}))
    return found


def _matters(name: str, value: str) -> bool:
    return name.startswith(TELLING) or os.environ.get(name) != value
