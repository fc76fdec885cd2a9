"""``python -m conformance.inside_vllm.bench_serve``: ``vllm bench serve``, once for each line of input.

A line is a JSON array of the arguments of one run; the answer is a line of JSON with the CPU seconds of that run. This
module calls the functions of the command, because the command itself fails if the distribution is not named "vllm", and
because it would import vLLM for every run.
"""

from __future__ import annotations

import json
import os
import sys
import time

from conformance.inside_vllm.adapters import upstream


def main() -> None:
    """Run until the input ends; the benchmark's own output goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    parser = upstream("vllm.utils.argparse_utils", "FlexibleArgumentParser")()
    upstream("vllm.benchmarks.serve", "add_cli_args")(parser)
    run = upstream("vllm.benchmarks.serve", "main")
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        options = parser.parse_args(json.loads(line))
        begin = time.process_time()
        run(options)
        print(json.dumps({"cpu_seconds": time.process_time() - begin}), file=answers)


if __name__ == "__main__":
    main()
