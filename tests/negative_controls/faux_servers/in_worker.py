"""A pytest plugin whose import makes servers and facts faux in the workers of a run, as ``run`` does in the command."""

from __future__ import annotations

import os
from pathlib import Path

from negative_controls.faux_servers.run import arrange_run

if "PYTEST_XDIST_WORKER" in os.environ:
    arrange_run(os.environ["FAUX_PHASE"], Path(os.environ["KILLED_IN"]))
