"""Forms of a result for other projects: GitHub, InferenceX, vLLM's recipes."""
