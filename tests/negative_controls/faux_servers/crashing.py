"""Dies at its start like vLLM: first the engine's traceback, then the errors that it causes in other processes."""

import sys

print(
    """(EngineCore pid=71) ERROR 11-23 14:25:33 [core.py:1136] Traceback (most recent call last):
(EngineCore pid=71) ERROR 11-23 14:25:33 [core.py:1136]   File "nvfp4.py", line 12, in select
(EngineCore pid=71) ERROR 11-23 14:25:33 [core.py:1136] ValueError: backend 'CUTLASS' does not support the device.
(EngineCore pid=71) Exception: WorkerProc initialization failed. See stack trace for root cause.
(APIServer pid=70) Traceback (most recent call last):
(APIServer pid=70) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}""",
    flush=True,
)
sys.exit(3)
