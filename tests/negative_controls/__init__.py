"""Negative controls: damaged documents, defects put back into vLLM, and servers that misbehave."""
