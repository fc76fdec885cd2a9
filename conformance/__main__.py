"""``python -m conformance``: the command ``qualify``."""

from __future__ import annotations

import sys

from conformance.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
