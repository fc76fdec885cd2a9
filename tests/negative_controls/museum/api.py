"""Defects in the process of the API of a running server, beside those of the parser: see ``museum/parsers.py``."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

REFUSALS, DEPARTURES = "refusals_are_500", "departed_clients_are_served_on"
DEFECTS = (REFUSALS, DEPARTURES)


def install(defect: Callable[[], str]) -> None:
    """Give the API the defect that ``defect`` names at each call; none if the name is unknown."""
    from vllm.entrypoints.serve.exception_handling.handlers import exception
    from vllm.v1.engine.async_llm import AsyncLLM

    respond, abort = exception.create_error_response, AsyncLLM.abort

    def failing(*given: Any, **named: Any) -> Any:
        said = respond(*given, **named)
        if defect() == REFUSALS:
            said.error.code = HTTPStatus.INTERNAL_SERVER_ERROR
        return said

    async def deaf(self: Any, *given: Any, **named: Any) -> None:
        if defect() != DEPARTURES:
            await abort(self, *given, **named)

    exception.create_error_response, AsyncLLM.abort = failing, deaf
