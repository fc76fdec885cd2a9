"""GRAPH: a CUDA graph covers every batch of decoding, with and without MTP."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_none
from conformance.views.cuda_graphs import CudaGraphs


@check(
    "GRAPH-01",
    level="static",
    claim="vLLM captures a full CUDA graph for every number of requests, with and without MTP, on every hardware.",
    upstream="vllm#54933",
)
def test_graphs_cover_decoding(cuda_graphs: CudaGraphs) -> None:
    """By vLLM's own choice of sizes and its own dispatcher, for 1 … max_num_seqs requests of 1 + k tokens each."""
    expect_none(cuda_graphs.objections(), among=cuda_graphs.batches, source=cuda_graphs, note=cuda_graphs.note())
