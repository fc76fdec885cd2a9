"""GRAPH: a CUDA graph covers every batch of decoding, with and without MTP, and the server uses it."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_none
from conformance.judging.power import SURELY
from conformance.profile.tolerances import Tolerances
from conformance.views.cuda_graphs import CudaGraphs
from conformance.views.steps.graph_steps import GraphSteps


@check(
    "GRAPH-01",
    level="static",
    severity="slow",
    response="correct-launch",
    oracle="self-consistent",
    no_better_oracle="Only vLLM's dispatcher knows which graph a batch gets; GRAPH-03 sees a lost graph by its cost.",
    claim="vLLM captures a full CUDA graph for every number of requests, with and without MTP, on every hardware.",
    upstream="vllm#54933",
)
def test_graphs_cover_decoding(cuda_graphs: CudaGraphs) -> None:
    """By vLLM's own choice of sizes and its own dispatcher, for 1 … max_num_seqs requests of 1 + k tokens each."""
    expect_none(cuda_graphs.objections(), among=cuda_graphs.batches, source=cuda_graphs, note=cuda_graphs.note())


@check(
    "GRAPH-02",
    level="qualify",
    severity="slow",
    response="correct-launch",
    oracle="self-consistent",
    no_better_oracle="Only vLLM counts the graphs that its steps run from; GRAPH-03 sees a lost graph by its cost.",
    claim="Every step of decoding runs from a full CUDA graph, with and without MTP, at every number of requests.",
    upstream="vllm#53407",
)
def test_decoding_runs_from_full_graphs(graph_steps: GraphSteps) -> None:
    """As vLLM counts its steps by --cudagraph-metrics, while 1 … max_num_seqs requests decode at once."""
    seen = graph_steps
    expect_none(seen.without_full_graph(), among=seen.decoded, source=seen, note=seen.counted())


@check(
    "GRAPH-03",
    level="qualify",
    severity="slow",
    response="correct-launch",
    oracle="paired",
    claim="One more request at once does not cost tokens/s.",
)
def test_no_cliff(graph_steps: GraphSteps, tolerances: Tolerances) -> None:
    """1 … max_num_seqs requests, several times. A lost graph costs more than the tolerance, and it does so every time.

    The best passes decide. Where they show a cliff and the passes differ so much that noise may be why, the check is
    INCONCLUSIVE.
    """
    seen, share = graph_steps, tolerances["requests_cliff"]
    doubtful, drop = seen.doubtful_cliffs(share), seen.drop_seen(share)
    lacking = f"the passes differ so much that a drop of {drop:.0%} may not show"
    expect_none(
        seen.cliffs(share),
        doubtful=doubtful,
        among=seen.numbers,
        source=seen,
        note=seen.speeds(),
        seen=f"fails a drop of {drop:.0%} {SURELY}",
        lacking=lacking if drop > tolerances["lost_graph"] else "",
    )
