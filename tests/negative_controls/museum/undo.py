"""How an exhibit is undone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Undo = Callable[[], None]


def replaced(owner: Any, name: str, value: Any) -> Undo:
    """Set an attribute; the result sets the old one again."""
    old = getattr(owner, name)
    setattr(owner, name, value)
    return lambda: setattr(owner, name, old)
