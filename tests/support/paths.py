"""Where the checkout and its tests are, and how a child process finds both."""

from __future__ import annotations

import os
from pathlib import Path

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
PYTHONPATH = os.pathsep.join([str(TESTS), str(ROOT)])
