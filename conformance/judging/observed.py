"""What an expectation needs to know of what it judges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Seen(Protocol):
    """Anything that names the evidence file it was read from."""

    @property
    def source(self) -> str: ...


class Tried(Seen, Protocol):
    """Something that was tried several times."""

    @property
    def trials(self) -> int: ...

    @property
    def note(self) -> str: ...


class Examined(Tried, Protocol):
    """Something that was tried several times, with a sentence for each trial that went wrong."""

    def objections(self) -> Sequence[str]: ...


class Kind(Protocol):
    """One kind of what is wrong: its name, the number of answers, and an example as a sentence."""

    @property
    def kind(self) -> str: ...

    @property
    def answers(self) -> int: ...

    @property
    def sentence(self) -> str: ...


class Sorted(Tried, Protocol):
    """Something that was tried several times, with what went wrong sorted into kinds."""

    def kinds(self) -> Sequence[Kind]: ...
