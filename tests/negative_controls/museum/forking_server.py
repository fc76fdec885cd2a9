"""vLLM's server whose engine is forked from it: ``python -m negative_controls.museum.forking_server OPTIONS``.

On a CPU, vLLM starts its engine in a new Python, which imports again what the server has imported. That costs ten
seconds of a core for each server. A forked engine is the same: no GPU is in use, and nothing computes in threads yet.
"""

from __future__ import annotations

import multiprocessing
import runpy

VLLM = "vllm.entrypoints.openai.api_server"

if __name__ == "__main__":
    forking = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda _method=None: forking
    runpy.run_module(VLLM, run_name="__main__")
