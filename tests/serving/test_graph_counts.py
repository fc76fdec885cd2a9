"""vLLM's tables of CUDA graphs are read as vLLM itself writes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conformance.serving import logs
from conformance.serving.graph_counts import HEADER, Kind, graph_counts

PREFIX = "(APIServer pid=71) INFO 11-29 17:00:10 [cuda_graph.py:118] "
TABLES = """
- Mode: FULL_AND_PIECEWISE
- Capture sizes: [5, 10, 20, 35]

**CUDAGraph Stats:**

| Unpadded Tokens | Padded Tokens | Num Paddings | Runtime Mode | Count |
|-----------------|---------------|--------------|--------------|-------|
| 15              | 20            | 5            | FULL         | 17    |
| 208             | 208           | 0            | NONE         | 3     |
Engine 000: Avg prompt throughput: 38.1 tokens/s, Running: 3 reqs
| 15              | 20            | 5            | FULL         | 2     |
| 100             | 104           | 4            | PIECEWISE    | 1     |
"""
# By vLLM's own code that collects and formats the steps, and by its logger's formatter.
BY_VLLM = """
import logging
from vllm.compilation.cuda_graph import CUDAGraphLogging, CUDAGraphStat
from vllm.config import CUDAGraphMode
from vllm.logging_utils import NewLineFormatter

collected = CUDAGraphLogging(CUDAGraphMode.FULL_AND_PIECEWISE, [5, 10, 20])
steps = [(15, 20, CUDAGraphMode.FULL)] * 12 + [(200, 200, CUDAGraphMode.NONE), (7, 10, CUDAGraphMode.PIECEWISE)]
for tokens, padded, mode in steps:
    collected.observe(CUDAGraphStat(tokens, padded, padded - tokens, str(mode)))
said = []
collected.log(said.append)
record = logging.LogRecord("vllm", logging.INFO, "cuda_graph.py", 118, said[0], None, None)
print(NewLineFormatter("%(levelname)s %(asctime)s [%(filename)s:%(lineno)d] %(message)s").format(record))
"""


def test_the_tables_of_a_log_are_summed() -> None:
    log = "".join(f"{PREFIX}{line}\n" for line in TABLES.splitlines())
    assert graph_counts(log) == {Kind(15, 20, "FULL"): 19, Kind(208, 208, "NONE"): 3, Kind(100, 104, "PIECEWISE"): 1}


def test_other_lines_count_nothing() -> None:
    assert not graph_counts("| 15 | 20 | FULL |\nINFO | a | b | c | FULL | 3 |\nCapture sizes: [1, 2]")


def test_the_installed_vllm_writes_such_tables(tmp_path: Path) -> None:
    log = tmp_path / "plain.log"  # read as a run reads it: vLLM ends these lines with CR LF
    with log.open("wb") as stdout:
        subprocess.run([sys.executable, "-c", BY_VLLM], stdout=stdout, check=True, timeout=120)
    assert b"|\r\n" in log.read_bytes()
    text = logs.read(log)
    assert HEADER in text
    assert graph_counts(text) == {
        Kind(15, 20, "FULL"): 12,
        Kind(200, 200, "NONE"): 1,
        Kind(7, 10, "PIECEWISE"): 1,
    }
