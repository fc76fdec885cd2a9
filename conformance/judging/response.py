"""How grave it is when a check fails, and what to do about it: two words in each check's declaration."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Severity(StrEnum):
    """What a failure means for those who serve."""

    BLOCKS = "blocks serving"
    OUTPUT = "wrong output"
    SLOW = "slow"
    INFORMATIONAL = "informational"


# Each name is a heading of docs/troubleshooting.md.
RESPONSES: Mapping[str, str] = {
    "install-lock": "Install the locked environment with scripts/bootstrap, or judge with --unlocked.",
    "change-release": "Use another release of vLLM; docs/upstream.md names those that are affected.",
    "fetch-checkpoint": "Fetch target and draft again at their published revisions, and compare their configurations.",
    "correct-launch": "Start the server with the arguments of the hardware profile.",
    "change-kernel": "Choose another backend by name, such as --moe-backend, or the BF16 target.",
    "compare-answers": "Compare both answers by qualify show; if only the one without MTP is right, serve without it.",
    "guard-client": "Let the client avoid such requests, or check what comes back.",
    "inspect-draft": "Look at the DRAFT and PARITY checks first: a draft that is loaded wrong is accepted less.",
    "measure-again": "Measure again on an idle machine, and compare the runs by qualify compare.",
    "restart-server": "Restart the server before it fails, and report the log and the chart of the soak.",
    "cool-machine": "Cool the machine or raise its power limit, and measure again.",
    "distrust-intervals": "Trust no interval of this run, and report it to this suite.",
}
