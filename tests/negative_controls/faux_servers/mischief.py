"""What ``good.py`` does wrong in the middle of its work, and what it leaves on the machine as vLLM does."""

from __future__ import annotations

import hashlib
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

SPOILED = 3  # the number of the request that is spoiled, and of every later one
WORKER_DIED = """(EngineCore pid=71) ERROR 11-29 14:25:33 [multiproc_executor.py:230] Worker proc died unexpectedly.
(EngineCore pid=71) RuntimeError: Worker failed with error 'signal 9', please check the stack trace above
(APIServer pid=70) vllm.v1.engine.exceptions.EngineDeadError: See stack trace (above) for the root cause."""
ENGINE_DIED = """(EngineCore pid=71) ERROR 11-29 14:25:33 [core.py:1136] Traceback (most recent call last):
(EngineCore pid=71) ERROR 11-29 14:25:33 [core.py:1136] RuntimeError: probability tensor contains inf, nan or below 0
(APIServer pid=70) vllm.v1.engine.exceptions.EngineDeadError: See stack trace (above) for the root cause."""
SLEEP = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
GOES_ON = "goes on after its stop tokens"  # until it has no tokens left
_held: list[object] = []  # what lives as long as the server


def settle(fault: str) -> None:
    """Make the socket, the file and the shared memory that a vLLM makes and, if it is killed, leaves behind."""
    if owner := os.environ.get("KILLED_IN"):
        folder = Path(os.environ.get("VLLM_RPC_BASE_PATH") or tempfile.gettempdir())
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(folder / str(uuid.uuid4())))
        Path(tempfile.gettempdir(), f"vllm_dist_{uuid.uuid4().hex}").touch()
        shared = os.open(f"/dev/shm/{shared_name(owner)}{os.getpid()}", os.O_RDWR | os.O_CREAT)
        os.ftruncate(shared, mmap.PAGESIZE)
        _held.extend([listening, mmap.mmap(shared, mmap.PAGESIZE)])
        os.close(shared)
    if fault == "wants much shared memory":
        os.posix_fallocate(os.open(f"/dev/shm/{shared_name('')}", os.O_RDWR | os.O_CREAT), 0, 100_000_000)
    if fault == "its worker is killed":
        _held.append(subprocess.Popen([sys.executable, "-c", SLEEP]))
    if fault == "is stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen([sys.executable, "-c", SLEEP], start_new_session=True)


def shared_name(owner: str) -> str:
    """The beginning of the names of the shared memory of one run."""
    return f"vllm_dist_{hashlib.sha256(owner.encode()).hexdigest()[:12]}_"


def refusal(fault: str, asked: int) -> tuple[int, str] | None:
    """The status and the body with which a request is refused; None if it is answered."""
    if asked < SPOILED:
        return None
    if fault == "its process dies":
        os._exit(9)
    if fault == "answers late":
        time.sleep(6.5)
    if fault == "answers 500 now and then" and asked % 3 == 0:
        return 500, '{"error": {"message": "Internal Server Error", "type": "InternalServerError", "code": 500}}'
    said = {"its engine dies": ENGINE_DIED, "its worker is killed": WORKER_DIED}.get(fault)
    if said is None:
        return None
    for worker in _held:
        if isinstance(worker, subprocess.Popen):
            worker.kill()
            worker.wait()
    print(said, flush=True)
    threading.Timer(0.3, os._exit, [1]).start()
    return 500, '{"error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError"}}'


def finish(fault: str) -> str:
    """Why an answer ends."""
    return "length" if fault == GOES_ON else "stop"


def stream(fault: str, body: str) -> str:
    """The body of an event stream as the fault leaves it."""
    chunks = body.split("\n\n")
    if fault == "doubles its streams":
        return "\n\n".join(each for chunk in chunks for each in (chunk, chunk) if each)
    if fault == "ends its streams early":
        return "\n\n".join(chunks[:2]) + "\n\n"
    if fault == "loses the mark of the end":
        return body.replace("data: [DONE]\n\n", "")
    if fault == "streams what is not JSON":
        return body.replace("data: {", "data: {{")
    return body


def metrics(fault: str, page: str, looks: int) -> str:
    """The page of metrics as the fault leaves it."""
    if fault == "has no metrics":
        return ""
    if fault == "renames its metrics":
        return page.replace("vllm:spec_decode_num_drafts_total", "vllm:spec_decode_drafts")
    if fault == "counts backwards" and looks > SPOILED:
        return page.replace("} ", "} -")
    if fault == "resets its metrics" and looks > SPOILED:
        return "\n".join(f"{line.rpartition(' ')[0]} 0.0" for line in page.splitlines())
    if fault == "metrics are no metrics":
        return "<html>It works!</html>"
    return page
