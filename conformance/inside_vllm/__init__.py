"""Code that runs inside vLLM's processes. Only two modules change anything there, all others only observe.

``cpu_nvfp4`` adds NVFP4 on the CPU as a last resort; ``synthetic_acceptance`` decides about drafts while the instrument
is calibrated.
"""
