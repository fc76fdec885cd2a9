"""The tester's own tests: damaged documents, defects put back into vLLM, and servers that misbehave."""
