"""The configuration that vLLM arrived at, flat: "scheduler_config.max_num_seqs" and so on, as the worker holds it.

Nothing is chosen here. Every field of every part of VllmConfig is listed, so that a difference between two servers that
nobody has thought of is seen as well.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from enum import Enum
from typing import Any

from conformance.errors import Unsupported
from conformance.formats.secrets import is_secret
from conformance.inside_vllm import adapters

DEEPEST = 6  # parts within parts; VllmConfig has four
LONGEST = 200  # characters of an object's own text
Field = tuple[str, Any]


def of_worker(worker: Any) -> dict[str, Any]:
    """Every field of the worker's VllmConfig, then what the worker made of it (``worker.…``), by name.

    Raises:
        Unsupported: this vLLM has no vllm_config in its worker.
    """
    fields = dict(flat(adapters.follow(worker, "vllm_config")))
    return fields | {f"worker.{name}": value for name, value in _made_by(worker).items()}


def _made_by(worker: Any) -> dict[str, Any]:
    """The runner, the all-reduce, the attention backend of each layer. What this vLLM does not tell is left out."""
    found: dict[str, Any] = {}
    with suppress(Unsupported):
        found["custom_all_reduce"] = adapters.custom_all_reduce(worker)
    with suppress(Unsupported):
        found["model_runner"] = adapters.model_runner_class(worker)
    with suppress(Unsupported):
        found |= {f"attention.{layer}": backend for layer, backend in adapters.attention_backends(worker).items()}
    return found


def flat(value: Any, name: str = "", depth: int = 0) -> Iterator[Field]:
    """The fields of a dataclass or a mapping, and of those inside it; anything else is one field."""
    parts = _parts(value) if depth < DEEPEST else None
    if parts is None or not parts:
        yield name, plain(value)
        return
    for key, part in parts.items():
        if not is_secret(str(key)):
            yield from flat(part, f"{name}.{key}" if name else str(key), depth + 1)


def _parts(value: Any) -> Mapping[Any, Any] | None:
    """The fields of vLLM's own dataclasses, and the items of mappings; the checkpoint's config is one value."""
    if isinstance(value, Mapping):
        return value
    if not dataclasses.is_dataclass(value) or isinstance(value, type) or _of_transformers(value):
        return None
    return {each.name: _read(value, each.name) for each in dataclasses.fields(value)}


def _of_transformers(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "transformers"


def _read(value: Any, name: str) -> Any:
    """A field; reading one may fail, as it may be a property that computes."""
    try:
        return getattr(value, name, None)
    except Exception as error:  # any error is what there is to tell
        return f"unreadable: {type(error).__name__}"


def plain(value: Any) -> Any:
    """The value as JSON. An object without a text of its own is the name of its class, which is the same each time."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(str(plain(each)) for each in value)
    if isinstance(value, Mapping):
        return {} if not value else type(value).__name__
    if isinstance(value, type) or callable(value) or dataclasses.is_dataclass(value):
        return _name(value)
    text = str(value)
    return _name(value) if " at 0x" in text or len(text) > LONGEST else text


def _name(value: Any) -> str:
    """The name of a class or a function, or of the class of another object."""
    name = getattr(value, "__qualname__", None) or type(value).__qualname__
    return str(name)
