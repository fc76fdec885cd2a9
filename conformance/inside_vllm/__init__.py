"""Code that runs inside vLLM's processes: it looks, and on the CPU it lends NVFP4 a last resort; nothing else."""
