"""Ignores SIGTERM. Its children do so too, in their own sessions: one has no parent, one lacks the suite's mark."""

import os
import signal
import subprocess
import sys
import time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
SLEEP = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
ORPHAN = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True)"

subprocess.run([sys.executable, "-c", ORPHAN], check=True)
unmarked = {name: value for name, value in os.environ.items() if name != "CONFORMANCE_SERVER"}
subprocess.Popen([sys.executable, "-c", SLEEP], start_new_session=True, env=unmarked)
time.sleep(600)
