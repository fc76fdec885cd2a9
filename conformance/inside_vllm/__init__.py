"""Code that runs inside vLLM's processes: it looks, and changes nothing but what these two modules say.

``cpu_nvfp4`` lends NVFP4 a last resort on the CPU; ``synthetic_acceptance`` decides about drafts while the
instrument is calibrated.
"""
