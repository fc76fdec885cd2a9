"""The CUDA graphs that vLLM would use for every batch of decoding, by hardware profile and k."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError

FULL, PIECEWISE, NONE = "FULL", "PIECEWISE", "NONE"
WORDS = {PIECEWISE: "computes attention outside its graph (PIECEWISE)", NONE: "has no graph (NONE)"}


@dataclass(frozen=True)
class Captured:
    """The graphs of one hardware profile at one k, 0 without MTP; ``batches`` are numbers of requests by kind."""

    hardware: str
    k: int
    max_num_seqs: int
    maximum: int | None
    sizes: tuple[int, ...]
    batches: Mapping[str, tuple[int, ...]]
    error: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Read a row of the observation.

        Raises:
            ObservationError: the row does not tell about every number of requests.
        """
        settings, batches = row["settings"], {kind: tuple(each) for kind, each in row["batches"].items()}
        told = sorted(itertools.chain.from_iterable(batches.values()))
        name, error = f"{row['hardware']} at k = {settings['k']}", row["error"] or ""
        if not error and told != list(range(1, settings["max_num_seqs"] + 1)):
            raise ObservationError(f"{name}: {len(told)} batches were asked for, not {settings['max_num_seqs']}")
        sizes = tuple(row["sizes"])
        most, maximum = settings["max_num_seqs"], settings["maximum"]
        return cls(row["hardware"], settings["k"], most, maximum, sizes, batches, error)

    @property
    def name(self) -> str:
        return f"{self.hardware} {f'with k = {self.k}' if self.k else 'without MTP'}"

    @property
    def largest(self) -> int:
        """The largest captured size in tokens; 0 if there is none."""
        return max(self.sizes, default=0)

    def uncovered(self) -> dict[str, tuple[int, ...]]:
        """The numbers of requests without a FULL graph, by the kind that they get instead."""
        return {kind: each for kind, each in self.batches.items() if kind != FULL}

    def objections(self) -> Iterator[str]:
        """A sentence for each kind of graph that is not FULL, and one if vLLM refuses the settings."""
        if self.error:
            yield f"{self.name}: vLLM refuses the settings: {self.error}"
        for kind, requests in self.uncovered().items():
            tokens = max(requests) * (1 + self.k)
            asked = f", of --max-cudagraph-capture-size {self.maximum}" if self.maximum else ""
            yield (
                f"{self.name}: a step of {ranges(requests)} of {self.max_num_seqs} requests, up to {tokens} tokens, "
                f"{WORDS.get(kind, kind)}; captured up to {self.largest}{asked}"
            )


@dataclass(frozen=True)
class CudaGraphs:
    """The ``cuda_graphs`` observation."""

    vllm_version: str
    rows: tuple[Captured, ...]
    eager: tuple[str, ...]
    source: str = "observations/cuda_graphs.json"

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read the observation.

        Raises:
            ObservationError: a row is incomplete.
        """
        rows = tuple(Captured.of(row) for row in document["rows"])
        return cls(document["vllm_version"], rows, tuple(document["eager"]))

    @property
    def batches(self) -> int:
        """The number of batches that were asked for."""
        return sum(row.max_num_seqs for row in self.rows)

    def objections(self) -> list[str]:
        """A sentence for each batch without a FULL graph."""
        return [sentence for row in self.rows for sentence in row.objections()]

    def note(self) -> str:
        """The hardware profiles that were asked about, and those without graphs."""
        names = dict.fromkeys(row.hardware for row in self.rows)
        eager = f"; without graphs (--enforce-eager): {', '.join(self.eager)}" if self.eager else ""
        return f"{', '.join(names)}{eager}"


def ranges(numbers: Collection[int]) -> str:
    """``1, 3 to 5`` for 1, 3, 4, 5."""
    ordered = sorted(numbers)
    groups: list[list[int]] = []
    for number in ordered:
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    return ", ".join(str(each[0]) if len(each) == 1 else f"{each[0]} to {each[-1]}" for each in groups)
